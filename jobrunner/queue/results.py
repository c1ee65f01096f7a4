"""What a job has returned, and the wait for it."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.core.errors import JobCancelled, JobDead, JobExpired, ResultNotStored, ResultTimeout
from jobrunner.core.job import Job
from jobrunner.core.model import FINISHED, RESULT_PENDING, JobRow
from jobrunner.core.units import duration_us
from jobrunner.tasks.spec import TaskSpec
from jobrunner.worker.events import Events

RETURN_US: Final = 5 * SECOND_US
"""How long a task may take to return after its own transaction has settled the job, before its result is given up."""
POLL_S: Final = 0.5
"""How often a wait for a result looks at the store: the job may end in another process."""


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
