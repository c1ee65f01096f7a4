"""Reads the batch of a running job for ``job.batch``."""

import asyncio
from typing import Any, Final, NamedTuple

from jobrunner.core.batch import Batch
from jobrunner.core.errors import BatchNotFound, UnknownTask
from jobrunner.core.job import job_of
from jobrunner.core.model import Claimed, Enqueue, Filter, State
from jobrunner.core.workflows import BatchRow
from jobrunner.queue.batches import RESULTS_PER_READ, Batches, result_in
from jobrunner.queue.enqueuer import Enqueuer
from jobrunner.queue.filters import STATES, check_choice
from jobrunner.tasks.call import Call
from jobrunner.tasks.job_batch import Part
from jobrunner.tasks.task import Task

MEMBERS_PER_READ: Final = 200
"""The most members that one read returns."""


class _Cursor(NamedTuple):
    """The place in the members of a batch at which a read begins."""

    batch: str
    dead: bool
    """True in the dead letters, which come last."""
    before: int | None = None


class JobBatches:
    """The ``BatchReader`` of an open runner."""

    def __init__(self, enqueuer: Enqueuer) -> None:
        self._enqueuer = enqueuer
        self._parts = enqueuer.parts

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._parts.loop

    async def batch_of(self, job: Claimed) -> Batch[Any]:
        return await Batches(self._enqueuer).get((await self._row_of(job)).id)

    async def _row_of(self, job: Claimed) -> BatchRow:
        row = await self._parts.store.workflows.of_job(job.id)
        if row is None:
            raise BatchNotFound(
                f"{job.task} {job.id} is neither a member nor a callback of a batch: `await queue.enqueue_batch([...])`"
                " makes one"
            )
        return row

    async def results(self, job: Claimed, task: object, after: tuple[str, int] | None) -> Part:
        if not isinstance(task, Task):
            raise UnknownTask(f"{task!r} is not a task: write job.batch.results(task)")
        id, at = ((await self._row_of(job)).id, 0) if after is None else after
        page = await self._parts.store.workflows.member_results(
            id, tasks={task.name, *task.spec.aliases}, after=at, limit=RESULTS_PER_READ
        )
        values = [result_in(one, task.spec) for one in page.rows]
        return Part(values, None if page.next is None else (id, page.next))

    async def members(self, job: Claimed, state: State | None, after: _Cursor | None) -> Part:
        check_choice("state", state, STATES)
        if after is None:
            after = _Cursor((await self._row_of(job)).id, state == "dead")
        store = self._parts.store
        lister = store.dead_letters.list if after.dead else store.jobs.list
        where = Filter(batch=after.batch, state=None if after.dead else state)
        page = await lister(where, before=after.before, limit=MEMBERS_PER_READ)
        jobs = [job_of(row, (), self._enqueuer.reader) for row in page.rows]
        if page.next is not None:
            return Part(jobs, after._replace(before=page.next))
        has_more = not after.dead and state is None
        return Part(jobs, _Cursor(after.batch, dead=True) if has_more else None)

    def prepare(self, call: Call[Any]) -> Enqueue:
        return self._enqueuer.prepare(call)
