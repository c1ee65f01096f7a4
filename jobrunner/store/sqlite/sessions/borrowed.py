"""Jobs and outcomes inside a transaction of the application's own: plain functions over its connection.

The connection is not ours: how it hands out rows, when it begins a transaction and what else is in that transaction are
the application's business, and are as before afterwards.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence

from jobrunner.core.errors import InvalidSession, StoreUnavailable
from jobrunner.core.model import Enqueue, Enqueued, Outcome
from jobrunner.store.sqlite.host.identity import FileIdentity
from jobrunner.store.sqlite.sql.insert import ROW_ERRORS, insert_all
from jobrunner.store.sqlite.sql.settle import Effects, Settling

_TAKE_WRITE_LOCK = "DELETE FROM jobrunner_meta WHERE 0"
"""Changes nothing, and makes of an open transaction one that writes."""


def insert(conn: sqlite3.Connection, jobs: Sequence[Enqueue], now: int) -> list[Enqueued]:
    """Insert jobs, all or none, in the connection's transaction; begin one if there is none."""
    begin_if_none(conn)
    try:
        if len(jobs) == 1 and jobs[0].key is None:
            # One INSERT is all or nothing by itself, and reads no row.
            return insert_all(conn, jobs, now)
        with _rows_as_tuples(conn), _all_or_none(conn):
            return insert_all(conn, jobs, now)
    except ROW_ERRORS as error:
        raise StoreUnavailable(f"the store refuses the row of a job: {error}") from error


def settle(conn: sqlite3.Connection, outcome: Outcome, now: int) -> bool:
    """Write how an attempt ended, in the connection's transaction; return False if the fence refuses it."""
    with _rows_as_tuples(conn):
        begin_if_none(conn)
        with _all_or_none(conn):
            alone = Settling(conn, now, Effects(), row_by_row=True)
            alone.settle([outcome])
            return not alone.stale


def begin(conn: sqlite3.Connection) -> None:
    """Make sure of a transaction that holds the write lock; one that is open must not have read anything yet."""
    conn.execute(_TAKE_WRITE_LOCK if conn.in_transaction else "BEGIN IMMEDIATE")


def begin_if_none(conn: sqlite3.Connection) -> None:
    """Begin a transaction where the driver would begin one before the next INSERT.

    Raises:
        InvalidSession: it would not, and commit each statement by itself.
    """
    if conn.in_transaction:
        return
    if conn.isolation_level is None or getattr(conn, "autocommit", -1) is True:
        raise InvalidSession(
            "the connection is in autocommit mode and in no transaction, so the job would be there before your rows:"
            ' write connection.execute("BEGIN IMMEDIATE") (of aiosqlite: await it) before the first enqueue, or open it'
            " without isolation_level=None, autocommit=True or isolation_level='AUTOCOMMIT'"
        )
    # Not left to the driver: a SAVEPOINT would be the transaction then, and its RELEASE the commit.
    conn.execute(f"BEGIN {conn.isolation_level}")


@contextlib.contextmanager
def _rows_as_tuples(conn: sqlite3.Connection) -> Iterator[None]:
    row_factory, text_factory = conn.row_factory, conn.text_factory
    conn.row_factory, conn.text_factory = None, str
    try:
        yield
    finally:
        conn.row_factory, conn.text_factory = row_factory, text_factory


@contextlib.contextmanager
def _all_or_none(conn: sqlite3.Connection) -> Iterator[None]:
    conn.execute("SAVEPOINT jobrunner")
    try:
        yield
    except BaseException:
        # After some errors (disk full, I/O) SQLite has rolled everything back by itself.
        if conn.in_transaction:
            conn.execute("ROLLBACK TO jobrunner")
            conn.execute("RELEASE jobrunner")
        raise
    conn.execute("RELEASE jobrunner")


# -- connections that are not ours --------------------------------------------------------------------


def keep_promises(conn: sqlite3.Connection, durability: str) -> None:
    """Set a new connection so that what it commits is as safe as what the store itself commits."""
    autocommit = getattr(conn, "autocommit", -1)
    if autocommit is False:
        # From the start in a transaction, in which `synchronous` cannot be changed.
        conn.autocommit = True  # type: ignore[attr-defined]
    try:
        conn.execute(f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'}")
        _leave_log_alone(conn)
    finally:
        if autocommit is False:
            conn.autocommit = False  # type: ignore[attr-defined]


def _leave_log_alone(conn: sqlite3.Connection) -> None:
    # Moving the log is for the one process that is elected to, under the write lock: see ``checkpoint``.
    conn.execute("PRAGMA wal_autocheckpoint = 0")
    conn.execute("PRAGMA mmap_size = 0")


def prepare(conn: sqlite3.Connection, file: FileIdentity, durability: str) -> None:
    """Make sure that the connection is one to the store's file, and commits as safely as the store.

    Raises:
        InvalidSession: it is not, or cannot be made to just now.
    """
    with _rows_as_tuples(conn):
        path = _main_database(conn)
        if not path or not file.is_at(path):
            raise InvalidSession(
                f"the session writes to {path or 'a database in memory'} and the jobs are in {file.path}: one"
                f" transaction cannot span both. Open the session on {file.path}, or the runner on the session's file"
            )
        needed, word = (2, "FULL") if durability == "full" else (1, "NORMAL")
        (level,) = conn.execute("PRAGMA synchronous").fetchone()
        if level < needed:
            if conn.in_transaction:
                raise InvalidSession(
                    f"a power cut could undo what this connection commits (synchronous={level}), and that cannot be"
                    f' changed inside a transaction: write connection.execute("PRAGMA synchronous = {word}") (of'
                    " aiosqlite: await it) right after it is opened"
                )
            conn.execute(f"PRAGMA synchronous = {word}")
        _leave_log_alone(conn)


def _main_database(conn: sqlite3.Connection) -> str:
    for _, name, path in conn.execute("PRAGMA database_list"):
        if name == "main":
            return str(path or "")
    return ""
