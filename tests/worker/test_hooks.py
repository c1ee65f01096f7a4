"""Hooks receive the events of jobs and cannot harm a job."""

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from freezegun.api import FrozenDateTimeFactory
from tenacity import wait_fixed, wait_none

from jobrunner import ConfigurationError, DeadLetter, Job, JobDead, JobRunner
from jobrunner.worker import events as events_module
from tests.support.children import poison, tasks
from tests.support.engine import Gate, Heard, soon, worker_of
from tests.support.processes import child

pytestmark = pytest.mark.each_store


async def test_on_dead_is_handed_the_letter_with_its_history(jobs: JobRunner) -> None:
    heard = Heard(jobs)

    @jobs.task(max_attempts=2, wait=wait_none())
    async def fail(name: str) -> None:
        raise LookupError(f"no {name}")

    async with jobs.running():
        job = await jobs.enqueue(fail.options(tag="t"), "ada")
        letter = await soon(heard.dead.get())
        assert isinstance(letter, DeadLetter)
        assert (letter.id, letter.task, letter.reason, letter.tag) == (
            job.id,
            "fail",
            "exhausted",
            "t",
        )
        assert (letter.args, letter.error) == ({"name": "ada"}, "no ada")
        assert [a.attempt for a in letter.history] == [1, 2]


async def test_on_retry_is_handed_the_job_whose_history_holds_the_error(jobs: JobRunner) -> None:
    heard = Heard(jobs)

    @jobs.task(wait=wait_fixed(3600))
    async def fail() -> None:
        raise LookupError("not now")

    async with jobs.running():
        job = await jobs.enqueue(fail)
        told = await soon(heard.retries.get())
        assert isinstance(told, Job)
        assert (told.id, told.state, told.attempt) == (job.id, "scheduled", 1)
        assert told.history[-1].error == "not now"


async def test_on_succeeded_is_handed_the_finished_job(jobs: JobRunner) -> None:
    heard = Heard(jobs)

    @jobs.task
    async def work() -> int:
        return 7

    async with jobs.running():
        job = await jobs.enqueue(work)
        told = await soon(heard.succeeded.get())
        assert (told.id, told.state) == (job.id, "succeeded")
        assert await told.result(timeout=15) == 7
    assert heard.dead.empty()
    assert heard.retries.empty()


async def test_hook_may_be_async_or_not_and_may_enqueue(jobs: JobRunner) -> None:
    order: list[str] = []
    alerted = asyncio.Event()

    @jobs.on_dead
    def first(letter: DeadLetter) -> None:
        order.append("first")

    @jobs.on_dead
    async def second(letter: DeadLetter) -> None:
        order.append("second")
        await jobs.enqueue(alert, letter.id)

    @jobs.task
    async def alert(about: str) -> None:
        order.append(about)
        alerted.set()

    @jobs.task(max_attempts=1)
    async def fail() -> None:
        raise LookupError

    async with jobs.running():
        job = await jobs.enqueue(fail)
        await soon(alerted.wait())
    assert order == ["first", "second", job.id]


def bad_hooks() -> dict[str, Callable[..., Any]]:
    def fails(_: Any) -> None:
        raise LookupError("the hook is broken")

    async def fails_later(_: Any) -> None:
        raise LookupError("the hook is broken")

    async def times_out(_: Any) -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    async def quits(_: Any) -> None:
        raise SystemExit("the hook quits")

    async def cancels_itself(_: Any) -> None:
        raise asyncio.CancelledError

    def wants_more(*_: Any, more: str) -> None: ...

    hooks: dict[str, Callable[..., Any]] = {
        "fails": fails,
        "fails later": fails_later,
        "times out": times_out,
        "quits": quits,
        "cancels itself": cancels_itself,
        "wants more": wants_more,
    }
    return hooks


@pytest.mark.parametrize("name", bad_hooks())
async def test_hook_that_fails_is_logged_and_harms_nothing(
    jobs: JobRunner, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    jobs.on_succeeded(bad_hooks()[name])
    heard = Heard(jobs)

    @jobs.task
    async def work(number: int) -> int:
        return number

    async with jobs.running():
        for number in range(3):
            assert await (await jobs.enqueue(work, number)).result(timeout=15) == number
            # The hook after the broken one is told all the same.
            await soon(heard.succeeded.get())
    failures = [
        r for r in caplog.records if r.levelno == logging.ERROR and "on_succeeded hook" in r.message
    ]
    assert len(failures) == 3
    assert all(r.exc_info for r in failures)


async def test_hooks_that_are_too_slow_lose_events_and_say_so(
    jobs: JobRunner, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "MOST_WAITING", 5)
    gate = Gate()

    @jobs.on_succeeded
    async def slow(job: Job[Any]) -> None:
        await gate.enter(job.id)

    @jobs.task
    async def work(number: int) -> int:
        return number

    async with jobs.running():
        first = await jobs.enqueue(work, 0)
        assert await gate.arrival() == first.id
        many = await jobs.enqueue_many(work.call(number) for number in range(20))
        for job in many:
            await job.result(timeout=15)
        gate.open()
    assert len(gate.arrivals) == 6
    assert "hooks are too slow: 8 events have been dropped" in caplog.text


async def test_hook_that_is_no_function_is_refused(jobs: JobRunner) -> None:
    with pytest.raises(ConfigurationError, match=r"on_dead\(\) takes a function, not 'mail me'"):
        jobs.on_dead("mail me")  # type: ignore[type-var]


async def test_hook_is_called_in_a_runner_that_is_opened_again(jobs: JobRunner) -> None:
    told: list[str] = []
    jobs.on_succeeded(lambda job: told.append(job.id))

    @jobs.task
    async def work() -> None: ...

    ids = []
    for _ in range(2):
        async with jobs.running():
            job = await jobs.enqueue(work)
            await job.result(timeout=15)
            ids.append(job.id)
    assert told == ids


async def test_on_dead_is_told_of_jobs_lost_with_their_process(store_url: str) -> None:
    jobs = JobRunner(store_url)
    jobs.include(tasks)
    heard = Heard(jobs)
    async with jobs.running(work=False):
        job = await jobs.enqueue(poison.options(max_attempts=1))
        async with child("work", store_url) as victim:
            await victim.heard("open")
            assert await victim.ended() == 9
            letter = await soon(heard.dead.get())
    assert (letter.id, letter.reason, letter.error_type) == (job.id, "lost", "ProcessLost")
    assert [a.outcome for a in letter.history] == ["lost"]


async def test_on_dead_is_told_of_jobs_of_an_unknown_task(
    store_url: str, frozen: FrozenDateTimeFactory
) -> None:
    old = JobRunner(store_url)

    @old.task
    async def gone() -> None: ...

    async with old.running(work=False):
        job = await old.enqueue(gone)

    jobs = JobRunner(store_url, unknown_task_after=timedelta(days=1))
    heard = Heard(jobs)
    frozen.tick(timedelta(days=1, seconds=1))
    async with jobs.running():
        await worker_of(jobs).maintenance.unknown_tasks.check()
        letter = await soon(heard.dead.get())
    assert (letter.id, letter.reason) == (job.id, "unknown_task")


async def test_result_is_told_though_a_hook_hangs(jobs: JobRunner) -> None:
    gate = Gate()

    @jobs.on_dead
    async def hang(_: DeadLetter) -> None:
        await gate.enter()

    @jobs.task(max_attempts=1)
    async def fail() -> None:
        raise LookupError

    async with jobs.running():
        for _ in range(2):
            with pytest.raises(JobDead):
                await (await jobs.enqueue(fail)).result(timeout=15)
        gate.open()
