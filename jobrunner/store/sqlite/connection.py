"""Runs callables on the thread of one SQLite connection.

A whole transaction is one callable, in one hop to the thread.  With a hop per statement, a cancelled ``await`` could
leave a transaction open, and the next user of the connection would commit it.  A callable runs to its end even if the
task that waits for it is cancelled.
"""

import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from jobrunner.core.errors import (
    StoreOutcomeUnknown,
    StoreUnavailable,
)
from jobrunner.store.sqlite.driver_errors import primary_code, raise_as_ours
from jobrunner.store.sqlite.sql.statements import BEGIN, BEGIN_TO_READ, COMMIT, ROLLBACK
from jobrunner.store.sqlite.sql.task_writes import WriterConnection

T = TypeVar("T")

BUSY_TIMEOUT_S = 5.0
"""A backstop for writers that do not use the turnstile (a shell, the application's own engine)."""

LISTS_CACHE_KIB = 2_048
"""Small, since a list reads most database pages once; only the few upper pages of the tree are read again."""

LOG_BYTES = 8 * 1024 * 1024
"""Approximate size of the log between two checkpoints; see ``checkpoint.PAGES_PER_CHECKPOINT``."""

_BARRIER = """
INSERT INTO jobrunner_meta (name, value) VALUES ('barrier', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1"""


