"""Cancelling a job: while it waits, while it runs, from elsewhere, and in the moment in which it ends."""

import asyncio

import pytest
from tenacity import wait_none

from jobrunner import (
    Bury,
    JobCancelled,
    JobContext,
    JobDead,
    JobNotFound,
    JobRunner,
    Retry,
    Snooze,
)
from jobrunner.core.model import Claimed
from jobrunner.worker.attempt import Attempt
from tests.support.children import hold, tasks
from tests.support.engine import (
    Gate,
    Heard,
    ThreadGate,
    history,
    next_round,
    soon,
    supervisor_of,
    worker_of,
)
from tests.support.processes import child

pytestmark = pytest.mark.each_store


NOBODY = "01936d2c-7a40-7c3e-9d55-6f0c1d2e3f4a"


@pytest.fixture
def jobs(store_url: str) -> JobRunner:
    return JobRunner(store_url, queues={"default": 1})


@pytest.mark.parametrize("delay", [None, 3600])
async def test_cancel_of_a_waiting_job_ends_it_at_once(jobs: JobRunner, delay: int | None) -> None:
    gate = Gate()
    ran: list[int] = []

    @jobs.task
    async def block() -> None:
        await gate.enter()

    @jobs.task
    async def work(number: int) -> None:
        ran.append(number)

    async with jobs.running():
        await jobs.enqueue(block)
        await gate.arrival()
        waiting = await jobs.enqueue(work.options(delay=delay), 1)
        other = await jobs.enqueue(work, 2)
        result = asyncio.create_task(waiting.result(timeout=15))

        assert await jobs.cancel(waiting.id) == "cancelled"
        with pytest.raises(JobCancelled):
            await result
        assert (await waiting.refresh()).state == "cancelled"
        gate.open()
        await other.result(timeout=15)
        assert ran == [2]
        assert await jobs.cancel(waiting.id) is None


async def test_cancel_of_a_running_async_def_interrupts_it(jobs: JobRunner) -> None:
    gate = Gate()
    seen: list[str] = []

    @jobs.task
    async def wait(job: JobContext) -> None:
        try:
            await gate.enter()
        except asyncio.CancelledError:
            seen.append(f"cancelled: {job.cancelled}")
            raise

    async with jobs.running():
        job = await jobs.enqueue(wait)
        await gate.arrival()
        assert await jobs.cancel(job.id) == "requested"
        with pytest.raises(JobCancelled):
            await job.result(timeout=15)
        assert seen == ["cancelled: True"]
        (attempt,) = await history(jobs, job.id)
        assert (attempt.outcome, attempt.error) == ("cancelled", None)


async def test_cancel_of_a_running_def_is_seen_by_it(jobs: JobRunner) -> None:
    gate = ThreadGate()

    @jobs.task
    def count(job: JobContext) -> str:
        gate.enter(job.cancelled)
        return "cut short" if job.cancelled else "whole"

    async with jobs.running():
        job = await jobs.enqueue(count)
        assert await gate.arrival() is False
        assert await jobs.cancel(job.id) == "requested"
        assert (await job.refresh()).state == "running"
        gate.open()
        with pytest.raises(JobCancelled):
            await job.result(timeout=15)


async def test_cancel_of_a_running_def_that_does_not_look_lets_it_succeed(jobs: JobRunner) -> None:
    gate = ThreadGate()

    @jobs.task
    def count() -> str:
        gate.enter()
        return "whole"

    async with jobs.running():
        job = await jobs.enqueue(count)
        await gate.arrival()
        await jobs.cancel(job.id)
        gate.open()
        assert await job.result(timeout=15) == "whole"
        assert await jobs.cancel(job.id) is None


@pytest.mark.parametrize("ending", ["fails", "retries", "snoozes"])
async def test_cancel_of_a_job_that_would_run_again_keeps_it_from_that(
    jobs: JobRunner, ending: str
) -> None:
    gate = ThreadGate()

    @jobs.task(wait=wait_none())
    def end() -> None:
        gate.enter()
        match ending:
            case "fails":
                raise LookupError
            case "retries":
                raise Retry(0)
            case _:
                raise Snooze(0)

    async with jobs.running():
        job = await jobs.enqueue(end)
        await gate.arrival()
        await jobs.cancel(job.id)
        gate.open()
        with pytest.raises(JobCancelled):
            await job.result(timeout=15)
        assert len(gate.arrivals) == 1


