"""Moves the write-ahead log into the database file: one elected process, under the write lock.

SQLite before 3.51.3 can damage the file if two connections reset the log at once.  And with automatic checkpoints, the
caller whose commit happens to trigger one would wait for it.

Since only the elected process changes the database file itself, it can detect that something else has written to it.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from jobrunner.core.errors import StoreError
from jobrunner.core.logs import log_of
from jobrunner.store.sqlite.host.locks import WorkerLock

logger = log_of("jobrunner")

PAGES_PER_CHECKPOINT: Final = 1_500
"""Six megabytes of log, which take about ten milliseconds to move; less than ``connection.LOG_BYTES``."""
PAGES_PER_ROUND: Final = 6
ROWS_PER_PAGE: Final = 8
"""Measured growth of the log: ``PAGES_PER_ROUND`` per round, and one page per ``ROWS_PER_PAGE`` rows."""
EVERY_S: Final = 1.0


class Checkpointer:
    """Decides when to move the log, if this process is the elected one."""

    def __init__(self, database: Path, folder: Path, move: Callable[[], Awaitable[None]]) -> None:
        """``move`` moves the log, on the writer's thread, under the write lock."""
        self._database = database
        self._log = f"{database}-wal"
        self._lock_path = folder / "checkpoint.lock"
        self._move = move
        self._lock: WorkerLock | None = None
        self._task: asyncio.Task[None] | None = None
        self._pages = 0.0
        self._seen: tuple[int, int] | None = None
        self._started_at = 0.0
        self._file: tuple[int, int] | None = None
        """Stamp of the database after the last move, while this process is the elected one."""
        self._warned = False

    def wrote(self, rows: int) -> None:
        """Count a round of this process; start to move the log if it has grown enough."""
        self._pages += PAGES_PER_ROUND + rows / ROWS_PER_PAGE
        if self._pages >= PAGES_PER_CHECKPOINT:
            self._start()

    def check(self) -> None:
        """Start to move the log if it has changed, at most once per ``EVERY_S``."""
        self._check_file()
        if asyncio.get_running_loop().time() - self._started_at >= EVERY_S and self._log_changed():
            self._start()

    def _check_file(self) -> None:
        """Warn once if the database file has changed since the log was moved.

        No process of jobrunner does that.
        """
        if self._file is None or (self._task is not None and not self._task.done()):
            return
        before, self._file = self._file, _stamp(self._database)
        if self._file not in (before, None) and not self._warned:
            self._warned = True
            logger.warning(
                "something else than this process has written to %s itself. If a backup was copied over it, the file is"
                " damaged: stop every process on it and restore the backup as docs/deploy.md says. `jobrunner vacuum`"
                " does it too, and is fine; an engine or a program that is not attached can damage the log: attach it",
                self._database,
            )

    def _log_changed(self) -> bool:
        """Return whether the log was written to since the last check, by its ``stat``."""
        try:
            stat = os.stat(self._log)
        except FileNotFoundError:
            return False
        seen, self._seen = self._seen, (stat.st_mtime_ns, stat.st_size)
        return self._seen != seen

    def _start(self) -> None:
        self._pages = 0.0
        if self._task is not None and not self._task.done():
            return
        self._check_file()
        self._started_at = asyncio.get_running_loop().time()
        try:
            if self._lock is None:
                self._lock = WorkerLock.try_hold(self._lock_path)
        except StoreError as error:
            # Not raised: the caller's rows are committed.
            _warn(error)
        if self._lock is not None:
            self._task = asyncio.create_task(self._run(), name="jobrunner-checkpoint")

    async def _run(self) -> None:
        try:
            await self._move()
        except StoreError as error:
            _warn(error)
        finally:
            self._file = _stamp(self._database)

    async def close(self) -> None:
        """Wait for a running checkpoint, then release the election lock."""
        if self._task is not None:
            await asyncio.wait([self._task])
            self._task = None
        self._file = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return a value that changes when a file is written to; None if there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None  # ``FileIdentity`` reports it
    return found.st_mtime_ns, found.st_size


def _warn(error: StoreError) -> None:
    # The log only grows until the next try; its content is safe.
    logger.warning("the checkpoint failed and is tried again: %s", error)


def checkpoint(conn: sqlite3.Connection) -> None:
    """Move the part of the log that needs no waiting for readers."""
    with contextlib.closing(conn.execute("PRAGMA wal_checkpoint(PASSIVE)")) as cursor:
        cursor.fetchall()
