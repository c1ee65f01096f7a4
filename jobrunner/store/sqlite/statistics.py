"""Implements ``StatisticsStore`` on SQLite."""

from collections.abc import Sequence
from pathlib import Path

from jobrunner.store.measurements import Measurements
from jobrunner.store.sqlite.access import Access
from jobrunner.store.sqlite.sql import measurements, queues, statistics
from jobrunner.store.statistics import By, Per, StatisticsRow


class SqliteStatistics:
    """The ``StatisticsStore`` of a SQLite store."""

    def __init__(self, access: Access, path: Path) -> None:
        self._access = access
        self._path = path
        self._counting = queues.InTurns()

    async def read(
        self,
        *,
        per: Per,
        since: int,
        until: int,
        by: By,
        queue: str | None = None,
        task: str | None = None,
    ) -> Sequence[StatisticsRow]:
        sums = statistics.Sums(statistics.Wanted(per, since, until, by, queue, task))
        start: int | None = since
        while start is not None:
            start = await self._access.read_list(statistics.read, sums, start)
        return sums.rows()

    def measure(self) -> Measurements:
        return self._access.read_blocking(measurements.read, self._path, self._counting)

    async def roll_up(self, *, before: int) -> bool:
        return await self._access.write(statistics.roll_up, before)

    async def prune(self, *, minutes_before: int, hours_before: int, limit: int) -> int:
        return await self._access.write(statistics.prune, minutes_before, hours_before, limit)
