"""Implements ``LimitStore`` on SQLite."""

from collections.abc import Mapping, Sequence
from typing import Final

from jobrunner.core.limits import Limit, LimitName, LimitRow, Wait
from jobrunner.core.model import JobRow
from jobrunner.store.limit_protocol import LaneCounts
from jobrunner.store.sqlite.access import Access
from jobrunner.store.sqlite.sql import buckets, lanes, limit_rows, waits

LANES_PER_SLICE: Final = 500
BUCKETS_PER_SLICE: Final = 1_000


class SqliteLimits:
    """The ``LimitStore`` of a SQLite store."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def declare(
        self, limits: Mapping[LimitName, Limit], *, revision: int
    ) -> Sequence[LimitName]:
        if not await self._access.read(limit_rows.changes, limits, revision):
            return ()
        found: Sequence[LimitName] = await self._access.write(limit_rows.declare, limits, revision)
        return found

    async def set(self, name: LimitName, limit: Limit, *, now: int) -> LimitRow:
        return await self._access.write(limit_rows.set_limit, name, limit, now)

    async def reset(self, name: LimitName) -> bool:
        return await self._access.write(limit_rows.reset, name)

    async def get(self, name: LimitName) -> LimitRow | None:
        return await self._access.read(limit_rows.get, name)

    async def list(self, *, after: LimitName | None, limit: int) -> Sequence[LimitRow]:
        return await self._access.read_list(limit_rows.page, after, limit)

    async def waits(self, jobs: Sequence[JobRow], *, now: int) -> Mapping[int, Wait]:
        queued = [job for job in jobs if job.state == "queued"]
        return await self._access.read_list(waits.waits_of, queued, now) if queued else {}

    async def lanes(self, *, cap: int) -> LaneCounts:
        return await self._access.read(limit_rows.lane_counts, cap)

    async def prune(self, *, before: int) -> int:
        """See ``LimitStore.prune``; reads in slices, and writes only if there is something to delete."""
        after: buckets.Key | None = ("", "")
        deleted = 0
        while after is not None:
            found = await self._access.read_list(buckets.full, after, before, BUCKETS_PER_SLICE)
            if found.keys:
                deleted += await self._access.write(buckets.delete, found.keys, before)
            after = found.last
        return deleted

    async def repair(self, *, now: int) -> int:
        """See ``LimitStore.repair``; reads in slices, and writes only what it finds."""
        place: lanes.Place | None = lanes.Place()
        repaired = 0
        while place is not None:
            found = await self._access.read_list(lanes.faults, place, now, LANES_PER_SLICE)
            if found.unlisted or found.stale:
                repaired += await self._access.write(lanes.repair, found, now)
            place = found.place
        return repaired
