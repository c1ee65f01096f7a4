"""Waiting for what a job returned."""

import asyncio
import pickle
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from freezegun.api import FrozenDateTimeFactory
from pydantic import BaseModel

from jobrunner import (
    Bury,
    InvalidOptions,
    JobCancelled,
    JobDead,
    JobExpired,
    JobNotFound,
    JobRunner,
    NotRunning,
    ResultNotStored,
    ResultTimeout,
)
from jobrunner.queue.queue import enqueuer_of
from jobrunner.tasks.codec import MAX_RESULT_BYTES
from tests.support.children import echo, tasks
from tests.support.engine import Gate, next_round, soon, store_of, waiting_for
from tests.support.processes import child

pytestmark = pytest.mark.each_store


class Receipt(BaseModel):
    number: int
    at: datetime


@dataclass
class Line:
    what: str
    price: Decimal


async def test_result_has_the_type_that_the_task_declares(jobs: JobRunner) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)

    @jobs.task
    async def receipt() -> Receipt:
        return Receipt(number=1, at=at)

    @jobs.task
    def lines() -> list[Line]:
        return [Line("tea", Decimal("2.50"))]

    @jobs.task
    async def raw() -> bytes:
        return b"\xff\0"

    @jobs.task
    async def nothing() -> None: ...

    async with jobs.running():
        assert await (await jobs.enqueue(receipt)).result(timeout=15) == Receipt(number=1, at=at)
        assert await (await jobs.enqueue(lines)).result(timeout=15) == [
            Line("tea", Decimal("2.50"))
        ]
        assert await (await jobs.enqueue(raw)).result(timeout=15) == b"\xff\0"
        job = await jobs.enqueue(nothing)
        await job.result(timeout=15)
        again: object = await (await jobs.get(job.id)).result(timeout=15)
        assert again is None


async def test_result_of_a_finished_job_is_given_at_once_also_after_a_restart(
    store_url: str,
) -> None:
    jobs = JobRunner(store_url)

    @jobs.task
    async def work() -> Receipt:
        return Receipt(number=2, at=datetime(2026, 1, 2, tzinfo=UTC))

    async with jobs.running():
        job = await jobs.enqueue(work)
        await job.result(timeout=15)
    async with jobs.running(work=False):
        assert (await (await jobs.get(job.id, work)).result(timeout=0)).number == 2
    other = JobRunner(store_url)
    async with other.running(work=False):
        # A runner without the task gives the plain JSON.
        plain = await (await other.get(job.id)).result(timeout=0)
        assert plain == {"number": 2, "at": "2026-01-02T00:00:00Z"}


async def test_result_that_does_not_come_in_time_is_told_and_the_job_goes_on(
    jobs: JobRunner,
) -> None:
    gate = Gate()

    @jobs.task
    async def work() -> str:
        await gate.enter()
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(work)
        await gate.arrival()
        with pytest.raises(ResultTimeout, match=r"is running after 0\.01 s; it goes on"):
            await job.result(timeout=0.01)
        with pytest.raises(TimeoutError):
            await job.result(timeout=timedelta(0))
        await next_round(jobs)
        assert jobs._open is not None
        assert enqueuer_of(jobs._open).parts.events.ends.ids() == set()
        gate.open()
        assert await job.result() == "done"


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), "soon"])
async def test_result_with_a_bad_timeout_is_refused(jobs: JobRunner, timeout: float) -> None:
    @jobs.task
    async def work() -> None: ...

    async with jobs.running(work=False):
        job = await jobs.enqueue(work)
        with pytest.raises(InvalidOptions, match="timeout"):
            await job.result(timeout=timeout)


async def test_result_of_a_dead_job_says_why(jobs: JobRunner) -> None:
    @jobs.task
    async def work() -> None:
        raise Bury("no such customer")

    async with jobs.running():
        job = await jobs.enqueue(work)
        with pytest.raises(JobDead, match=r"\(buried\): Bury: no such customer"):
            await job.result(timeout=15)


