"""Stores batches, lists them, and waits for their ends."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeVar

from jobrunner.core.batch import Batch, CallOf, batch_of
from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.core.counts import ReplayCounts
from jobrunner.core.errors import (
    BatchEnded,
    BatchNotFound,
    InvalidOptions,
    InvalidStep,
    JobCancelled,
    JobDead,
    NotCommitted,
    ResultNotStored,
    ResultTimeout,
    shown,
)
from jobrunner.core.exports import exported
from jobrunner.core.ids import new_id
from jobrunner.core.job import Job, job_of
from jobrunner.core.model import RESULT_PENDING, BatchEnqueue, Enqueue, NewBatch
from jobrunner.core.units import duration_us
from jobrunner.core.workflows import BatchGraph, BatchRow, BatchState, ResultRow
from jobrunner.queue.enqueuer import Enqueuer, one_session
from jobrunner.queue.filters import (
    DEFAULT_ROWS,
    check_choice,
    check_text,
    checked_batch_id,
    checked_limit,
    read_cursor,
    write_cursor,
)
from jobrunner.queue.page import Page
from jobrunner.store.reentrancy import refuse_inside
from jobrunner.tasks.call import Call
from jobrunner.tasks.graph import NO_CALLBACKS, Callbacks, to_batch
from jobrunner.tasks.spec import TaskSpec
from jobrunner.worker.unawaited import caller

R = TypeVar("R")

BATCH_STATES: Final[tuple[BatchState, ...]] = ("running", "succeeded", "failed", "cancelled")
RESULTS_PER_READ: Final = 500
"""The most results that one read returns."""
MAX_NAME_CHARS: Final = 200


@exported
class Batches:
    """Lists, retries and cancels the batches of an open runner.

    ::

        batch = await jobs.batches.get(id)
        print(batch.state, batch.succeeded, batch.total)
        await jobs.batches.retry(id)
    """

    def __init__(self, enqueuer: Enqueuer) -> None:
        self._enqueuer = enqueuer
        self._parts = enqueuer.parts
        self._store = enqueuer.parts.store.workflows

    async def get(self, id: str) -> Batch[Any]:
        """Return a batch with its callbacks.

        Raises:
            BatchNotFound: No batch has this id; it may be past its retention.
        """
        row = await self.row(id)
        return await self._with_callbacks(row)

    async def _with_callbacks(self, row: BatchRow) -> Batch[Any]:
        graph = await self.graph(row.id, limit=0)
        jobs = {job.id: job_of(job, (), self._enqueuer.reader) for job in graph.callbacks}
        callbacks = {edge.need: jobs[edge.job] for edge in graph.edges if edge.job in jobs}
        return batch_of(
            row,
            self,
            then=callbacks.get("success"),
            otherwise=callbacks.get("failure"),
            at_end=callbacks.get("end"),
        )

    async def row(self, id: str) -> BatchRow:
        """Return a batch as stored; raises as ``get``."""
        row = await self._store.get(checked_batch_id(id))
        if row is None:
            raise self._missing(id)
        return row

    async def graph(self, id: str, *, limit: int) -> BatchGraph:
        """Return the oldest ``limit`` members of a batch, its callbacks and the edges; raises as ``get``."""
        graph = await self._store.graph(checked_batch_id(id), limit=limit)
        if graph is None:
            raise self._missing(id)
        return graph

    async def retry(self, id: str) -> ReplayCounts:
        """Replay the dead letters of a batch; see ``Batch.retry``.

        Returns:
            The numbers of dead letters that were put back, and of those that stay.

        Raises:
            BatchNotFound: No batch has this id; it may be past its retention.
        """
        await self.row(id)
        return await self._parts.dead_letters.replay_all(batch=id)

    async def cancel(self, id: str) -> bool:
        """Cancel a batch; see ``Batch.cancel``.

        Returns:
            False if the batch had ended or was cancelled before.

        Raises:
            BatchNotFound: No batch has this id; it may be past its retention.
        """
        before = await self._store.cancel(checked_batch_id(id), now=now_us())
        if before is None:
            raise self._missing(id)
        if before.ended_at is not None or before.cancelled_at is not None:
            return False
        # The next round of a worker begins to cancel the members.
        self._parts.worker.wake()
        return True

    async def add(self, id: str, calls: Iterable[CallOf[R]]) -> list[Job[R]]:
        """Add calls to an unfinished batch; see ``Batch.add``.

        Raises:
            BatchEnded: The batch has ended or was cancelled; nothing was stored.
            BatchNotFound: No batch has this id; it may be past its retention.
        """
        batch = checked_batch_id(id)
        if isinstance(calls, Call):
            raise InvalidOptions("add() takes a list of calls: write add([task.call(...), ...])")
        # The type checker has seen that they are calls, and `check` sees it again.
        given: Iterable[Any] = calls
        many = [self._enqueuer.check(call, "enqueue_batch") for call in given]
        enqueuer = _joined(self._enqueuer, many)
        now = self._parts.now_us()
        rows = to_batch(batch, many, NO_CALLBACKS, now=now, to_enqueue=_rows_at(now))
        try:
            stored = await enqueuer.store_batch(rows, now)
        except BatchEnded:
            await self.row(batch)  # raises if there is none
            raise
        return [
            enqueuer.job_of(one, call, batch)
            for one, call in zip(stored.members, many, strict=True)
        ]

    # -- waiting -----------------------------------------------------------------

    async def ended(self, id: str, timeout: float | timedelta | None) -> BatchRow:
        """Wait for a batch's end; see ``Batch.wait``."""
        refuse_inside(self._parts.store, "wait()")
        wait_s = None if timeout is None else duration_us(timeout, "timeout") / SECOND_US
        attempt, deadlocks = caller.get(), self._parts.worker.deadlocks
        if attempt is None or deadlocks is None or not deadlocks.concern(attempt):
            return await self._awaited(id, wait_s)
        timed = timeout is not None
        with deadlocks.waiting(attempt, id, timed=timed, is_batch=True) as wait:
            return await self._awaited(id, wait_s, partial(deadlocks.check_batch, attempt, wait))

    async def _awaited(
        self,
        id: str,
        wait_s: float | None,
        check: Callable[[BatchRow], Awaitable[None]] | None = None,
    ) -> BatchRow:
        """Return a batch once it has ended.

        Args:
            id: the batch.
            wait_s: the longest wait; None waits for ever.
            check: raises if the batch can never end; called after each read.
        """
        store, events = self._parts.store, self._parts.events
        loop = asyncio.get_running_loop()
        deadline_s = None if wait_s is None else loop.time() + wait_s
        while True:
            # Registered before the read, so that no end between the two is missed.
            waiter = events.ends.wait_for(id)
            try:
                row = await self.row(id)
                if row.ended_at is not None:
                    return row
                store.refuse_wait("wait()")
                if check is not None:
                    await check(row)
                left_s = self._parts.reads.next_poll_s(id)
                if deadline_s is not None:
                    left_s = min(left_s, deadline_s - loop.time())
                    if left_s <= 0:
                        raise ResultTimeout(
                            f"batch {id} is {row.state} after {wait_s:g} s, {row.succeeded} of {row.total} members have"
                            " succeeded; it goes on"
                        )
                await asyncio.wait([waiter], timeout=left_s)
            finally:
                waiter.cancel()

    async def results_of(self, id: str, timeout: float | timedelta | None) -> list[Any]:
        """Wait for a batch's end, and return the results of its members; see ``Batch.results``."""
        row = await self.ended(id, timeout)
        if row.state != "succeeded":
            numbers = f"of {row.total} members, {row.dead} are dead letters and {row.cancelled} were cancelled"
            error = JobDead if row.dead else JobCancelled
            raise error(f"batch {id} has {_ENDED[row.state]}: {numbers}")
        results: list[Any] = []
        after: int | None = 0
        while after is not None:
            page = await self._store.member_results(
                id, tasks=None, after=after, limit=RESULTS_PER_READ
            )
            results += [await self._result_in(one) for one in page.rows]
            after = page.next
        return results

    async def _result_in(self, row: ResultRow) -> Any:
        if row.result_omitted == RESULT_PENDING:
            job = await self._parts.store.jobs.get(row.id)
            if job is not None:
                reader = self._enqueuer.reader
                return await reader.result_of(job_of(job, (), reader), None)
        return result_in(row, self._parts.tasks.get(row.task))

    async def list(
        self,
        *,
        limit: int = DEFAULT_ROWS,
        cursor: str | None = None,
        state: BatchState | None = None,
        name: str | None = None,
    ) -> Page[Batch[Any]]:
        """Return a page of batches, newest first.

        Args:
            limit: The most batches on the page, 1 to 1,000. Default: 50.
            cursor: The ``next_cursor`` of the previous page; None for the first page.
            state: Only batches in this state. Default: all.
            name: Only batches with this name. Default: all.

        Raises:
            InvalidCursor: The cursor does not come from a page.
            InvalidOptions: The limit is out of range, or a filter has an invalid value.
        """
        check_choice("state", state, BATCH_STATES)
        page = await self._store.list(
            state=state,
            name=checked_name(name),
            before=read_cursor(cursor),
            limit=checked_limit(limit),
        )
        return Page(
            [batch_of(row, self) for row in page.rows], write_cursor(page.next), page.complete
        )

    def _missing(self, id: str) -> BatchNotFound | NotCommitted:
        if self._enqueuer.sink.source is None:
            return no_batch(id)
        return NotCommitted(
            f"batch {id} was stored in a transaction that has not been committed (or was rolled back), and runs after"
            " the commit: write `await session.commit()` before you wait for the batch"
        )


