"""Implements ``DeadLetterStore`` on SQLite."""

from collections.abc import Collection, Sequence

from jobrunner.core.clock import now_s
from jobrunner.core.counts import ReplayCounts
from jobrunner.core.model import DeadReason, Enqueue, Enqueued, Filter, JobRow
from jobrunner.store.groups import Groups
from jobrunner.store.job_protocol import Replayed, RowPage, Slice
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

    async def count(self, where: Filter, *, cap: int) -> int:
        return await self._access.readers.count(queries.count_dead_letters, where, cap=cap)

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

    async def replay(self, id: str, *, now: int) -> Enqueued:
        return await self._access.write(dead_letters.replay, id, now)

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
    ) -> Replayed:
        pace = dead_letters.Pace(now, now if run_at is None else run_at, spacing)
        return await self._access.write(dead_letters.replay_all, where, tasks, before, limit, pace)

    async def plan_replay_all(
        self, where: Filter, *, tasks: Collection[str] | None = None
    ) -> ReplayCounts:
        replayed, conflicts, before = 0, 0, None
        held: set[tuple[str, str]] = set()
        while True:
            found = await self._access.readers.page(
                dead_letters.keys, where, tasks, before=before, limit=PLANNED_ROWS
            )
            wanted = {(task, key) for _, task, key in found.rows if key is not None} - held
            held.update(await self._access.read_list(dead_letters.taken, sorted(wanted)))
            for _, task, key in found.rows:
                if key is None:
                    replayed += 1
                elif (task, key) in held:
                    conflicts += 1
                else:
                    # The dead letters that died before this one find its key taken.
                    held.add((task, key))
                    replayed += 1
            if found.next is None:
                return ReplayCounts(replayed, conflicts)
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