async def test_cancel_of_a_job_that_buries_itself_leaves_a_dead_letter(jobs: JobRunner) -> None:
    gate = ThreadGate()

    @jobs.task
    def end() -> None:
        gate.enter()
        raise Bury("it is over")

    async with jobs.running():
        job = await jobs.enqueue(end)
        await gate.arrival()
        await jobs.cancel(job.id)
        gate.open()
        with pytest.raises(JobDead):
            await job.result(timeout=15)


async def test_H10_cancel_in_the_moment_it_finishes_gives_one_end(jobs: JobRunner) -> None:
    """Many times, each time at another moment before the end; the answer must match the stored state."""
    gate = Gate()

    @jobs.task
    async def work(turns: int) -> str:
        await gate.enter()
        for _ in range(turns):
            await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop
        return "done"

    ends: set[str] = set()
    async with jobs.running():
        for turns in range(60):
            job = await jobs.enqueue(work, turns)
            await gate.arrival()
            gate.let()
            cancelled = await jobs.cancel(job.id)
            try:
                end = await job.result(timeout=15)
            except JobCancelled:
                end = "cancelled"
                assert cancelled == "requested"
            ends.add(end)
            state = (await job.refresh()).state
            assert state == ("cancelled" if end == "cancelled" else "succeeded")
            assert [a.outcome for a in await history(jobs, job.id)] == [state]
            assert await jobs.cancel(job.id) is None
        assert supervisor_of(jobs)._busy == {"default": 0}
    assert ends <= {"done", "cancelled"}


async def test_cancel_in_the_moment_it_starts_frees_its_slot(jobs: JobRunner) -> None:
    """Before the attempt's first step: a task of the loop that is cancelled then never runs at all."""
    ran: list[int] = []

    @jobs.task
    async def work(number: int) -> None:
        ran.append(number)

    async with jobs.running():
        supervisor = supervisor_of(jobs)
        start = supervisor._start

        def start_and_stop(job: Claimed, loop: asyncio.AbstractEventLoop) -> Attempt:
            started = start(job, loop)
            for attempt in supervisor.attempts.values():
                attempt.stop("cancel")
            return started

        supervisor._start = start_and_stop  # type: ignore[method-assign]
        job = await jobs.enqueue(work, 1)
        with pytest.raises(JobCancelled):
            await job.result(timeout=15)
        supervisor._start = start  # type: ignore[method-assign]
        await (await jobs.enqueue(work, 2)).result(timeout=15)
    assert ran == [2]


async def test_cancel_of_an_unknown_job_is_an_error(jobs: JobRunner) -> None:
    async with jobs.running():
        with pytest.raises(JobNotFound, match=NOBODY):
            await jobs.cancel(NOBODY)


async def test_cancel_of_a_dead_job_changes_nothing(jobs: JobRunner) -> None:
    heard = Heard(jobs)

    @jobs.task(max_attempts=1)
    async def fail() -> None:
        raise LookupError

    async with jobs.running():
        job = await jobs.enqueue(fail)
        await soon(heard.dead.get())
        assert await jobs.cancel(job.id) is None
        assert (await jobs.dead_letters.get(job.id)).reason == "exhausted"


@pytest.mark.usefixtures("no_poll")
async def test_cancel_by_another_process_of_our_running_job_interrupts_it(store_url: str) -> None:
    jobs = JobRunner(store_url)
    gate = Gate()

    @jobs.task
    async def wait() -> None:
        await gate.enter()

    async with jobs.running(), child("client", store_url) as client:
        await client.heard("open")
        job = await jobs.enqueue(wait)
        await gate.arrival()
        client.send(f"cancel {job.id}")
        assert (await client.heard("cancelled"))["status"] == "requested"
        with pytest.raises(JobCancelled):
            await job.result(timeout=15)


async def test_cancel_of_another_process_s_running_job_interrupts_it(store_url: str) -> None:
    jobs = JobRunner(store_url)
    jobs.include(tasks)
    async with jobs.running(work=False), child("work", store_url) as other:
        await other.heard("open")
        job = await jobs.enqueue(hold, "a")
        await other.heard("held")
        assert await jobs.cancel(job.id) == "requested"
        with pytest.raises(JobCancelled):
            await job.result(timeout=15)


async def test_cancel_whose_bell_was_lost_is_found_by_the_poll(jobs: JobRunner) -> None:
    gate = Gate()

    @jobs.task
    async def wait() -> None:
        await gate.enter()

    async with jobs.running():
        worker = worker_of(jobs)
        job = await jobs.enqueue(wait)
        await gate.arrival()
        await worker._store.jobs.cancel(job.id, now=1)  # as another process does it, without a ring
        with pytest.raises(JobCancelled):
            await job.result(timeout=15)
        await next_round(jobs)