_ENDED: Final = {"failed": "failed", "cancelled": "been cancelled"}


def no_batch(id: str) -> BatchNotFound:
    """Return the error for an id that no batch has."""
    return BatchNotFound(f"no batch has the id {id}; it may be past its retention")


async def enqueue_batch(
    enqueuer: Enqueuer, calls: Iterable[Call[R]], callbacks: Callbacks, name: str | None
) -> Batch[R]:
    """Store calls as a batch, in one transaction; see ``JobQueue.enqueue_batch``."""
    if isinstance(calls, Call):
        raise InvalidOptions(
            "enqueue_batch takes a list of calls: write enqueue_batch([task.call(...), ...])"
        )
    checked_name(name)
    many = [enqueuer.check(call, "enqueue_batch") for call in calls]
    last = [enqueuer.check(call, "enqueue_batch") for _, call in callbacks.named()]
    enqueuer = _joined(enqueuer, [*many, *last])
    now = enqueuer.parts.now_us()
    new = NewBatch(new_id(now), name, now)
    rows = to_batch(new, many, callbacks, now=now, to_enqueue=_rows_at(now))
    stored = await enqueuer.store_batch(rows, now)
    jobs = [
        enqueuer.job_of(one, call, new.id) for one, call in zip(stored.members, many, strict=True)
    ]
    callback_jobs = {
        named: enqueuer.job_of(one, call)
        for one, (named, call) in zip(stored.callbacks, callbacks.named(), strict=True)
    }
    row = _fresh_row(new, sum(job.created is True for job in jobs))
    return batch_of(row, Batches(enqueuer), jobs=tuple(jobs), **callback_jobs)


