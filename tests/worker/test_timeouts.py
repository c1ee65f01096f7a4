"""Time-outs of attempts, above all of ``def`` tasks, whose threads nobody can stop."""

import asyncio
import logging

import pytest
from tenacity import wait_none

from jobrunner import JobContext, JobDead, JobRunner
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

pytestmark = pytest.mark.each_store


async def test_exceeds_timeout_fails_the_attempt_and_frees_the_slot(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"default": 1})

    @jobs.task(timeout=0.01, max_attempts=1)
    async def hang() -> None:
        await asyncio.Event().wait()

    @jobs.task
    async def work() -> str:
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(hang)
        with pytest.raises(JobDead, match=r"no end after 0\.01 s \(the task's timeout\)"):
            await job.result(timeout=15)
        (attempt,) = await history(jobs, job.id)
        assert (attempt.outcome, attempt.error_type) == ("timed_out", "TimedOut")
        assert await (await jobs.enqueue(work)).result(timeout=15) == "done"


async def test_C13_exceeds_timeout_in_a_thread_is_reported_until_the_thread_ends(
    store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = JobRunner(store_url, queues={"default": 1})
    gate = ThreadGate()
    heard = Heard(jobs)

    @jobs.task(timeout=0.05, max_attempts=1)
    def hang() -> None:
        gate.enter()

    async with jobs.running():
        job = await jobs.enqueue(hang)
        # It has failed at once: nothing that could overlap comes after.
        dead = await soon(heard.dead.get())
        assert (dead.id, dead.reason, dead.error_type) == (job.id, "exhausted", "TimedOut")

        health = await jobs.health()
        assert health.status == "degraded"
        assert health.stuck_threads == (f"hang {job.id}",)
        assert f"the thread of hang {job.id} goes on after its time-out" in health.problems
        assert "its slot is taken until the thread ends" in caplog.text

        gate.open()
        thread = next(iter(supervisor_of(jobs).stuck)).thread
        assert thread is not None
        await soon(asyncio.wait([thread]))
        await next_round(jobs)
        health = await jobs.health()
        assert (health.status, health.stuck_threads) == ("ok", ())


async def test_C13_retry_of_a_timed_out_thread_waits_until_the_thread_has_ended(
    store_url: str,
) -> None:
    jobs = JobRunner(store_url, queues={"default": 5})
    gate = ThreadGate()

    @jobs.task(timeout=0.05, max_attempts=2, wait=wait_none())
    def hang(job: JobContext) -> str:
        gate.enter(job.attempt)
        return "in time"

    async with jobs.running():
        job = await jobs.enqueue(hang)
        assert await gate.arrival() == 1
        supervisor = supervisor_of(jobs)
        while not supervisor.stuck:
            await next_round(jobs)
        await next_round(jobs)
        # Four slots are free and the wait is over, and yet it does not run again.
        assert gate.arrivals == [1]
        assert (await job.refresh()).state == "running"
        gate.open()
        assert await job.result(timeout=15) == "in time"
        assert gate.most == 1
        assert [a.outcome for a in await history(jobs, job.id)] == ["timed_out", "succeeded"]


async def test_C14_every_slot_stuck_in_a_thread_starts_no_thread_more(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"default": 2})
    gate = ThreadGate()
    heard = Heard(jobs)

    @jobs.task(timeout=0.05, max_attempts=1)
    def hang(number: int) -> None:
        gate.enter(number)

    @jobs.task
    def work() -> str:
        return "done"

    async with jobs.running():
        await jobs.enqueue_many(hang.call(number) for number in range(2))
        waiting = await jobs.enqueue(work)
        for _ in range(2):
            await soon(heard.dead.get())
        await next_round(jobs)
        assert len((await jobs.health()).stuck_threads) == 2
        assert supervisor_of(jobs)._threads._started == 2
        assert (await waiting.refresh()).state == "queued"
        threads = [attempt.thread for attempt in supervisor_of(jobs).stuck if attempt.thread]
        gate.open()
        assert await waiting.result(timeout=15) == "done"
        await soon(asyncio.wait(threads))
        await next_round(jobs)
        assert (await jobs.health()).stuck_threads == ()


