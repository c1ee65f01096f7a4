"""A paused queue starts nothing; the others go on."""

import pytest

from jobrunner import JobRunner, UnknownQueue
from tests.support.children import echo, tasks
from tests.support.engine import Gate, next_round
from tests.support.processes import child

pytestmark = pytest.mark.each_store


async def test_pause_lets_nothing_start_until_resume(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"default": 5, "mail": 5})

    @jobs.task
    async def work() -> str:
        return "done"

    async with jobs.running():
        await jobs.queues.pause("default")
        job = await jobs.enqueue(work)
        await next_round(jobs)
        assert (await job.refresh()).state == "queued"
        other = await jobs.enqueue(work.options(queue="mail"))
        assert await other.result(timeout=15) == "done"
        info = {queue.name: queue for queue in (await jobs.queues.list()).items}
        assert (info["default"].paused, info["default"].queued) == (True, 1)
        assert info["default"].oldest_due_at == job.run_at
        assert info["mail"].paused is False
        # Somebody has meant it: that is no trouble to report.
        assert (await jobs.health()).status == "ok"

        await jobs.queues.resume("default")
        assert await job.result(timeout=15) == "done"


async def test_pause_lets_running_attempts_end(jobs: JobRunner) -> None:
    gate = Gate()

    @jobs.task
    async def work() -> str:
        await gate.enter()
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(work)
        await gate.arrival()
        await jobs.queues.pause("default")
        gate.open()
        assert await job.result(timeout=15) == "done"


async def test_pause_outlives_the_process_and_holds_in_all(store_url: str) -> None:
    jobs = JobRunner(store_url)
    jobs.include(tasks)
    async with jobs.running(work=False):
        await jobs.queues.pause("default")
        await jobs.queues.pause("default")
    async with jobs.running(work=False), child("work", store_url) as other:
        await other.heard("open")
        job = await jobs.enqueue(echo, "x")
        with pytest.raises(TimeoutError):
            await job.result(timeout=0.7)
        assert (await job.refresh()).state == "queued"
        await jobs.queues.resume("default")
        assert await job.result(timeout=15) == "x"


async def test_pause_of_a_queue_that_the_runner_lacks_is_refused(jobs: JobRunner) -> None:
    async with jobs.running(work=False):
        for verb in (jobs.queues.pause, jobs.queues.resume):
            with pytest.raises(UnknownQueue, match="no queue 'mail'"):
                await verb("mail")
