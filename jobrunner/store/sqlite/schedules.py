"""Implements ``ScheduleStore`` on SQLite."""

from collections.abc import Sequence

from jobrunner.core.schedule import ScheduleChange, ScheduleRow, TickRow
from jobrunner.store.sqlite.access import Access
from jobrunner.store.sqlite.sql import schedules


class SqliteSchedules:
    """The ``ScheduleStore`` of a SQLite store."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def get(self, id: str) -> ScheduleRow | None:
        return await self._access.read(schedules.get, id)

    async def list(
        self, *, task: str | None, after: str | None, limit: int
    ) -> Sequence[ScheduleRow]:
        return await self._access.read_list(schedules.rows, task, after, limit)

    async def declared(self) -> Sequence[ScheduleRow]:
        return await self._access.read_list(schedules.declared)

    async def due(self, tasks: frozenset[str], *, now: int, limit: int) -> Sequence[ScheduleRow]:
        return await self._access.read(schedules.due, tasks, now, limit)

    async def change(self, changes: Sequence[ScheduleChange]) -> bool:
        return await self._access.write(schedules.change, changes)

    async def ticks(self, id: str, *, before: int | None = None, limit: int) -> Sequence[TickRow]:
        return await self._access.read_list(schedules.ticks, id, before, limit)

    async def prune_ticks(self, *, before: int, limit: int) -> int:
        return await self._access.write(schedules.prune_ticks, before, limit)
