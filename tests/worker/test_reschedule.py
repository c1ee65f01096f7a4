"""Rescheduling on an open runner: workers find the new time at once, in this process and in others."""

from datetime import UTC, datetime, timedelta

import pytest
from tenacity import wait_fixed

from jobrunner import InvalidOptions, JobContext, JobNotFound, JobNotWaiting, JobRunner
from jobrunner.core.clock import utcnow
from tests.support.children import echo, tasks
from tests.support.engine import Gate, Heard, soon
from tests.support.processes import child

pytestmark = pytest.mark.each_store


NOBODY = "01936d2c-7a40-7c3e-9d55-6f0c1d2e3f4a"


@pytest.fixture
def jobs(store_url: str) -> JobRunner:
    return JobRunner(store_url)


@pytest.mark.usefixtures("no_poll")
async def test_reschedule_to_now_runs_the_job_at_once(jobs: JobRunner) -> None:
    @jobs.task
    async def work() -> str:
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(work.options(delay=3600))
        moved = await jobs.reschedule(job.id, 0)
        assert (moved.id, moved.state) == (job.id, "queued")
        assert moved.run_at <= utcnow()
        assert await job.result(timeout=15) == "done"


@pytest.mark.usefixtures("no_poll")
async def test_reschedule_runs_a_job_now_that_waits_for_its_retry(jobs: JobRunner) -> None:
    heard = Heard(jobs)

    @jobs.task(max_attempts=2, wait=wait_fixed(3600))
    async def work(job: JobContext) -> int:
        if job.attempt == 1:
            raise LookupError
        return job.attempt

    async with jobs.running():
        job = await jobs.enqueue(work)
        await soon(heard.retries.get())
        await jobs.reschedule(job.id, run_at=datetime(2020, 1, 1, tzinfo=UTC))
        assert await job.result(timeout=15) == 2


@pytest.mark.usefixtures("no_poll")
async def test_reschedule_by_another_process_wakes_our_worker(store_url: str) -> None:
    jobs = JobRunner(store_url)
    jobs.include(tasks)
    async with jobs.running(), child("client", store_url) as client:
        await client.heard("open")
        job = await jobs.enqueue(echo.options(delay=3600), "a")
        client.send(f"reschedule {job.id} 0")
        assert (await client.heard("rescheduled"))["state"] == "queued"
        assert await job.result(timeout=15) == "a"


async def test_reschedule_wakes_the_worker_of_another_process(store_url: str) -> None:
    jobs = JobRunner(store_url)
    jobs.include(tasks)
    async with jobs.running(work=False), child("work", store_url) as other:
        await other.heard("open")
        job = await jobs.enqueue(echo.options(delay=3600), "a")
        await jobs.reschedule(job.id, timedelta())
        assert await job.result(timeout=15) == "a"


async def test_reschedule_to_later_keeps_a_queued_job_from_running(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"default": 1})
    gate = Gate()

    @jobs.task
    async def work(number: int) -> None:
        await gate.enter(number)

    async with jobs.running():
        running = await jobs.enqueue(work, 1)
        await gate.arrival()
        moved, other = await jobs.enqueue(work, 2), await jobs.enqueue(work, 3)
        later = utcnow() + timedelta(days=1)
        assert (await jobs.reschedule(moved.id, run_at=later)).run_at == later
        with pytest.raises(JobNotWaiting, match="it is running"):
            await jobs.reschedule(running.id, 60)
        gate.open()
        await other.result(timeout=15)
        assert gate.arrivals == [1, 3]
        assert (await moved.refresh()).state == "scheduled"


async def test_reschedule_needs_one_time_that_is_one(jobs: JobRunner) -> None:
    async with jobs.running(work=False):
        with pytest.raises(InvalidOptions, match="a new time is a delay or a run_at"):
            await jobs.reschedule(NOBODY)
        with pytest.raises(InvalidOptions, match="a new time is a delay or a run_at"):
            await jobs.reschedule(NOBODY, 1, run_at=utcnow())
        with pytest.raises(InvalidOptions, match="has no time zone"):
            await jobs.reschedule(NOBODY, run_at=datetime(2026, 1, 1))  # noqa: DTZ001 - refused
        with pytest.raises(InvalidOptions, match="not a duration"):
            await jobs.reschedule(NOBODY, -1)
        with pytest.raises(JobNotFound):
            await jobs.reschedule(NOBODY, 1)
