"""The wall clock is set while jobs wait and run."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from freezegun.api import FrozenDateTimeFactory
from tenacity import wait_fixed

from jobrunner import JobRunner
from jobrunner.core.clock import utcnow
from tests.support.engine import (
    Gate,
    Heard,
    history,
    next_round,
    soon,
    supervisor_of,
    worker_of,
)

HOUR = timedelta(hours=1)


def a_runner(file: Path) -> tuple[JobRunner, Gate]:
    jobs = JobRunner(file, queues={"default": 5})
    gate = Gate()

    @jobs.task
    async def wait(name: str) -> str:
        await gate.enter(name)
        return name

    @jobs.task
    async def work(name: str) -> str:
        return name

    return jobs, gate


async def test_E1_clock_set_an_hour_forward_runs_what_is_due_and_harms_nothing_else(
    tmp_db: Path, frozen: FrozenDateTimeFactory, caplog: pytest.LogCaptureFixture
) -> None:
    jobs, gate = a_runner(tmp_db)
    wait, work = jobs.tasks["wait"], jobs.tasks["work"]
    async with jobs.running():
        worker = worker_of(jobs)
        await worker.do_chores()
        running = await jobs.enqueue(wait.options(timeout=60), "running")
        await gate.arrival()
        due_inside = await jobs.enqueue(work.options(delay=1800), "due")
        due_after = await jobs.enqueue(work.options(delay=7200), "later")
        lasting = await jobs.enqueue(work.options(delay=3000, expires=3600), "lasting")

        frozen.tick(HOUR)
        await worker.do_chores()
        assert await due_inside.result(timeout=15) == "due"
        assert await lasting.result(timeout=15) == "lasting"
        assert (await due_after.refresh()).state == "scheduled"
        # The attempt's timeout is measured by the loop's clock, and its lease by no clock at all.
        assert gate.inside == 1
        assert (await running.refresh()).state == "running"
        await worker.maintenance.recovery.recover(thorough=True)
        assert len((await jobs.health()).workers) == 1
        gate.open()
        assert await running.result(timeout=15) == "running"
        (attempt,) = await history(jobs, running.id)
        assert attempt.outcome == "succeeded"
        assert attempt.finished_at == attempt.started_at + HOUR
    (step,) = re.findall(r"the clock was set forward by (\S+) s", caplog.text)
    # Less what the loop's clock has gone on meanwhile.
    assert float(step) == pytest.approx(HOUR.total_seconds(), abs=30)


async def test_E2_clock_set_an_hour_back_leaves_nothing_stuck(
    tmp_db: Path, frozen: FrozenDateTimeFactory, caplog: pytest.LogCaptureFixture
) -> None:
    jobs, gate = a_runner(tmp_db)
    wait, work = jobs.tasks["wait"], jobs.tasks["work"]
    async with jobs.running():
        worker = worker_of(jobs)
        await worker.do_chores()
        running = await jobs.enqueue(wait, "running")
        await gate.arrival()
        waiting = [await jobs.enqueue(wait, str(number)) for number in range(4)]
        queued = await jobs.enqueue(work, "queued before")

        frozen.tick(-HOUR)
        await worker.do_chores()
        # What was due stays due; what is enqueued now runs now.
        new = await jobs.enqueue(work, "queued after")
        scheduled = await jobs.enqueue(work.options(delay=60), "in a minute")
        gate.open()
        for job in (running, *waiting, queued, new):
            await job.result(timeout=15)
        (attempt,) = await history(jobs, running.id)
        assert attempt.finished_at is not None
        assert attempt.finished_at < attempt.started_at
        frozen.tick(60)
        assert await scheduled.result(timeout=15) == "in a minute"
        assert (await jobs.health()).status == "ok"
    assert "the clock was set back by 36" in caplog.text


async def test_E2_clock_set_back_between_enqueue_and_its_round_starts_the_job_at_once(
    tmp_db: Path, frozen: FrozenDateTimeFactory
) -> None:
    jobs, _ = a_runner(tmp_db)
    async with jobs.running():
        enqueueing = asyncio.ensure_future(jobs.enqueue(jobs.tasks["work"], "now"))
        await asyncio.wait([enqueueing], timeout=0)
        frozen.tick(-HOUR)
        job = await soon(enqueueing)
        assert job.state == "queued"
        assert await job.result(timeout=15) == "now"


async def test_E2_clock_set_back_during_an_attempt_retries_after_the_wait_from_now(
    jobs: JobRunner, frozen: FrozenDateTimeFactory
) -> None:
    heard = Heard(jobs)
    gate = Gate()

    @jobs.task(wait=wait_fixed(30))
    async def fail_once() -> str:
        await gate.enter()
        if len(gate.arrivals) == 1:
            raise LookupError
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(fail_once)
        await gate.arrival()
        frozen.tick(-HOUR)
        gate.open()
        retry = await soon(heard.retries.get())
        # Half a minute from now, and not an hour and a half.
        assert retry.run_at == utcnow() + timedelta(seconds=30)
        frozen.tick(30)
        assert await job.result(timeout=15) == "done"


async def test_E2_clock_set_back_keeps_other_workers_alive(
    tmp_db: Path, frozen: FrozenDateTimeFactory
) -> None:
    jobs, _ = a_runner(tmp_db)
    async with jobs.running():
        # With the first beat behind it, the next one is not due for ten seconds.
        await worker_of(jobs).do_chores()
        frozen.tick(-HOUR)
        await worker_of(jobs).maintenance.recovery.recover(thorough=True)
        (worker,) = (await jobs.health()).workers
        assert worker.stalled is False
        assert worker.beat_at > utcnow()


async def test_E1_clock_set_forward_and_back_again_wakes_at_the_right_time(
    tmp_db: Path, frozen: FrozenDateTimeFactory
) -> None:
    jobs, _ = a_runner(tmp_db)
    async with jobs.running():
        job = await jobs.enqueue(jobs.tasks["work"].options(delay=5400), "later")
        frozen.tick(HOUR)
        await next_round(jobs)
        frozen.tick(-HOUR)
        await next_round(jobs)
        assert (await job.refresh()).state == "scheduled"
        frozen.tick(5400)
        assert await job.result(timeout=15) == "later"


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC),
        datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
        datetime(2200, 1, 1, tzinfo=UTC),
    ],
    ids=["E3 at boot", "past 2038", "far future"],
)
async def test_E7_clock_that_is_far_off_stores_and_runs_jobs(
    tmp_db: Path, frozen: FrozenDateTimeFactory, moment: datetime
) -> None:
    jobs, _ = a_runner(tmp_db)
    frozen.move_to(moment)
    async with jobs.running():
        now = await jobs.enqueue(jobs.tasks["work"], "now")
        assert await now.result(timeout=15) == "now"
        assert now.created_at == moment
        later = await jobs.enqueue(jobs.tasks["work"].options(delay=60), "later")
        frozen.tick(60)
        assert await later.result(timeout=15) == "later"
        assert supervisor_of(jobs).attempts == {}


async def test_E3_clock_of_1970_at_boot_and_right_later_loses_no_job(
    tmp_db: Path, frozen: FrozenDateTimeFactory
) -> None:
    jobs, _ = a_runner(tmp_db)
    frozen.move_to(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    async with jobs.running():
        job = await jobs.enqueue(jobs.tasks["work"].options(delay=3600), "early")
        kept = await jobs.enqueue(jobs.tasks["work"], "kept")
        await kept.result(timeout=15)
        frozen.move_to(datetime(2026, 1, 1, tzinfo=UTC))
        assert await job.result(timeout=15) == "early"
