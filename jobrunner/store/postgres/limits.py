"""Implements ``LimitStore`` on PostgreSQL."""

from collections.abc import Mapping, Sequence
from typing import Final

from jobrunner.core.limits import Limit, LimitName, LimitRow, Wait
from jobrunner.core.model import JobRow
from jobrunner.store.limit_protocol import LaneCounts
from jobrunner.store.postgres.access import Access
from jobrunner.store.postgres.sql import lanes, limit_rows, waits
from jobrunner.store.postgres.sql.lanes import changed
from jobrunner.store.postgres.sql.transaction import Transaction

LANES_PER_SLICE: Final = 500
BUCKETS_PER_SLICE: Final = 1_000


class PostgresLimits:
    """The ``LimitStore`` of a PostgreSQL store."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def declare(
        self, limits: Mapping[LimitName, Limit], *, revision: int
    ) -> Sequence[LimitName]:
        if not await self._access.read(limit_rows.changes, limits, revision):
            return ()
        return await self._access.write(limit_rows.declare, limits, revision)

    async def set(self, name: LimitName, limit: Limit, *, now: int) -> LimitRow:
        return await self._access.write(limit_rows.set_limit, name, limit, now)

    async def reset(self, name: LimitName) -> bool:
        return await self._access.write(limit_rows.reset, name)

    async def get(self, name: LimitName) -> LimitRow | None:
        return await self._access.read(limit_rows.get, name)

    async def list(self, *, after: LimitName | None, limit: int) -> Sequence[LimitRow]:
        return await self._access.read(limit_rows.page, after, limit)

    async def waits(self, jobs: Sequence[JobRow], *, now: int) -> Mapping[int, Wait]:
        queued = [job for job in jobs if job.state == "queued"]
        return await self._access.read(waits.waits_of, queued, now) if queued else {}

    async def lanes(self, *, cap: int) -> LaneCounts:
        return await self._access.read(limit_rows.lane_counts, cap)

    async def prune(self, *, before: int) -> int:
        deleted = 0
        while number := await self._access.write(_prune, before):
            deleted += number
        return deleted

    async def repair(self, *, now: int) -> int:
        """See ``LimitStore.repair``; reads in slices, and writes only what it finds."""
        after: int | None = None
        repaired = 0
        while True:
            found = await self._access.read(lanes.faults, after, now, LANES_PER_SLICE)
            if found.unlisted or found.stale:
                repaired += await self._access.write(lanes.repair, found, now)
            if found.after is None and len(found.unlisted) < LANES_PER_SLICE:
                break
            after = found.after
        while await self._access.write(lanes.prune_locks, LANES_PER_SLICE) == LANES_PER_SLICE:
            pass
        return repaired


async def _prune(tx: Transaction, before: int) -> int:
    # A bucket that a claim takes from has a later instant, also if it does so while this waits for the row.
    status = await tx.execute(
        "DELETE FROM jobrunner.buckets WHERE full_at < $1 AND (scope, name) IN ("
        " SELECT scope, name FROM jobrunner.buckets WHERE full_at < $1 ORDER BY scope, name LIMIT $2"
        " FOR UPDATE SKIP LOCKED)",
        *(before, BUCKETS_PER_SLICE),
    )
    return changed(status)
