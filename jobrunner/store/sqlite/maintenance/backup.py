"""Backs up and vacuums the file, both by SQLite's own means.

It never copies files: the latest commits are in the log beside the database, and a copy of only the database file of a
running service was found to have no tables at all.
"""

import contextlib
import fcntl
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from jobrunner.core.errors import StoreCorrupt, StoreUnavailable

PAGES_PER_STEP: Final = 2_000
"""Pages (4 KiB) per step: about ten milliseconds between two progress reports."""
OPCODES_PER_CHECK: Final = 10_000
"""SQLite virtual-machine instructions, a few milliseconds, between two checks for a cancel."""


def backup(
    conn: sqlite3.Connection,
    source: Path,
    destination: Path,
    on_progress: Callable[[int, int], None],
) -> None:
    """Write a snapshot of the database to ``destination``, completely or not at all.

    Args:
        conn: a read connection; it keeps its snapshot until the end, and no writer waits for it.
        source: the database file; the copy gets the same mode, since it has the same content.
        destination: the file to write; an existing one is replaced.
        on_progress: called with the number of copied pages and the total number of pages, also while the copy is
            checked; an ``OSError`` that it raises ends the copy.

    Raises:
        StoreUnavailable: The destination cannot be written, or another backup is being written beside it.
        StoreCorrupt: The copy does not pass SQLite's own check, so the original would not either.
    """
    # Not named after the destination, so that the next backup finds and reuses the file that a killed one has left.
    part = destination.with_name(f".{source.name}.part")
    try:
        with _in_hand(part, stat.S_IMODE(source.stat().st_mode)):
            try:
                _copy(conn, part, on_progress)
                os.replace(part, destination)
            except BaseException:
                _remove(part, "", *_BESIDE)
                raise
        _sync(destination.parent)
    except OSError as error:
        raise StoreUnavailable(
            f"{destination} cannot be written: {error.strerror or error}"
        ) from error
    except sqlite3.Error as error:
        if isinstance(error, sqlite3.OperationalError):
            raise StoreUnavailable(f"{destination} cannot be written: {error}") from error
        raise


@contextlib.contextmanager
def _in_hand(part: Path, mode: int) -> Iterator[None]:
    """Hold the lock of the unfinished copy, and empty it."""
    fd = _open_alone(part)
    try:
        os.ftruncate(fd, 0)
        os.fchmod(fd, mode)
        _remove(part, *_BESIDE)
        yield
    finally:
        # Only now: closing a descriptor of a file that SQLite has open would drop SQLite's locks on it.
        os.close(fd)


def _open_alone(part: Path) -> int:
    """Open and lock the unfinished copy (``flock``, which SQLite does not use).

    Returns:
        The descriptor that holds the lock.
    """
    while True:
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another backup may have renamed the file between these two calls: then it is a finished backup.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.stat(part)):
                    return fd
        except BlockingIOError as error:
            os.close(fd)
            raise StoreUnavailable(
                f"another backup is being written to {part.parent}; wait for its end"
            ) from error
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _copy(conn: sqlite3.Connection, part: Path, on_progress: Callable[[int, int], None]) -> None:
    # In one read transaction: without it the copy would start again each time another process writes.
    conn.execute("BEGIN")
    try:
        conn.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as copy:
            copy.execute("PRAGMA synchronous = FULL")
            conn.backup(
                copy,
                pages=PAGES_PER_STEP,
                progress=lambda _, left, total: on_progress(total - left, total),
            )
            # The check reads every page again; ``on_progress`` can also end it.
            copy.set_progress_handler(partial(on_progress, 1, 1), OPCODES_PER_CHECK)
            (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
            # Closing moves the log into the copy and deletes it, so that the copy is one file.
    finally:
        conn.execute("ROLLBACK")
    if verdict != "ok":
        raise StoreCorrupt(
            f"the copy does not pass SQLite's check ({verdict}), so the database is damaged: stop the service, keep the"
            " file, and restore the last good backup"
        )


def vacuum(conn: sqlite3.Connection, broken_off: Callable[[], bool]) -> None:
    """Rewrite the database without its empty pages and shrink the file.

    Args:
        conn: the write connection, outside any transaction.
        broken_off: called repeatedly while SQLite builds the new file; True ends the vacuum, and nothing has changed.
            It is not called while SQLite replaces the old pages.
    """
    (temp_store,) = conn.execute("PRAGMA temp_store").fetchone()
    # SQLite builds a temporary file first; with temp_store = MEMORY it would take as much memory as the database.
    conn.execute("PRAGMA temp_store = FILE")
    conn.set_progress_handler(broken_off, OPCODES_PER_CHECK)
    try:
        conn.execute("VACUUM")
    finally:
        conn.set_progress_handler(None, 0)
        conn.execute(f"PRAGMA temp_store = {temp_store}")
    # The new pages are in the log: only a checkpoint shrinks the file, and only TRUNCATE shrinks the log.
    with contextlib.closing(conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")) as cursor:
        cursor.fetchall()


_BESIDE: Final = ("-journal", "-wal", "-shm")


def _remove(part: Path, *endings: str) -> None:
    for ending in endings:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{part}{ending}")


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
