"""Copies of the whole file by SQLite itself: a backup, and the file written anew without its empty pages.

Never by copying files: what was committed last lies in the log beside the database, and a copy of the database file
alone taken from a running service was found to have no tables at all.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from jobrunner.errors import StoreCorrupt, StoreUnavailable

PAGES_PER_STEP: Final = 2_000
"""Of 4 KiB: a step is some ten milliseconds, after which the progress is told."""


def backup(
    conn: sqlite3.Connection, destination: Path, on_progress: Callable[[int, int], None]
) -> None:
    """Write the database as it is at this moment to ``destination``, which is there whole or not at all.

    Args:
        conn: a connection for reading; it holds its view of the file until the end, and nobody waits for it.
        destination: must not exist, or is replaced.
        on_progress: hears how many pages are done, and how many there are.

    Raises:
        StoreUnavailable: the destination cannot be written.
        StoreCorrupt: the copy does not pass SQLite's own check, so the original would not either.
    """
    part = destination.with_name(f".{destination.name}.part")
    try:
        _remove(part)
        _copy(conn, part, on_progress)
        os.replace(part, destination)
        _sync(destination.parent)
    except OSError as error:
        raise StoreUnavailable(f"{destination} cannot be written: {error.strerror}") from error
    except sqlite3.Error as error:
        if isinstance(error, sqlite3.OperationalError):
            raise StoreUnavailable(f"{destination} cannot be written: {error}") from error
        raise
    finally:
        _remove(part)


def _copy(conn: sqlite3.Connection, part: Path, on_progress: Callable[[int, int], None]) -> None:
    # A read transaction of our own: without it the copy would begin anew each time that another process writes.
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
            (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
            # The log is moved into the copy and deleted by the close; a copy is one file.
    finally:
        conn.execute("ROLLBACK")
    if verdict != "ok":
        raise StoreCorrupt(
            f"the copy does not pass SQLite's check ({verdict}), so the database is damaged: stop the service, keep the"
            " file, and restore the last good backup"
        )


def vacuum(conn: sqlite3.Connection) -> None:
    """Write the database anew without its empty pages, and give the room back; outside any transaction."""
    conn.execute("VACUUM")
    # The new pages lie in the log: only moving them shortens the file, and only TRUNCATE shortens the log.
    with contextlib.closing(conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")) as cursor:
        cursor.fetchall()


def _remove(part: Path) -> None:
    for ending in ("", "-journal", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{part}{ending}")


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
