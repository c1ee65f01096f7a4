"""Reads a stored job again: its state, its arguments, and its result after it has ended."""

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
"""The time to return for a task whose own transaction has settled its job; later, no result is expected."""
POLL_S: Final = 0.5
"""The time between two reads of a job while its result is awaited, because it may end in another process."""


class JobReader:
    """Reads a job again, waits for its end, and decodes its arguments."""

    def __init__(
        self,
        store: Store,
        events: Events,
        worker: LocalWorker,
        tasks: Mapping[str, TaskSpec],
        *,
        in_session: bool = False,
    ) -> None:
        """Read from the store of an open runner.

        Args:
            store: The open store.
            events: Wakes the code that waits for a job's result.
            worker: The worker of this process.
            tasks: The runner's tasks by stored name and by alias.
            in_session: True if the jobs were stored through a session. The transaction of a missing job may then be
                uncommitted.
        """
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
        """Decode a job's stored arguments; see ``Job.args``."""
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
    """Wait until a job has ended, in any process, and return its row.

    Args:
        job: The job.
        read: Reads the job's row again.
        events: Ends the wait early if the job ends in this process.
        timeout: The longest wait, in seconds or as a timedelta. None waits for ever.
        refuse_wait: Raises if the caller holds a transaction that keeps workers from writing the job's end.
        check: Raises if the job can never end; called after each read.

    Raises:
        ResultTimeout: The job has not ended within the timeout.
    """
    loop = asyncio.get_running_loop()
    wait_s = None if timeout is None else duration_us(timeout, "timeout") / SECOND_US
    deadline = None if wait_s is None else loop.time() + wait_s
    while True:
        # Registered before the read, so that no end between the two is missed.
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
    """Return the result of a job that has ended.

    Raises:
        JobDead: The job is a dead letter.
        JobCancelled: The job was cancelled.
        JobExpired: The job expired while it waited for its first attempt or a retry.
        ResultNotStored: The job has succeeded, but its result could not be stored.
    """
    name = f"{row.task} {row.id}"
    if row.state == "dead":
        raise JobDead(f"{name} is a dead letter ({row.reason}): {row.error_type}: {row.error}")
    if row.state == "cancelled":
        raise JobCancelled(f"{name} was cancelled")
    if row.state == "expired":
        raise JobExpired(f"{name} expired while it waited to run")
    if row.result_omitted is not None:
        raise ResultNotStored(row.result_omitted)
    spec = tasks.get(row.task)
    if spec is not None:
        return spec.result.decode(row.result)
    return None if row.result is None else json.loads(row.result)


def _is_returning(row: JobRow) -> bool:
    """Return whether the task may still return a result.

    The job's own transaction settles it before the task returns; within ``RETURN_US`` the result may still come.
    """
    settled_at = row.finished_at
    return (
        row.result_omitted == RESULT_PENDING
        and settled_at is not None
        and now_us() - settled_at < RETURN_US
    )