def children_of(
    enqueuer: Enqueuer, calls: Sequence[Call[Any]], name: str, parent: str
) -> BatchEnqueue:
    """Return the batch of ``job.run()``, which is stored when the parent is parked.

    Args:
        enqueuer: Checks the calls.
        calls: The calls of the children.
        name: The name of the step.
        parent: The id of the job that waits for them.

    Raises:
        InvalidStep: A call has a key or a session.
        InvalidBatch: The calls wait for each other in a circle, or are too many.
    """
    for call in calls:
        options = enqueuer.check(call, "enqueue_batch").options
        if options.key is not None or options.session is not None:
            word = "session" if options.key is None else "key"
            raise InvalidStep(
                f"job.run({name!r}, ...): {call!r} has a {word}=, and its parent waits for a job of its own: write"
                f" .options() without {word}="
            )
    now = enqueuer.parts.now_us()
    new = NewBatch(new_id(now), name, now, parent)
    rows = to_batch(new, calls, NO_CALLBACKS, now=now, to_enqueue=_rows_at(now))
    tracing = enqueuer.parts.events.tracing
    if tracing is None or not tracing.is_active():
        return rows
    return rows._replace(members=[tracing.prepare(row) for row in rows.members])


def _fresh_row(new: NewBatch, members: int) -> BatchRow:
    """Return a batch as its transaction stores it; without members it has ended there."""
    return BatchRow(
        seq=0,
        id=new.id,
        name=new.name,
        state="running" if members else "succeeded",
        created_at=new.created_at,
        ended_at=None if members else new.created_at,
        cancelled_at=None,
        parent=None,
        total=members,
        succeeded=0,
        dead=0,
        cancelled=0,
        running=0,
        waiting=members,
    )


def _rows_at(now: int) -> Callable[[Call[Any], str], Enqueue]:
    return lambda call, id: call.to_enqueue(id=id, now=now)


def _joined(enqueuer: Enqueuer, calls: Sequence[Call[Any]]) -> Enqueuer:
    """Return the enqueuer of the session that the calls name, if they name one."""
    source = one_session("enqueue_batch", calls)
    own = source is None or source is enqueuer.sink.source
    return enqueuer if own else enqueuer.joined(source)


def checked_name(name: str | None) -> str | None:
    """Check the name of a batch and return it unchanged.

    Raises:
        InvalidOptions: It is not a text of 1 to 200 characters.
    """
    check_text("name", name)
    if name is not None and not 0 < len(name) <= MAX_NAME_CHARS:
        raise InvalidOptions(f"name={shown(name)} must have 1 to {MAX_NAME_CHARS} characters")
    return name


def result_in(row: ResultRow, spec: TaskSpec | None) -> Any:
    """Return the result of a member that has succeeded.

    Raises:
        ResultNotStored: It could not be stored, or no longer fits the type that the task returns.
    """
    if row.result_omitted is not None:
        raise ResultNotStored(f"{row.task} {row.id}: {row.result_omitted}")
    if spec is not None:
        return spec.result.decode(row.result)
    return None if row.result is None else json.loads(row.result)
