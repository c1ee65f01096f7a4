"""Jobs read again: their state, their arguments, and what they return once they have ended."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Final

from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.core.errors import (
    JobCancelled,
    JobDead,
    JobExpired,
    JobNotFound,
    NotCommitted,
    ResultNotStored,
    ResultTimeout,
)
from jobrunner.core.job import Job, job_of
from jobrunner.core.model import FINISHED, RESULT_PENDING, JobRow
from jobrunner.core.units import duration_us
from jobrunner.queue.local_worker import LocalWorker
from jobrunner.store.protocol import Store
from jobrunner.store.reentrancy import refuse_inside
from jobrunner.tasks.spec import TaskSpec
from jobrunner.worker.events import Events
from jobrunner.worker.unawaited import caller

RETURN_US: Final = 5 * SECOND_US
"""How long a task may take to return after its own transaction has settled the job, before its result is given up."""
POLL_S: Final = 0.5
"""How often a wait for a result looks at the store: the job may end in another process."""


class JobReader:
    """Answers the holders of jobs: reads a job again, waits for its end, decodes its arguments."""

    def __init__(
        self,
        store: Store,
        events: Events,
        worker: LocalWorker,
        tasks: Mapping[str, TaskSpec],
        *,
        in_session: bool = False,
    ) -> None:
        """``in_session``: a job that is missing may be one whose transaction has not been committed."""
        self._store = store
        self._events = events
        self._worker = worker
        self._tasks = tasks
        self._in_session = in_session

    async def result_of(self, job: Job[Any], timeout: float | timedelta | None) -> Any:
        """Wait for a job's result; see ``Job.result``."""
        refuse_inside(self._store, "result()")
        attempt = caller.get()
        deadlocks = self._worker.deadlocks
        if attempt is None or deadlocks is None or not deadlocks.concern(attempt):
            row = await self._end_of(job, timeout)
        else:
            timed = timeout is not None
            with deadlocks.waiting(attempt, job.id, timed=timed) as wait:
                row = await self._end_of(job, timeout, partial(deadlocks.check, attempt, wait))
        return result_in(row, self._tasks)

    def _end_of(
        self,
        job: Job[Any],
        timeout: float | timedelta | None,
        check: Callable[[JobRow], Awaitable[None]] | None = None,
    ) -> Awaitable[JobRow]:
        refuse_wait = partial(self._store.refuse_wait, "result()")
        return end_of(job, self._row_of, self._events, timeout, refuse_wait, check)

    async def _row_of(self, job: Job[Any]) -> JobRow:
        row = await self._store.jobs.get(job.id)
        if row is not None:
            return row
        if not self._in_session:
            raise no_job(job.id)
        raise NotCommitted(
            f"{job.task} {job.id} was stored in a transaction that has not been committed (or was rolled back), and"
            " runs after the commit: write `await session.commit()` before you wait for the job"
        )

    async def refreshed(self, job: Job[Any]) -> Job[Any]:
        """Read a job again; see ``Job.refresh``."""
        row = await self._row_of(job)
        return job_of(row, await self._store.jobs.attempts(row.seq), self, args=row.args)

    def arguments_of(self, job: Job[Any], stored: str) -> dict[str, Any]:
        """Return a job's arguments from their stored form; see ``Job.args``."""
        spec = self._tasks.get(job.task)
        if spec is not None:
            return spec.args.decode(stored)
        plain: dict[str, Any] = json.loads(stored)
        return plain


def no_job(id: str) -> JobNotFound:
    """Return the error for an id that no job has."""
    return JobNotFound(f"no job has the id {id}; it may be past its retention")


async def end_of(
    job: Job[Any],
    read: Callable[[Job[Any]], Awaitable[JobRow]],
    events: Events,
    timeout: float | timedelta | None,
    refuse_wait: Callable[[], None],
    check: Callable[[JobRow], Awaitable[None]] | None = None,
) -> JobRow:
    """Wait until a job has come to its end, here or in another process, and return its row.

    Args:
        read: reads its row anew.
        refuse_wait: raises where a wait would be for the caller itself: no worker could write what becomes of the job.
        check: raises if the job cannot come to its end; asked at each look.

    Raises:
        ResultTimeout: it has not, in that time.
    """
    loop = asyncio.get_running_loop()
    wait_s = None if timeout is None else duration_us(timeout, "timeout") / SECOND_US
    deadline = None if wait_s is None else loop.time() + wait_s
    while True:
        # Before the read, so that an end between the two is not missed.
        waiter = events.wait_for(job.id)
        try:
            row = await read(job)
            if row.state in FINISHED and not _is_returning(row):
                return row
            refuse_wait()
            if check is not None:
                await check(row)
            left_s = POLL_S if deadline is None else min(POLL_S, deadline - loop.time())
            if left_s <= 0:
                raise ResultTimeout(
                    f"{job.task} {job.id} is {row.state} after {wait_s:g} s; it goes on"
                )
            await asyncio.wait([waiter], timeout=left_s)
        finally:
            waiter.cancel()


def result_in(row: JobRow, tasks: Mapping[str, TaskSpec]) -> Any:
    """Return what a job that has come to its end returned.

    Raises:
        JobDead, JobCancelled, JobExpired: it has not succeeded.
        ResultNotStored: it has, but what it returned could not be kept.
    """
    name = f"{row.task} {row.id}"
    if row.state == "dead":
        raise JobDead(f"{name} is a dead letter ({row.reason}): {row.error_type}: {row.error}")
    if row.state == "cancelled":
        raise JobCancelled(f"{name} was cancelled")
    if row.state == "expired":
        raise JobExpired(f"{name} expired before it could start")
    if row.result_omitted is not None:
        raise ResultNotStored(row.result_omitted)
    spec = tasks.get(row.task)
    if spec is not None:
        return spec.result.decode(row.result)
    return None if row.result is None else json.loads(row.result)


def _is_returning(row: JobRow) -> bool:
    """Return whether the job's own transaction has settled it a moment ago, and its task may be about to return."""
    settled_at = row.finished_at
    return (
        row.result_omitted == RESULT_PENDING
        and settled_at is not None
        and now_us() - settled_at < RETURN_US
    )
