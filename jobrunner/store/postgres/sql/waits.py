"""Finds the limits that hold queued jobs back, inside a read transaction."""

from collections.abc import Mapping, Sequence

from jobrunner.core.limits import Limit, LimitScope, Wait, task_of_lane
from jobrunner.core.model import JobRow
from jobrunner.store.postgres.sql.laned import OLDEST, OWN, RUNNING
from jobrunner.store.postgres.sql.limits import Limits, limit_of
from jobrunner.store.postgres.sql.transaction import Transaction


async def waits_of(tx: Transaction, jobs: Sequence[JobRow], now: int) -> Mapping[int, Wait]:
    """Return what holds queued jobs back; see ``LimitStore.waits``."""
    search = _Search(tx, await Limits.read(tx, now))
    found: dict[int, Wait] = {}
    for job in jobs:
        wait = await search.wait_of(job)
        if wait is not None:
            found[job.seq] = wait
    return found


class _Search:
    """The limits of several jobs, each counted once."""

    def __init__(self, tx: Transaction, limits: Limits) -> None:
        self._tx = tx
        self._limits = limits
        self._lanes: dict[str, tuple[Limit, int, tuple[int, str] | None]] = {}
        """Of each lane its limit, the number of its running jobs, and the oldest of its ordered jobs."""

    async def wait_of(self, job: JobRow) -> Wait | None:
        oldest = None
        counted: list[tuple[LimitScope, str, Limit]] = [
            ("queue", job.queue, self._limits.shared("queue", job.queue)),
            ("task", job.task, self._limits.shared("task", job.task)),
        ]
        if job.lane is not None:
            limit, _, oldest = await self._lane(job.lane)
            counted.append(("lane", job.lane, limit))
        if oldest is not None and oldest[0] < job.seq:
            return Wait("order", oldest[1])
        for scope, name, limit in counted:
            if limit.concurrency is not None:
                running = self._running(scope, name)
                if running >= limit.concurrency:
                    return Wait("limit", _text(scope, name), running, limit.concurrency)
        for scope, name, limit in counted:
            if limit.rate is not None:
                await self._limits.buckets.load(scope, {name: limit.rate})
                bucket = self._limits.buckets.of(scope, name)
                if bucket.tokens <= 0:
                    return Wait("rate", _text(scope, name), next_at=bucket.next_at)
        return None

    def _running(self, scope: LimitScope, name: str) -> int:
        return self._lanes[name][1] if scope == "lane" else self._limits.running(scope, name)

    async def _lane(self, lane: str) -> tuple[Limit, int, tuple[int, str] | None]:
        found = self._lanes.get(lane)
        if found is None:
            limit = self._limits.lanes.get(task_of_lane(lane), Limit())
            own = await self._tx.fetchrow(OWN, lane)
            if own is not None:
                limit = limit.overridden(limit_of(*own))
            running = await self._tx.fetchval(RUNNING.format("$1"), lane)
            row = await self._tx.fetchrow(OLDEST.format("$1"), lane)
            oldest = None if row is None else (row[0], row[3])
            found = self._lanes[lane] = limit, running, oldest
        return found


def _text(scope: LimitScope, name: str) -> str:
    return name if scope == "lane" else f"{scope} {name}"
