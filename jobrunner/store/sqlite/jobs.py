"""Implements ``JobStore`` on SQLite."""

from collections.abc import Mapping, Sequence

from jobrunner.core.model import AttemptRow, Filter, JobRow, QueueStats
from jobrunner.store.job_protocol import (
    CancelledSlice,
    CancelPlan,
    Count,
    RescheduledSlice,
    RowPage,
)
from jobrunner.store.sqlite.access import Access
from jobrunner.store.sqlite.readers import PLANNED_ROWS, Found
from jobrunner.store.sqlite.sql import batch_retention, chains, control, queries, queues, retention


class SqliteJobs:
    """The ``JobStore`` of a SQLite store."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def get(self, id: str) -> JobRow | None:
        return await self._access.read(queries.get, id)

    async def attempts(self, seq: int) -> Sequence[AttemptRow]:
        return await self._access.read(queries.attempts, seq)

    async def list(self, where: Filter, *, before: int | None, limit: int) -> RowPage:
        found = await self._access.readers.page(queries.jobs, where, before=before, limit=limit)
        return RowPage([JobRow(*row) for row in found.rows], found.next, found.complete)

    async def count(self, where: Filter, *, cap: int, seconds: float | None = None) -> Count:
        return await self._access.readers.count(queries.count_jobs, where, cap=cap, seconds=seconds)

    async def chain(self, job: JobRow) -> Sequence[JobRow]:
        return await self._access.read_list(queries.chain, job)

    async def counts(self, *, cap: int) -> Mapping[str, int]:
        return await self._access.read_list(queries.counts, cap)

    async def queues(self) -> Sequence[QueueStats]:
        return await self._access.read(queues.queues)

    async def waiting_tasks(self) -> Sequence[tuple[str, str, int]]:
        return await self._access.read(queues.waiting_tasks)

    async def cancel(self, id: str, *, now: int) -> JobRow | None:
        return await self._access.write(control.cancel, id, now)

    async def cancel_all(
        self, where: Filter, *, before: int | None, now: int, limit: int
    ) -> CancelledSlice:
        self._access.refuse_wait(control.cancel_slice)
        found = await self._unfinished(where, before, limit)
        if not found.rows:
            return CancelledSlice((), (), found.next)
        seqs = [seq for seq, *_ in found.rows]
        # The search holds no lock, so the transaction checks each job again.
        done = await self._access.write(control.cancel_slice, seqs, where, now)
        cancelled, left = [*done.cancelled], done.left
        while left:
            behind = await self._access.write(control.cancel_behind, left, now)
            cancelled += behind.cancelled
            left = behind.left
        return CancelledSlice(cancelled, done.requested, found.next)

    async def plan_cancel_all(
        self, where: Filter, *, cap: int | None = None, seconds: float | None = None
    ) -> CancelPlan:
        test, values = queries.job_test(where)
        is_over = self._access.readers.timer(seconds)
        cancelled, requested, before = 0, 0, None
        while True:
            found = await self._unfinished(where, before, PLANNED_ROWS)
            running = sum(state == "running" for _, _, state, _ in found.rows)
            requested += running
            cancelled += len(found.rows) - running
            chained = [
                id for _, id, state, chain in found.rows if chain is not None and state != "running"
            ]
            if chained:
                cancelled += await self._access.read_list(chains.count_rest, chained, test, values)
            if found.next is None:
                return CancelPlan(cancelled, requested)
            if is_over() or (cap is not None and cancelled + requested >= cap):
                return CancelPlan(cancelled, requested, complete=False)
            before = found.next

    async def _unfinished(self, where: Filter, before: int | None, limit: int) -> Found:
        return await self._access.readers.page(
            queries.unfinished, where, before=before, limit=limit
        )

    async def reschedule(self, id: str, *, run_at: int, now: int) -> JobRow:
        return await self._access.write(control.reschedule, id, run_at, now)

    async def reschedule_all(
        self,
        where: Filter,
        *,
        before: int | None,
        run_at: int,
        now: int,
        limit: int,
        dry_run: bool = False,
    ) -> RescheduledSlice:
        if not dry_run:
            self._access.refuse_wait(control.reschedule_slice)
        found = await self._unfinished(where, before, limit)
        seqs = [seq for seq, _, state, _ in found.rows if state in ("scheduled", "queued")]
        if not seqs:
            return RescheduledSlice(0, 0, found.next)
        # The search holds no lock, so the transaction checks each job again.
        run = self._access.read_list if dry_run else self._access.write
        change = control.plan_reschedule if dry_run else control.reschedule_slice
        rescheduled, expiring = await run(change, seqs, where, run_at, now)
        return RescheduledSlice(rescheduled, expiring, found.next)

    async def cancel_requests(self, worker: int) -> Sequence[tuple[int, int]]:
        return await self._access.read(control.cancel_requests, worker)

    async def pause(self, queue: str, *, now: int) -> None:
        await self._access.write(control.pause, queue, now)

    async def resume(self, queue: str) -> None:
        await self._access.write(control.resume, queue)

    async def prune(
        self,
        *,
        finished_before: int,
        by_task: Mapping[str, int],
        died_before: int,
        keep_finished: int,
        limit: int,
    ) -> int:
        read_list = self._access.read_list
        surplus = await read_list(retention.surplus, keep_finished)
        due = retention.Due(finished_before, by_task, surplus)
        jobs: list[int] = []
        position: retention.End | None = retention.OLDEST
        while position is not None and len(jobs) < limit:
            found, position = await read_list(retention.finished, due, position, limit - len(jobs))
            jobs += found
        letters = await read_list(retention.dead_letters, died_before, limit - len(jobs))
        deleted = 0
        if jobs or letters:
            deleted = await self._access.write(retention.delete, jobs, letters)
        position = retention.OLDEST
        while position is not None and deleted < limit:
            batches, position = await read_list(batch_retention.due, due, died_before, position)
            for batch in batches:
                if deleted < limit:
                    room = limit - deleted
                    deleted += await self._access.write(batch_retention.delete, batch, room)
        return deleted
