"""Implements ``DeadLetterStore`` on SQLite."""

from collections.abc import Collection, Mapping, Sequence

from jobrunner.core.clock import now_s
from jobrunner.core.counts import ReplayCounts
from jobrunner.core.model import DeadReason, Enqueue, Enqueued, Filter, JobRow
from jobrunner.store import rules
from jobrunner.store.groups import Groups
from jobrunner.store.job_protocol import Count, LetterArguments, Replayed, RowPage, Slice
from jobrunner.store.sqlite import readers
from jobrunner.store.sqlite.access import Access
from jobrunner.store.sqlite.readers import PLANNED_ROWS
from jobrunner.store.sqlite.sql import dead_letters, groups, queries


class SqliteDeadLetters:
    """The ``DeadLetterStore`` of a SQLite store."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def list(self, where: Filter, *, before: int | None, limit: int) -> RowPage:
        found = await self._access.readers.page(
            queries.dead_letters, where, before=before, limit=limit, room=queries.PAGE_ROOM
        )
        return RowPage([JobRow(*row[1:]) for row in found.rows], found.next, found.complete)

    async def count(self, where: Filter, *, cap: int, seconds: float | None = None) -> Count:
        return await self._access.readers.count(
            queries.count_dead_letters, where, cap=cap, seconds=seconds
        )

    async def last_workers(self, letters: Sequence[int]) -> Mapping[int, int]:
        return await self._access.read_list(dead_letters.last_workers, letters)

    async def groups(self, *, now: int, limit: int) -> Groups:
        search = groups.Search(now, limit, end_s=now_s() + readers.PAGE_S)
        while not await self._access.read_list(search.step):
            pass
        return search.groups()

    async def fill_groups(self, *, limit: int) -> int:
        found = await self._access.read_list(groups.without_group, limit)
        if found:
            await self._access.write(groups.fill, found)
        return len(found)

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
        found = await self._access.readers.page(
            dead_letters.arguments,
            dead_letters.Meant(where, tasks),
            before=before,
            limit=limit,
            room=queries.PAGE_ROOM,
        )
        return LetterArguments(
            [(letter, task, args, handed) for letter, task, args, handed in found.rows], found.next
        )

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
            found = await self._access.readers.page(
                dead_letters.keys, meant, before=before, limit=PLANNED_ROWS
            )
            held = await self._access.read_list(dead_letters.taken, plan.unknown(found.rows))
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
            dead_letters.bury_waiting, queue, task, due_before, reason, error, now, limit
        )