async def test_result_of_an_expired_job_says_so(
    store_url: str, frozen: FrozenDateTimeFactory
) -> None:
    jobs = JobRunner(store_url, queues={"default": 1})
    gate = Gate()
    ran: list[int] = []

    @jobs.task
    async def block() -> None:
        await gate.enter()

    @jobs.task
    async def work() -> None:
        ran.append(1)

    async with jobs.running():
        await jobs.enqueue(block)
        await gate.arrival()
        job = await jobs.enqueue(work.options(expires=60))
        waiting = asyncio.create_task(job.result(timeout=15))
        frozen.tick(61)
        await next_round(jobs)
        with pytest.raises(JobExpired):
            await waiting
        gate.open()
        assert (await job.refresh()).state == "expired"
        assert ran == []


async def test_F10_result_that_was_not_stored_is_told(jobs: JobRunner) -> None:
    @jobs.task
    async def huge() -> str:
        return "x" * MAX_RESULT_BYTES

    async with jobs.running():
        job = await jobs.enqueue(huge)
        with pytest.raises(ResultNotStored, match="bytes of JSON"):
            await job.result(timeout=15)
        assert (await job.refresh()).state == "succeeded"


async def test_result_of_a_job_past_its_retention_is_told(jobs: JobRunner) -> None:
    @jobs.task
    async def work() -> None: ...

    async with jobs.running():
        job = await jobs.enqueue(work)
        await job.result(timeout=15)
        pruned = await store_of(jobs).jobs.prune(
            finished_before=1 << 60, by_task={}, died_before=0, keep_finished=9, limit=9
        )
        assert pruned == 1
        with pytest.raises(JobNotFound, match="retention"):
            await job.result(timeout=15)


async def test_result_of_a_job_that_runs_in_another_process_comes(store_url: str) -> None:
    jobs = JobRunner(store_url)
    jobs.include(tasks)
    async with jobs.running(work=False), child("work", store_url) as other:
        await other.heard("open")
        job = await jobs.enqueue(echo, "far away")
        assert await job.result(timeout=15) == "far away"


@pytest.mark.usefixtures("no_read")
@pytest.mark.parametrize("end", ["succeeded", "dead", "cancelled"])
async def test_result_comes_with_the_commit_of_the_end(jobs: JobRunner, end: str) -> None:
    gate = Gate()

    @jobs.task
    async def work() -> str:
        await gate.enter()
        if end == "dead":
            raise Bury("enough")
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(work)
        await gate.arrival()
        waiting = await waiting_for(jobs, job)
        if end == "cancelled":
            await jobs.cancel(job.id)
        gate.open()
        if end == "succeeded":
            assert await soon(waiting) == "done"
        else:
            with pytest.raises(JobDead if end == "dead" else JobCancelled):
                await soon(waiting)


async def test_result_awaited_by_many_comes_to_all(jobs: JobRunner) -> None:
    gate = Gate()

    @jobs.task
    async def work() -> str:
        await gate.enter()
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(work)
        await gate.arrival()
        waiting = [asyncio.create_task(job.result(timeout=15)) for _ in range(50)]
        waiting[0].cancel()
        await next_round(jobs)
        gate.open()
        assert await asyncio.gather(*waiting[1:]) == ["done"] * 49


async def test_result_of_a_job_made_by_hand_has_nobody_to_ask(jobs: JobRunner) -> None:
    @jobs.task
    async def work() -> None: ...

    async with jobs.running(work=False):
        job = await jobs.enqueue(work)
    loose = type(job)(
        job.id, job.task, job.queue, job.state, job.run_at, job.created_at, job.attempt, job.created
    )
    for one in (loose, pickle.loads(pickle.dumps(job))):  # noqa: S301 - of our own making
        with pytest.raises(NotRunning, match="not read from a runner"):
            await one.result()
        assert one == job
        assert len({one, job}) == 1
