"""Implements ``DeadLetterStore`` on PostgreSQL."""

from collections.abc import Collection, Mapping, Sequence

from jobrunner.core.counts import ReplayCounts
from jobrunner.core.model import DeadReason, Enqueue, Enqueued, Filter
from jobrunner.store import rules
from jobrunner.store.groups import Groups
from jobrunner.store.job_protocol import Count, LetterArguments, Replayed, RowPage, Slice
from jobrunner.store.postgres.access import Access
from jobrunner.store.postgres.jobs import PLANNED_ROWS
from jobrunner.store.postgres.sql import dead_letters, groups, queries


class PostgresDeadLetters:
    """The ``DeadLetterStore`` of a PostgreSQL store."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def list(self, where: Filter, *, before: int | None, limit: int) -> RowPage:
        return await self._access.read(queries.dead_letters, where, before, limit)

    async def count(self, where: Filter, *, cap: int, seconds: float | None = None) -> Count:
        return await self._access.read(queries.count_dead_letters, where, cap, seconds)

    async def last_workers(self, letters: Sequence[int]) -> Mapping[int, int]:
        return await self._access.read(dead_letters.last_workers, letters)

    async def groups(self, *, now: int, limit: int) -> Groups:
        return await self._access.read(groups.groups, now, limit)

    async def fill_groups(self, *, limit: int) -> int:
        return await self._access.write(groups.fill, limit)

    async def replay(self, id: str, *, now: int, forget: Sequence[str] = ()) -> Enqueued:
        return await self._access.write(dead_letters.replay, id, now, forget)

    async def replay_edited(self, id: str, job: Enqueue) -> Enqueued:
        return await self._access.write(dead_letters.replay_edited, id, job)

    async def replay_all(
        self,
        where: Filter,
        *,
        before: int | None,
        now: int,
        limit: int,
        tasks: Collection[str] | None = None,
        run_at: int | None = None,
        spacing: int = 0,
        without: Collection[int] = (),
        down_to: int | None = None,
    ) -> Replayed:
        pace = dead_letters.Pace(now, now if run_at is None else run_at, spacing)
        meant = dead_letters.Meant(where, tasks, without, down_to)
        return await self._access.write(dead_letters.replay_all, meant, before, limit, pace)

    async def arguments(
        self,
        where: Filter,
        *,
        before: int | None,
        limit: int,
        tasks: Collection[str] | None = None,
    ) -> LetterArguments:
        meant = dead_letters.Meant(where, tasks)
        return await self._access.read(dead_letters.arguments, meant, before, limit)

    async def plan_replay_all(
        self,
        where: Filter,
        *,
        tasks: Collection[str] | None = None,
        without: Collection[int] = (),
    ) -> ReplayCounts:
        meant = dead_letters.Meant(where, tasks, without)
        plan, before = rules.ReplayPlan(), None
        while True:
            found = await self._access.read(dead_letters.keys, meant, before, PLANNED_ROWS)
            held = await self._access.read(dead_letters.taken, plan.unknown(found.rows))
            plan.add(found.rows, held)
            if found.next is None:
                return plan.counts
            before = found.next

    async def delete(self, id: str) -> bool:
        return await self._access.write(dead_letters.delete, id)

    async def delete_all(self, where: Filter, *, before: int | None, limit: int) -> Slice:
        return await self._access.write(dead_letters.delete_all, where, before, limit)

    async def bury_waiting(
        self,
        queue: str,
        task: str,
        *,
        due_before: int,
        reason: DeadReason,
        error: str,
        now: int,
        limit: int,
    ) -> Sequence[str]:
        return await self._access.write(
            dead_letters.bury_waiting,
            queue,
            task,
            due_before=due_before,
            reason=reason,
            error=error,
            now=now,
            limit=limit,
        )
