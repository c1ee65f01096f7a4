"""Copies of the whole file by SQLite itself: a backup, and the file written anew without its empty pages.

Never by copying files: what was committed last lies in the log beside the database, and a copy of the database file
alone taken from a running service was found to have no tables at all.
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
"""Of 4 KiB: a step is some ten milliseconds, after which the progress is told."""
OPCODES_PER_LOOK: Final = 10_000
"""Of SQLite's machine: some milliseconds, after which it is asked whether to go on."""


def backup(
    conn: sqlite3.Connection,
    source: Path,
    destination: Path,
    on_progress: Callable[[int, int], None],
) -> None:
    """Write the database as it is at this moment to ``destination``, which is there whole or not at all.

    Args:
        conn: a connection for reading; it holds its view of the file until the end, and nobody waits for it.
        source: the database's file; the copy gets its mode, since it tells as much.
        destination: must not exist, or is replaced.
        on_progress: hears how many pages are done, and how many there are, and goes on hearing while the copy is
            checked; an ``OSError`` of it ends the copy.

    Raises:
        StoreUnavailable: the destination cannot be written, or another backup is being written beside it.
        StoreCorrupt: the copy does not pass SQLite's own check, so the original would not either.
    """
    # Not named after the destination: what a killed backup has left is found, and used, by the next one.
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
    """Have the unfinished copy, empty, to ourselves."""
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
    """Return a descriptor of the unfinished copy that holds its lock (``flock``, which SQLite does not use)."""
    while True:
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The one before us may have given it its name between our two lines: then it is a finished backup.
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
            # The check reads every page once more, and hears of a break-off in the same way.
            copy.set_progress_handler(partial(on_progress, 1, 1), OPCODES_PER_LOOK)
            (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
            # The log is moved into the copy and deleted by the close; a copy is one file.
    finally:
        conn.execute("ROLLBACK")
    if verdict != "ok":
        raise StoreCorrupt(
            f"the copy does not pass SQLite's check ({verdict}), so the database is damaged: stop the service, keep the"
            " file, and restore the last good backup"
        )


def vacuum(conn: sqlite3.Connection, broken_off: Callable[[], bool]) -> None:
    """Write the database anew without its empty pages, and give the room back; outside any transaction.

    Args:
        conn: a connection that may write.
        broken_off: asked again and again while the new file is made; the first yes ends that, and nothing has changed.
            While the new pages are put in place of the old ones SQLite asks nobody.
    """
    (temp_store,) = conn.execute("PRAGMA temp_store").fetchone()
    # The new file is a temporary one at first: in memory it would take as much of that as it is large.
    conn.execute("PRAGMA temp_store = FILE")
    conn.set_progress_handler(broken_off, OPCODES_PER_LOOK)
    try:
        conn.execute("VACUUM")
    finally:
        conn.set_progress_handler(None, 0)
        conn.execute(f"PRAGMA temp_store = {temp_store}")
    # The new pages lie in the log: only moving them shortens the file, and only TRUNCATE shortens the log.
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