class Connection:
    """An open SQLite connection; every callable runs on the connection's thread."""

    def __init__(self, connection: aiosqlite.Connection, path: Path, *, read_only: bool) -> None:
        self._connection = connection
        self._path = path
        self._read_only = read_only

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        durability: str = "full",
        read_only: bool = False,
        cache_kib: int = 8_192,
    ) -> "Connection":
        """Open the file and set the pragmas that the store relies on; an error closes it again.

        Args:
            path: the database file.
            durability: ``"full"`` syncs at each commit; ``"normal"`` may lose the last commits at a power cut;
                ``"off"`` never syncs, for files of tests.
            read_only: refuse every write.
            cache_kib: size of the page cache, in KiB.
        """
        failed: list[sqlite3.Error] = []
        # Not `aiosqlite.connect`: the pragmas in a step of their own would be one more switch to the thread and back.
        connection = aiosqlite.Connection(
            partial(_connect, path, durability, read_only, cache_kib, failed), iter_chunk_size=64
        )
        # Otherwise the thread of an open connection would keep the process alive after an interrupted shutdown.
        connection._thread.daemon = True  # noqa: SLF001 - aiosqlite has no public option for it
        try:
            await connection
            if failed:
                # Not raised by the connector: aiosqlite would not wait for the end of its thread.
                await connection.close()
                raise failed[0]
        except sqlite3.Error as error:
            raise_as_ours(error, path)
        return cls(connection, path, read_only=read_only)

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Run ``function(connection, *args)`` on the thread, in one hop.

        Raises:
            StoreError: The driver raised an error.
        """
        try:
            # The one place that uses aiosqlite's private hop: it has no public call that takes a function.
            hop: Callable[..., Awaitable[T]] = self._connection._execute  # noqa: SLF001
            return await hop(self._call, function, args)
        except sqlite3.Error as error:
            raise_as_ours(error, self._path)
        except ValueError as error:
            if "closed" in str(error) or "no active connection" in str(error):
                raise StoreUnavailable(f"{self._path} is not open any more") from error
            raise

    def _call(self, function: Callable[..., T], args: tuple[Any, ...]) -> T:
        return function(self._connection._conn, *args)  # noqa: SLF001 - as above

    async def close(self) -> None:
        """Close the connection: interrupt a running read, wait for a running write."""
        raw = self._connection._connection  # noqa: SLF001 - None once closed, where `_conn` would raise
        if raw is None:
            return
        if self._read_only:
            raw.interrupt()
        # As `close` of aiosqlite, which goes to the thread twice.
        stopped = self._connection.stop()
        if stopped is not None:
            await stopped


def _connect(
    path: Path, durability: str, read_only: bool, cache_kib: int, failed: list[sqlite3.Error]
) -> sqlite3.Connection:
    """Connect and set the pragmas; the error of a pragma is added to ``failed``."""
    conn = sqlite3.connect(
        path,
        isolation_level=None,
        cached_statements=256,
        timeout=BUSY_TIMEOUT_S,
        factory=sqlite3.Connection if read_only else WriterConnection,
    )
    try:
        _set_pragmas(conn, durability, read_only, cache_kib)
    except sqlite3.Error as error:
        failed.append(error)
    return conn


def _set_pragmas(
    conn: sqlite3.Connection, durability: str, read_only: bool, cache_kib: int
) -> None:
    # The schema is read first: a file that is not an SQLite database must be refused before anything is written to it.
    conn.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    for pragma in (
        f"synchronous = {durability}",
        # SQLite before 3.51.3 can corrupt a file when two connections reset the log at once. So one elected process
        # checkpoints, under the write lock, and commits never do.
        "wal_autocheckpoint = 0",
        "mmap_size = 0",
        "journal_size_limit = 16777216",
        "foreign_keys = ON",
        "temp_store = MEMORY",
        "trusted_schema = OFF",
        "cell_size_check = ON",
        f"cache_size = -{cache_kib}",
        f"query_only = {'ON' if read_only else 'OFF'}",
    ):
        conn.execute(f"PRAGMA {pragma}")


def read_only(path: Path) -> sqlite3.Connection:
    """Open the file for reading on any thread, one at a time."""
    conn = sqlite3.connect(
        path, isolation_level=None, timeout=BUSY_TIMEOUT_S, check_same_thread=False
    )
    try:
        _set_pragmas(conn, "full", True, LISTS_CACHE_KIB)
    except BaseException:
        conn.close()
        raise
    return conn


def keep_log(conn: sqlite3.Connection) -> None:
    """Switch the file to WAL mode; the caller holds the write lock.

    If several processes switch at once, SQLite fails some with "database is locked", whatever the timeout.
    """
    (mode,) = conn.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise sqlite3.OperationalError(f"SQLite cannot keep a write-ahead log here (mode {mode!r})")


def make_room_in_log(conn: sqlite3.Connection, log: Path) -> None:
    """Grow a new log to its final size at once; the caller holds the write lock.

    A commit that grows the file must also sync the file's size, which takes about twice as long as overwriting old
    frames of the log. The frames written here are never committed, so nobody reads them.
    """
    (cache_size,) = conn.execute("PRAGMA cache_size").fetchone()
    conn.execute(BEGIN)
    try:
        if log.stat().st_size < LOG_BYTES:
            conn.execute("PRAGMA cache_size = 16")  # pages; what does not fit goes to the log
            conn.execute("CREATE TABLE jobrunner_room (bytes BLOB)")
            with contextlib.suppress(
                sqlite3.OperationalError
            ):  # disk full: the commit that needs the space will raise
                conn.execute("INSERT INTO jobrunner_room VALUES (zeroblob(?))", (LOG_BYTES,))
    finally:
        if conn.in_transaction:
            conn.execute(ROLLBACK)
        conn.execute(f"PRAGMA cache_size = {cache_size}")


def read_snapshot(conn: sqlite3.Connection, function: Callable[..., T], *args: Any) -> T:
    """Run ``function(conn, *args)`` in one read transaction, so that it reads one snapshot."""
    conn.execute(BEGIN_TO_READ)
    try:
        return function(conn, *args)
    finally:
        if conn.in_transaction:
            conn.execute(ROLLBACK)


def transact(conn: sqlite3.Connection, function: Callable[..., T], *args: Any) -> T:
    """Run ``function(conn, *args)`` in one write transaction; it is durable on return.

    Raises:
        StoreOutcomeUnknown: The commit failed, and so did the commit that should keep it undone.
    """
    conn.execute(BEGIN)
    try:
        result = function(conn, *args)
    except BaseException:
        # After some errors (disk full, I/O) SQLite has already rolled back.
        if conn.in_transaction:
            conn.execute(ROLLBACK)
        raise
    try:
        conn.execute(COMMIT)
    except sqlite3.Error as error:
        if conn.in_transaction:
            conn.execute(ROLLBACK)
        if primary_code(error) == sqlite3.SQLITE_IOERR:
            _seal(conn, error)
        raise
    return result


def _seal(conn: sqlite3.Connection, error: sqlite3.Error) -> None:
    """Commit a barrier, so that a commit with an I/O error stays undone.

    The failed commit's frames may be in the log, and SQLite's next recovery would apply them; a successful commit
    overwrites them.
    """
    try:
        conn.execute(BEGIN)
        conn.execute(_BARRIER)
        conn.execute(COMMIT)
    except sqlite3.Error:
        if conn.in_transaction:
            conn.execute(ROLLBACK)
        raise StoreOutcomeUnknown(
            f"the commit failed ({error}) and so did the one to seal it: the write may come back after a restart"
        ) from error