@pytest.mark.parametrize("when", ["before the signal", "at the same moment"])
async def test_C14_stuck_thread_whose_job_is_settled_costs_nothing_of_the_grace(
    store_url: str, when: str
) -> None:
    jobs = JobRunner(store_url, grace=3600)
    gate = ThreadGate()
    heard = Heard(jobs)

    @jobs.task(max_attempts=1)
    def hang() -> None:
        gate.enter()

    async with jobs.running():
        job = await jobs.enqueue(hang)
        await gate.arrival()
        (attempt,) = supervisor_of(jobs).attempts.values()
        task = attempt.task
        assert task is not None
        attempt.stop("timeout")
        if when == "before the signal":
            await soon(heard.dead.get())
        worker_of(jobs).begin_stop()
        stopping = worker_of(jobs)._stopping
        assert stopping is not None
        await soon(asyncio.wait([stopping]))
        await soon(worker_of(jobs)._committer.flushed())
        assert (await job.refresh()).state == "dead"
    assert gate.inside == 1
    gate.open()
    await soon(asyncio.wait([task]))


async def test_C13_stuck_thread_whose_job_runs_again_is_left_behind_after_the_grace(
    store_url: str,
) -> None:
    jobs = JobRunner(store_url, grace=0.05)
    gate = ThreadGate()

    @jobs.task(timeout=0.05, max_attempts=2)
    def hang() -> None:
        gate.enter()

    async with jobs.running():
        job = await jobs.enqueue(hang)
        await gate.arrival()
        while not supervisor_of(jobs).stuck:
            await next_round(jobs)
        (attempt,) = supervisor_of(jobs).stuck
        task = attempt.task
        assert task is not None
    async with JobRunner(store_url).running(work=False) as later:
        again = await later.get(job.id)
        assert (again.state, [a.outcome for a in again.history]) == ("scheduled", ["timed_out"])
    gate.open()
    await soon(asyncio.wait([task]))


async def test_sees_time_out_in_a_thread_ends_as_timed_out(jobs: JobRunner) -> None:
    gate = ThreadGate()

    @jobs.task(timeout=0.05, max_attempts=1)
    def count(job: JobContext) -> str:
        gate.enter()
        return "late" if job.cancelled else "in time"

    async with jobs.running():
        job = await jobs.enqueue(count)
        await gate.arrival()
        supervisor = supervisor_of(jobs)
        while not supervisor.stuck and supervisor.attempts:
            await next_round(jobs)
        gate.open()
        with pytest.raises(JobDead):
            await job.result(timeout=15)
        assert [a.outcome for a in await history(jobs, job.id)] == ["timed_out"]


async def test_C11_swallows_every_cancel_loses_its_slot_and_its_say(
    store_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobrunner.worker.supervisor.OBEY_S", 0.0)
    jobs = JobRunner(store_url, queues={"default": 1})
    gate, swallowed = Gate(), asyncio.Event()

    @jobs.task(timeout=0.02, max_attempts=1)
    async def disobey() -> str:
        while True:
            try:
                await gate.enter()
            except asyncio.CancelledError:
                swallowed.set()
            else:
                return "at last"

    @jobs.task
    async def work() -> str:
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(disobey)
        await soon(swallowed.wait())
        attempt = next(iter(supervisor_of(jobs).attempts.values()))
        task = attempt.task
        assert task is not None
        with caplog.at_level(logging.ERROR, "jobrunner"), pytest.raises(JobDead):
            await job.result(timeout=15)
        assert "has swallowed its cancel" in caplog.text
        # The only slot is free again, though the code goes on.
        assert await (await jobs.enqueue(work)).result(timeout=15) == "done"
        assert not task.done()

        gate.open()
        await soon(asyncio.wait([task]))
        await next_round(jobs)
        assert (await job.refresh()).state == "dead"
        assert [a.outcome for a in await history(jobs, job.id)] == ["timed_out"]
        assert supervisor_of(jobs)._busy == {"default": 0}
