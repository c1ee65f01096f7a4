"""Finds dead workers by their locks and recovers their jobs.

The kernel frees the lock of a worker's process, however it dies.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jobrunner.core.clock import SECOND_US
from jobrunner.store.protocol import Recovered
from jobrunner.store.sqlite.host import locks
from jobrunner.store.sqlite.sql import workers

MISSING_FILE_IS_DEAD_US: Final = 5 * SECOND_US
ORPHAN_FILE_AGE_US: Final = 60 * SECOND_US

Do = Callable[..., Awaitable[Any]]
"""Runs ``function(connection, *args)`` in a transaction."""


class Recovery:
    """Searches for dead workers of one open store.

    Args:
        folder: the folder of all workers' locks.
        own: the locks that this process holds; they are skipped, since trying one would drop it.
        read: runs a function in a read transaction.
        write: runs a function in a write transaction.
    """

    def __init__(
        self, folder: Path, own: Mapping[int, locks.WorkerLock], *, read: Do, write: Do
    ) -> None:
        self._folder = folder
        self._own = own
        self._read = read
        self._write = write
        self._missing_since: dict[int, int] = {}

    async def search(self, *, now: int, thorough: bool) -> Recovered:
        """Search once; see ``WorkerStore.recover``.

        The cheap search lists the folder once and tries each lock in it. The thorough search also finds rows whose lock
        file is missing and jobs whose worker has no row.
        """
        lock_files = locks.worker_files(self._folder)
        found: dict[int, workers.Taken] = {}
        for worker, path in lock_files.items():
            if worker in self._own:
                continue
            taken = locks.take_if_dead(path)
            if isinstance(taken, str):
                continue
            try:
                jobs = await self._write(workers.take_jobs, worker, now)
                if jobs is not None:
                    found[worker] = jobs
                elif now - taken.changed_at < ORPHAN_FILE_AGE_US:
                    # A worker that died between lock and row, or one that is about to lock: too young to remove.
                    continue
                taken.remove()
            finally:
                taken.close()
        if thorough:
            stored, orphaned = await self._read(workers.stored_and_orphaned)
            for worker in self._missing_for_long(stored.difference(lock_files, self._own), now):
                jobs = await self._write(workers.take_jobs, worker, now)
                if jobs is not None:
                    found[worker] = jobs
            # A live worker without a row is skipped: the table was emptied, and the next beat restores the row.
            dead = [
                worker
                for worker in orphaned
                if worker not in self._own
                and not locks.lives(locks.worker_file(self._folder, worker))
            ]
            if dead:
                found.update(await self._write(workers.take_orphans, dead, now))
        return Recovered(
            list(found),
            sum(jobs.requeued for jobs in found.values()),
            [id for jobs in found.values() for id in jobs.buried],
        )

    def _missing_for_long(self, gone: Collection[int], now: int) -> Sequence[int]:
        """Return those of ``gone`` whose lock file has been missing for ``MISSING_FILE_IS_DEAD_US``.

        They cannot prove that they live.
        """
        self._missing_since = {worker: self._missing_since.get(worker, now) for worker in gone}
        return [
            worker
            for worker, since in self._missing_since.items()
            if now - since >= MISSING_FILE_IS_DEAD_US
        ]
