"""Implements ``WorkerStore``: rows describe the workers, locks prove that they live."""

import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from jobrunner.core.errors import StoreReplaced
from jobrunner.core.logs import log_of
from jobrunner.core.model import WorkerRow
from jobrunner.core.wait_graph import Snapshot, WaitReport
from jobrunner.store.protocol import Recovered, Standing, WorkerStart
from jobrunner.store.sqlite import boot
from jobrunner.store.sqlite.access import Access
from jobrunner.store.sqlite.host import locks
from jobrunner.store.sqlite.host.doorbell import Doorbell, ring
from jobrunner.store.sqlite.maintenance import migrate
from jobrunner.store.sqlite.maintenance.recovery import Recovery
from jobrunner.store.sqlite.sql import watchers, workers

logger = log_of("jobrunner")


class SqliteWorkers:
    """The ``WorkerStore`` of a SQLite store."""

    def __init__(self, access: Access, folder: Path) -> None:
        self._access = access
        self._folder = folder
        self._locks: dict[int, locks.WorkerLock] = {}
        self._doorbells: dict[int, Doorbell | None] = {}
        self._rows: dict[int, WorkerRow] = {}
        """Rows of this process's workers, as stored when they joined."""
        self._addresses: Sequence[str] = ()
        """Doorbell addresses of the workers of other processes."""
        self._watching: dict[int, Doorbell | None] = {}
        """The doorbells of this process's watchers."""
        self._watchers: Mapping[str, Sequence[str]] = {}
        """Doorbell addresses of the watchers of other processes, by the job that they watch."""
        self._recovery = Recovery(folder, self._locks, read=access.read, write=access.write)

    async def join(
        self,
        worker: WorkerRow,
        on_notify: Callable[[], None],
        on_standing: Callable[[Standing], None] | None = None,
    ) -> None:
        id = worker.worker
        self._locks[id] = locks.WorkerLock.hold(locks.worker_file(self._folder, id))
        bell = self._doorbells[id] = Doorbell.open(on_notify)
        row = self._rows[id] = worker._replace(doorbell=bell.address if bell else None)
        await self._access.write(workers.join, row)

    def notify(self) -> None:
        for address in self._addresses:
            ring(address)

    async def leave(self, worker: int, *, now: int) -> None:
        await self._access.write(workers.leave, worker, now)
        bell = self._doorbells.pop(worker, None)
        if bell is not None:
            bell.close()
        self._rows.pop(worker, None)
        lock = self._locks.pop(worker, None)
        if lock is not None:
            lock.release()

    async def lags(self) -> Mapping[int, int]:
        return await self._access.read(workers.lags)

    async def beat(self, worker: int, *, now: int, lag: int | None = None) -> bool:
        if await self._access.write(workers.beat, worker, now, lag):
            return False
        row, lock = self._rows.get(worker), self._locks.get(worker)
        if row is None or lock is None or not lock.still_ours():
            return False
        if not await self._access.write(_restore, row._replace(beat_at=now)):
            return False
        logger.warning(
            "the row of worker %d was deleted while it works, and is stored anew: something has emptied jobrunner's"
            " tables. Close the runner before that, or leave the tables named jobrunner_* out",
            worker,
        )
        return True

    async def watch(
        self, watcher: int, jobs: Collection[str], on_change: Callable[[], None], *, now: int
    ) -> None:
        if watcher not in self._watching:
            self._watching[watcher] = Doorbell.open(on_change)
        bell = self._watching[watcher]
        if bell is not None:  # else the poll finds the changes
            await self._access.write(watchers.put, watcher, bell.address, jobs, now)

    async def watched(self, watcher: int, *, now: int) -> frozenset[str]:
        self._watchers = await self._access.read(watchers.others, watcher, now)
        return frozenset(self._watchers)

    def notify_watchers(self, jobs: Collection[str]) -> None:
        for address in {bell for job in jobs for bell in self._watchers.get(job, ())}:
            ring(address)

    async def report_waits(
        self, worker: int, report: WaitReport, *, snapshot: Snapshot | None = None
    ) -> bool:
        return await self._access.write(workers.report_waits, worker, report, snapshot)

    async def list(self) -> Sequence[WorkerRow]:
        rows = await self._access.read(workers.workers)
        self._addresses = [
            row.doorbell for row in rows if row.doorbell and row.worker not in self._locks
        ]
        return rows

    async def starts(self) -> Sequence[WorkerStart]:
        return await self._access.read(workers.starts)

    async def busy(self) -> Mapping[int, int]:
        return await self._access.read(workers.busy)

    async def recover(self, *, now: int, thorough: bool) -> Recovered:
        return await self._recovery.search(now=now, thorough=thorough)

    def check_locks(self) -> None:
        """Check that other processes still find the locks of this process's workers.

        Raises:
            StoreReplaced: Lock files were removed or replaced.
        """
        if any(not lock.still_ours() for lock in self._locks.values()):
            raise locks_lost(self._folder)

    def close(self) -> None:
        """Close the doorbells and abandon the locks of workers that have not left.

        To other processes those workers are dead, as after a kill.
        """
        for bell in (*self._doorbells.values(), *self._watching.values()):
            if bell is not None:
                bell.close()
        self._doorbells.clear()
        self._watching.clear()
        for lock in self._locks.values():
            # The file stays, so that other processes find the jobs.
            lock.abandon()
        self._locks.clear()


def locks_lost(folder: Path) -> StoreReplaced:
    """Return the error for lock files that were removed or replaced."""
    return StoreReplaced(
        f"lock files in {folder} were removed or replaced while they were in use: other processes take"
        " this one for dead; restart it, and leave that folder to jobrunner"
    )


def _restore(conn: sqlite3.Connection, row: WorkerRow) -> bool:
    """Restore the rows of a live worker's process after the tables were emptied.

    These are the worker's row, the boot id and the schema version. Return False if the worker's row exists.
    """
    if workers.beat(conn, row.worker, row.beat_at):
        # Two calls of ``beat`` missed the row at the same time, and the other one has stored it.
        return False
    workers.join(conn, row)
    boot.note(conn)
    if migrate.version(conn) and not migrate.is_version(migrate.noted_version(conn)):
        migrate.note(conn, migrate.version(conn))
    return True
