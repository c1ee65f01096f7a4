"""Reads a stored job again: its state, its arguments, and its result after it has ended."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

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
from jobrunner.core.limits import Wait
from jobrunner.core.model import FINISHED, RESULT_PENDING, JobRow
from jobrunner.core.units import duration_us
from jobrunner.core.workflows import ParkedWait
from jobrunner.queue.local_worker import LocalWorker
from jobrunner.queue.shared_reads import SharedReads
from jobrunner.store.protocol import Store
from jobrunner.store.reentrancy import refuse_inside
from jobrunner.tasks.placeholder import handed_names
from jobrunner.tasks.spec import TaskSpec
from jobrunner.worker.events import Events
from jobrunner.worker.handed import RETURN_US
from jobrunner.worker.unawaited import caller


class JobReader:
    """Reads a job again, waits for its end, and decodes its arguments."""

    def __init__(
        self,
        store: Store,
        reads: SharedReads,
        events: Events,
        worker: LocalWorker,
        tasks: Mapping[str, TaskSpec],
        *,
        in_session: bool = False,
    ) -> None:
        """Read from the store of an open runner.

        Args:
            store: The open store.
            reads: Reads the jobs that callers wait for.
            events: Wakes the code that waits for a job's result.
            worker: The worker of this process.
            tasks: The runner's tasks by stored name and by alias.
            in_session: True if the jobs were stored through a session. The transaction of a missing job may then be
                uncommitted.
        """
        self._store = store
        self._reads = reads
        self._events = events
        self._worker = worker
        self._tasks = tasks
        self._in_session = in_session

    async def result_of(self, job: Job[Any], timeout: float | timedelta | None) -> Any:
        """Wait for a job's result; see ``Job.result``."""
        refuse_inside(self._store, "result()")
        attempt = caller.get()
        deadlocks = self._worker.deadlocks
        wait_s = None if timeout is None else duration_us(timeout, "timeout") / SECOND_US
        if attempt is None or deadlocks is None or not deadlocks.concern(attempt):
            row = await self._awaited(job, wait_s, "result()")
        else:
            timed = timeout is not None
            with deadlocks.waiting(attempt, job.id, timed=timed) as wait:
                check = partial(deadlocks.check, attempt, wait)
                row = await self._awaited(job, wait_s, "result()", check)
        if not has_ended(row):
            raise ResultTimeout(
                f"{job.task} {job.id} is {row.state} after {wait_s:g} s; it goes on"
            )
        return result_in(row, self._tasks)

    async def row_within(self, job: Job[Any], within: float | timedelta, what: str) -> JobRow:
        """Wait for a job's end, but not longer than ``within``, and return its row.

        Args:
            job: The job.
            within: The longest wait, in seconds or as a timedelta.
            what: The name of the call, for messages.

        Raises:
            NotCommitted: The transaction that stores the job is not committed.
            WouldDeadlock: The caller holds a transaction that keeps workers from writing the job's end.
            JobNotFound: The job was deleted after its retention.
        """
        refuse_inside(self._store, what)
        return await self._awaited(job, duration_us(within, "within") / SECOND_US, what)

    async def _awaited(
        self,
        job: Job[Any],
        wait_s: float | None,
        what: str,
        check: Callable[[JobRow], Awaitable[None]] | None = None,
    ) -> JobRow:
        """Return a job's row once it has ended, or at the time limit.

        Args:
            job: The job.
            wait_s: The longest wait; None waits for ever.
            what: The name of the call, for messages.
            check: Raises if the job can never end; called after each read.

        Raises:
            WouldDeadlock: The caller holds a transaction that keeps workers from writing the job's end.
        """
        loop = asyncio.get_running_loop()
        deadline = None if wait_s is None else loop.time() + wait_s
        while True:
            # Registered before the read, so that no end between the two is missed.
            waiter = self._events.ends.wait_for(job.id)
            try:
                row = self._found(job, await self._reads.get(job.id))
                if has_ended(row):
                    return row
                self._store.refuse_wait(what)
                if check is not None:
                    await check(row)
                left_s = self._reads.next_poll_s(job.id)
                if deadline is not None:
                    left_s = min(left_s, deadline - loop.time())
                    if left_s <= 0:
                        return row
                await asyncio.wait([waiter], timeout=left_s)
            finally:
                waiter.cancel()

    def _found(self, job: Job[Any], row: JobRow | None) -> JobRow:
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
        row = self._found(job, await self._store.jobs.get(job.id))
        attempts = await self._store.jobs.attempts(row.seq)
        wait = (await waits_of(self._store, [row], now_us())).get(row.seq)
        steps = await self._store.workflows.steps(row.seq)
        return job_of(row, attempts, self, args=row.args, wait=wait, steps=steps)

    def arguments_of(self, job: Job[Any], stored: str, handed: str | None = None) -> dict[str, Any]:
        """Decode a job's stored arguments; see ``Job.args``."""
        spec = self._tasks.get(job.task)
        if spec is not None:
            return spec.args.decode(stored, handed_names(handed))
        plain: dict[str, Any] = json.loads(stored)
        return plain


async def waits_of(
    store: Store, rows: Sequence[JobRow], now: int
) -> Mapping[int, Wait | ParkedWait]:
    """Return what holds queued jobs back, and what parked jobs wait for, by ``seq``."""
    parked = [row for row in rows if may_be_parked(row)]
    waits: dict[int, Wait | ParkedWait] = dict(await store.limits.waits(rows, now=now))
    if parked:
        waits.update(await store.workflows.waits(parked))
    return waits


def may_be_parked(row: JobRow) -> bool:
    """Return whether a job has begun and does not run: it is parked, or waits for a retry."""
    return row.state in ("blocked", "scheduled") and row.first_started_at is not None


def no_job(id: str) -> JobNotFound:
    """Return the error for an id that no job has."""
    return JobNotFound(f"no job has the id {id}; it may be past its retention")


def has_ended(row: JobRow) -> bool:
    """Return whether a job has ended and its task will return no other result."""
    return row.state in FINISHED and not _is_returning(row)


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
