"""``include(router, max_attempts=...)``: how attempts run under one runner, for tasks that several runners share."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tenacity import stop_after_attempt, wait_none

from jobrunner import InvalidTask, JobContext, JobDead, JobRunner, TaskRouter

tasks = TaskRouter(prefix="mail.", max_attempts=8, timeout=60)


@tasks.task
async def limits(job: JobContext) -> int | None:
    return job.max_attempts


@tasks.task(max_attempts=3)
async def own_limit(job: JobContext) -> int | None:
    return job.max_attempts


@tasks.task
async def fail(job: JobContext) -> None:
    raise LookupError(str(job.attempt))


@tasks.task
async def hang(job: JobContext) -> None:
    await asyncio.Event().wait()


@tasks.every(hours=1)
@tasks.task
async def tick(job: JobContext) -> int | None:
    return job.max_attempts


@pytest.fixture
def runner(tmp_path: Path) -> Callable[[str], JobRunner]:
    return lambda name: JobRunner(tmp_path / f"{name}.db")


async def test_options_of_include_replace_the_routers_and_leave_those_of_the_decorator(
    jobs: JobRunner,
) -> None:
    jobs.include(tasks, max_attempts=5)
    async with jobs.running():
        assert await (await jobs.enqueue(limits)).result(timeout=30) == 5
        assert await (await jobs.enqueue(own_limit)).result(timeout=30) == 3


async def test_two_runners_run_the_same_tasks_with_different_options(
    runner: Callable[[str], JobRunner],
) -> None:
    plain, other = runner("plain"), runner("other")
    plain.include(tasks)
    other.include(tasks, max_attempts=2)
    async with plain.running(), other.running():
        assert await (await plain.enqueue(limits)).result(timeout=30) == 8
        assert await (await other.enqueue(limits)).result(timeout=30) == 2


async def test_retries_follow_the_strategies_of_include(jobs: JobRunner) -> None:
    jobs.include(tasks, wait=wait_none(), stop=stop_after_attempt(3))
    async with jobs.running():
        job = await jobs.enqueue(fail)
        with pytest.raises(JobDead):
            await job.result(timeout=30)
        assert (await jobs.dead_letters.get(job.id)).attempt == 3


async def test_schedules_above_included_tasks_run_with_the_options_of_include(
    jobs: JobRunner,
) -> None:
    jobs.include(tasks, max_attempts=4)
    async with jobs.running():
        job = await jobs.schedules.run_now("mail.tick")
        assert await job.result(timeout=30) == 4


async def test_schedules_of_included_tasks_can_be_upserted(jobs: JobRunner) -> None:
    jobs.include(tasks, max_attempts=4)
    async with jobs.running():
        await jobs.schedules.upsert("later", limits, every=3600)
        job = await jobs.schedules.run_now("later")
        assert await job.result(timeout=30) == 4


async def test_of_nested_includes_the_outer_one_decides(jobs: JobRunner) -> None:
    middle = TaskRouter()
    middle.include(tasks, max_attempts=4)
    jobs.include(middle, max_attempts=6)
    async with jobs.running():
        assert await (await jobs.enqueue(limits)).result(timeout=30) == 6


async def test_timeout_of_include_ends_an_attempt(jobs: JobRunner) -> None:
    jobs.include(tasks, timeout=0.01, max_attempts=1)
    async with jobs.running():
        job = await jobs.enqueue(hang)
        with pytest.raises(JobDead, match="TimedOut"):
            await job.result(timeout=30)


async def test_tasks_that_are_declared_after_the_include_have_its_options(jobs: JobRunner) -> None:
    late = TaskRouter()
    jobs.include(late, max_attempts=2)

    @late.task
    async def added(job: JobContext) -> int | None:
        return job.max_attempts

    async with jobs.running():
        assert await (await jobs.enqueue(added)).result(timeout=30) == 2


def test_a_value_that_cannot_be_is_refused_and_nothing_is_included(jobs: JobRunner) -> None:
    with pytest.raises(InvalidTask, match=r"include\(\): max_attempts=0"):
        jobs.include(tasks, max_attempts=0)
    assert not jobs.tasks


def test_a_word_that_is_no_option_of_attempts_is_refused(jobs: JobRunner) -> None:
    with pytest.raises(TypeError, match="include"):
        jobs.include(tasks, queue="mail")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="max_attempts"):
        jobs.include(tasks, max_retries=3)  # type: ignore[call-arg]
