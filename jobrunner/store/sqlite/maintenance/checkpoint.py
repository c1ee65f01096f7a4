"""Moving the write-ahead log into the database file: by one elected process, under the write lock.

SQLite before 3.51.3 can damage the file when two connections reset the log at once, and a commit that checkpoints by
the way makes somebody wait who did not ask for it.

So the elected process knows when the file itself may change, and notices if something else has written to it.
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
"""Six megabytes of log, which take some ten milliseconds to move; less than ``connection.LOG_BYTES``."""
PAGES_PER_ROUND: Final = 6
ROWS_PER_PAGE: Final = 8
"""What a round adds to the log, as counted."""
EVERY_S: Final = 1.0


class Checkpointer:
    """Decides when the log is moved, if this process is the one elected to."""

    def __init__(self, database: Path, folder: Path, move: Callable[[], Awaitable[None]]) -> None:
        """``move`` does it, on the writer's thread, under the write lock."""
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
        """The database as it was last moved to, while this process is the elected one."""
        self._told = False

    def wrote(self, rows: int) -> None:
        """Count a round of this process, and begin to move the log when it has grown enough."""
        self._pages += PAGES_PER_ROUND + rows / ROWS_PER_PAGE
        if self._pages >= PAGES_PER_CHECKPOINT:
            self._start()

    def look(self) -> None:
        """Begin to move the log if anybody has written since, and it is time."""
        self._look_at_file()
        if asyncio.get_running_loop().time() - self._started_at >= EVERY_S and self._log_moved():
            self._start()

    def _look_at_file(self) -> None:
        """Warn if the database was written to since the log was last moved: no process of ours does that."""
        if self._file is None or (self._task is not None and not self._task.done()):
            return
        before, self._file = self._file, _stamp(self._database)
        if self._file not in (before, None) and not self._told:
            self._told = True
            logger.warning(
                "something else than this process has written to %s itself. If a backup was copied over it, the file is"
                " damaged: stop every process on it and restore the backup as docs/deploy.md says. `jobrunner vacuum`"
                " does it too, and is fine; an engine or a program that is not attached can damage the log: attach it",
                self._database,
            )

    def _log_moved(self) -> bool:
        """Return whether the log was written to since the last check, by its stat."""
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
        self._look_at_file()
        self._started_at = asyncio.get_running_loop().time()
        try:
            if self._lock is None:
                self._lock = WorkerLock.try_hold(self._lock_path)
        except StoreError as error:
            # Not the caller's business: the rows that it wrote are committed.
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
        """Wait for a checkpoint that is under way, and let another process be elected."""
        if self._task is not None:
            await asyncio.wait([self._task])
            self._task = None
        self._file = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return a mark that changes when a file is written to; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None  # which ``FileIdentity`` tells
    return found.st_mtime_ns, found.st_size


def _warn(error: StoreError) -> None:
    # The log only grows until the next try; what it holds is safe where it is.
    logger.warning("the checkpoint failed and is tried again: %s", error)


def checkpoint(conn: sqlite3.Connection) -> None:
    """Move what can be moved without waiting for readers."""
    with contextlib.closing(conn.execute("PRAGMA wal_checkpoint(PASSIVE)")) as cursor:
        cursor.fetchall()
