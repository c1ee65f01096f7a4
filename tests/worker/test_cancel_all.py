"""Cancelling by a filter on an open runner: waiters, running attempts, other processes, a call broken off."""

import asyncio
from typing import Any

import pytest

from jobrunner import CancelCounts, InvalidOptions, JobCancelled, JobRunner
from jobrunner.queue import slices
from tests.support.children import hold, tasks
from tests.support.engine import Gate, soon, store_of
from tests.support.processes import child

pytestmark = pytest.mark.each_store


@pytest.fixture
def jobs(store_url: str) -> JobRunner:
    return JobRunner(store_url, queues={"default": 2})


@pytest.mark.usefixtures("no_poll")
async def test_cancel_all_ends_waiting_jobs_and_interrupts_running_ones(jobs: JobRunner) -> None:
    gate = Gate()

    @jobs.task
    async def wait(number: int) -> None:
        await gate.enter(number)

    async with jobs.running():
        stored = [await jobs.enqueue(wait.options(tag="t"), number) for number in range(3)]
        stored.append(await jobs.enqueue(wait.options(tag="t", delay=3600), 3))
        other = await jobs.enqueue(wait, 4)
        assert {await gate.arrival(), await gate.arrival()} == {0, 1}
        results = [asyncio.create_task(job.result(timeout=15)) for job in stored]
        plan = await jobs.cancel_all(tag="t", dry_run=True)
        assert plan == CancelCounts(cancelled=2, requested=2)
        assert (await stored[3].refresh()).state == "scheduled"
        sizes: list[int] = []
        assert await jobs.cancel_all(task=wait, tag="t", on_slice=sizes.append) == plan
        assert sizes == [4]
        for result in results:
            with pytest.raises(JobCancelled):
                await result
        gate.open()
        await other.result(timeout=15)
        assert gate.arrivals == [0, 1, 4]
        assert await jobs.cancel_all() == CancelCounts(0, 0)


@pytest.mark.usefixtures("no_poll")
async def test_cancel_all_by_another_process_interrupts_our_running_jobs(store_url: str) -> None:
    jobs = JobRunner(store_url)
    gate = Gate()

    @jobs.task
    async def wait() -> None:
        await gate.enter()

    async with jobs.running(), child("client", store_url) as client:
        await client.heard("open")
        running = [await jobs.enqueue(wait), await jobs.enqueue(wait)]
        await gate.arrival()
        await gate.arrival()
        client.send("cancel-all")
        counts = await client.heard("cancelled")
        assert (counts["cancelled"], counts["requested"]) == (0, 2)
        for job in running:
            with pytest.raises(JobCancelled):
                await job.result(timeout=15)


async def test_cancel_all_interrupts_the_running_jobs_of_another_process(store_url: str) -> None:
    jobs = JobRunner(store_url)
    jobs.include(tasks)
    async with jobs.running(work=False), child("work", store_url) as other:
        await other.heard("open")
        job = await jobs.enqueue(hold, "a")
        await other.heard("held")
        assert await jobs.cancel_all(task=hold) == CancelCounts(0, 1)
        with pytest.raises(JobCancelled):
            await job.result(timeout=15)


async def test_cancel_all_that_is_broken_off_leaves_the_rest_and_can_be_made_again(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "CHANGED_PER_SLICE", 2)

    @jobs.task
    async def work() -> None: ...

    async with jobs.running(work=False):
        await jobs.enqueue_many(work.call() for _ in range(5))
        store = store_of(jobs)
        cancel_all, second = store.jobs.cancel_all, asyncio.Event()
        calls = 0

        async def slowly(*args: Any, **words: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2:
                second.set()
                await asyncio.Event().wait()
            return await cancel_all(*args, **words)

        store.jobs.cancel_all = slowly  # type: ignore[method-assign]
        cancelling = asyncio.ensure_future(jobs.cancel_all())
        await soon(second.wait())
        cancelling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelling
        assert len((await jobs.list(state="cancelled")).items) == 2
        assert await jobs.cancel_all() == CancelCounts(3, 0)


async def test_two_cancel_all_at_once_cancel_each_job_once(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "CHANGED_PER_SLICE", 3)

    @jobs.task
    async def work() -> None: ...

    async with jobs.running(work=False):
        await jobs.enqueue_many(work.call() for _ in range(40))
        counts = await asyncio.gather(jobs.cancel_all(), jobs.cancel_all(queue="default"))
        assert sum(one.cancelled for one in counts) == 40


async def test_cancel_all_refuses_a_state_of_an_end(jobs: JobRunner) -> None:
    async with jobs.running(work=False):
        with pytest.raises(InvalidOptions, match="none of scheduled, queued, running, blocked"):
            await jobs.cancel_all(state="dead")  # type: ignore[arg-type]
