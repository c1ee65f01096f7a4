"""Implements ``WorkerStore``: rows describe the workers, sessions with locks prove that they live."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final

from jobrunner.core.errors import StoreBusy, StoreUnavailable
from jobrunner.core.logs import log_of
from jobrunner.core.model import WorkerRow
from jobrunner.core.wait_graph import Snapshot, WaitReport
from jobrunner.store.postgres.access import Access
from jobrunner.store.postgres.bell import Bell
from jobrunner.store.postgres.line import Line
from jobrunner.store.postgres.sql import watchers, workers
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.protocol import Recovered, Standing, WorkerStart

logger = log_of("jobrunner")

LOOKS_APART_S: Final = 0.25
"""A worker is dead if its lock was free twice, so far apart: a session that was ended is taken up again sooner."""
RESTART_GRACE_S: Final = 5
"""For so long after the server has started nobody is dead: the sessions of all have ended with it."""

# The lock of a number has its upper half in ``classid`` and its lower one in ``objid``.
_FREE: Final = """
SELECT worker FROM unnest($1::bigint[]) AS wanted (worker)
WHERE clock_timestamp() > pg_postmaster_start_time() + make_interval(secs => $2) AND NOT EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND ((classid::bigint << 32) | objid::bigint) = worker
)"""


class PostgresWorkers:
    """The ``WorkerStore`` of a PostgreSQL store."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._lines: dict[int, Line] = {}
        self._rows: dict[int, WorkerRow] = {}
        """Rows of this process's workers, as stored when they joined."""
        self._bell = Bell(access.url)
        self._lost: set[int] = set()
        """The numbers of this process's workers that were found dead."""
        self._others = False
        """True if the last ``list`` returned a worker of another process."""
        self._watched: frozenset[str] = frozenset()
        """The jobs that other processes watch."""

    async def join(
        self,
        worker: WorkerRow,
        on_notify: Callable[[], None],
        on_standing: Callable[[Standing], None] | None = None,
    ) -> None:
        id = worker.worker
        line = Line(self._access.url, id)
        await line.open()
        self._lines[id] = line
        self._rows[id] = worker
        self._bell.on_work[id] = on_notify
        try:
            await self._bell.listen()
            await self._access.write(workers.join, worker)
            if line.standing == "lost":
                raise StoreUnavailable(
                    "the database has ended the worker's session while it joined"
                )
        except BaseException:
            self._forget(id)
            raise
        line.on_standing = partial(self._changed, id, on_standing)
        if line.standing == "doubtful":
            self._changed(id, on_standing, "doubtful")

    def _changed(
        self, worker: int, on_standing: Callable[[Standing], None] | None, standing: Standing
    ) -> None:
        if standing == "lost":
            self._forget(worker)
            self._lost.add(worker)
        if on_standing is not None:
            on_standing(standing)

    def _forget(self, worker: int) -> None:
        """End a worker's session, so that all processes find it dead."""
        self._bell.on_work.pop(worker, None)
        self._rows.pop(worker, None)
        line = self._lines.pop(worker, None)
        if line is not None:
            line.abandon()

    def has_joined(self, worker: int) -> bool:
        """Return whether a worker has joined here and has not left."""
        return worker in self._lines

    def may_claim(self, worker: int) -> bool:
        """Return False for a worker of this process that cannot prove that it lives."""
        line = self._lines.get(worker)
        if line is None:
            return worker not in self._lost
        return line.standing == "held"

    def notify(self) -> None:
        if self._others:
            self._bell.announce_work()

    async def leave(self, worker: int, *, now: int) -> None:
        try:
            await self._access.write(workers.leave, worker, now)
        except StoreBusy:
            await self._access.write(workers.leave, worker, now, apart=True)
        self._bell.on_work.pop(worker, None)
        self._rows.pop(worker, None)
        line = self._lines.pop(worker, None)
        if line is not None:
            await line.close()

    async def lags(self) -> Mapping[int, int]:
        return await self._access.read(workers.lags)

    async def beat(self, worker: int, *, now: int, lag: int | None = None) -> bool:
        if await self._access.write(workers.beat, worker, now, lag):
            return False
        row, line = self._rows.get(worker), self._lines.get(worker)
        if row is None or line is None or line.standing != "held":
            return False
        if not await self._access.write(workers.restore, row._replace(beat_at=now)):
            return False
        logger.warning(
            "the row of worker %d was deleted while it works, and is stored anew: something has emptied jobrunner's"
            " tables. Close the runner before that, or leave the schema `jobrunner` out",
            worker,
        )
        return True

    async def watch(
        self, watcher: int, jobs: Collection[str], on_change: Callable[[], None], *, now: int
    ) -> None:
        self._bell.on_jobs[watcher] = (frozenset(jobs), on_change)
        if jobs:
            await self._bell.listen()
        await self._access.write(watchers.put, watcher, jobs, now)

    async def watched(self, watcher: int, *, now: int) -> frozenset[str]:
        self._watched = await self._access.read(watchers.others, watcher, now)
        return self._watched

    def notify_watchers(self, jobs: Collection[str]) -> None:
        changed = self._watched.intersection(jobs)
        if changed:
            self._bell.announce_jobs(changed)

    async def report_waits(
        self, worker: int, report: WaitReport, *, snapshot: Snapshot | None = None
    ) -> bool:
        return await self._access.write(workers.report_waits, worker, report, snapshot)

    async def list(self) -> Sequence[WorkerRow]:
        rows = await self._access.read(workers.workers)
        self._others = any(row.worker not in self._lines for row in rows)
        return rows

    async def starts(self) -> Sequence[WorkerStart]:
        return await self._access.read(workers.starts)

    async def busy(self) -> Mapping[int, int]:
        return await self._access.read(workers.busy)

    async def recover(self, *, now: int, thorough: bool) -> Recovered:
        """See ``WorkerStore.recover``; takes a quarter of a second longer if a worker seems dead."""
        free = await self._access.read(self._look, thorough=thorough)
        if not any(free):
            return Recovered([], 0, [])
        await asyncio.sleep(LOOKS_APART_S)
        again = await self._access.read(self._look, thorough=thorough)
        found: dict[int, workers.Taken] = {}
        for before, after, take in zip(
            free, again, (workers.take_jobs, workers.take_orphans), strict=True
        ):
            for worker in sorted(before & after):
                try:
                    taken = await self._access.write(take, worker, now)
                except StoreBusy:
                    taken = await self._access.write(take, worker, now, apart=True)
                if taken is not None:
                    found[worker] = taken
        return Recovered(
            list(found),
            sum(taken.requeued for taken in found.values()),
            [id for taken in found.values() for id in taken.buried],
        )

    async def _look(
        self, tx: Transaction, *, thorough: bool
    ) -> tuple[frozenset[int], frozenset[int]]:
        """Return the workers whose lock is free: those with a row, and those that only hold jobs."""
        stored = [row.worker for row in await workers.workers(tx)]
        orphans = list(await workers.orphaned(tx)) if thorough else []
        wanted = [worker for worker in (*stored, *orphans) if worker not in self._lines]
        rows = await tx.fetch(_FREE, wanted, float(RESTART_GRACE_S)) if wanted else ()
        free = frozenset(worker for (worker,) in rows)
        return free.intersection(stored), free.intersection(orphans)

    def close(self) -> None:
        for line in self._lines.values():
            line.abandon()
        self._lines.clear()

    async def aclose(self) -> None:
        """End all sessions; workers that have not left are dead to every process."""
        lines, self._lines = self._lines, {}
        for line in lines.values():
            await line.close()
        await self._bell.close()
