"""Health: whether the promises are being kept just now, and what stands in the way."""

import contextlib
import os
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest
from freezegun.api import FrozenDateTimeFactory

import jobrunner
from jobrunner import JobRunner
from tests.support.engine import Gate, make_all_due, worker_of
from tests.support.processes import child


async def test_health_of_an_idle_worker_is_ok(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db, queues={"default": 3, "mail": 5})
    async with jobs.running():
        health = await jobs.health()
        assert (health.status, health.problems, health.working, health.running) == (
            "ok",
            (),
            True,
            0,
        )
        (worker,) = health.workers
        assert (worker.pid, worker.stalled) == (os.getpid(), False)
        assert worker.queues == {"default": 3, "mail": 5}
        assert health.version == jobrunner.__version__


async def test_health_counts_what_runs_here(jobs: JobRunner) -> None:
    gate = Gate()

    @jobs.task
    async def work(number: int) -> None:
        await gate.enter(number)

    async with jobs.running():
        await jobs.enqueue_many(work.call(number) for number in range(3))
        for _ in range(3):
            await gate.arrival()
        assert (await jobs.health()).running == 3
        gate.open()


async def test_health_without_work_is_not_working_and_ok(jobs: JobRunner) -> None:
    async with jobs.running(work=False):
        health = await jobs.health()
        assert (health.status, health.working, health.workers) == ("ok", False, ())


async def test_health_names_a_queue_that_nobody_serves(jobs: JobRunner) -> None:
    @jobs.task
    async def work() -> None: ...

    async with jobs.running(work=False):
        await jobs.enqueue(work)
        health = await jobs.health()
        assert health.status == "degraded"
        assert health.problems == ("queue default has waiting jobs and no worker serves it",)


async def test_health_shows_the_workers_of_other_processes(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)
    async with jobs.running(), child("work", tmp_db) as other:
        pid = (await other.heard("open"))["pid"]
        assert {worker.pid for worker in (await jobs.health()).workers} == {os.getpid(), pid}
        other.send()
        await other.heard("closed")
        assert {worker.pid for worker in (await jobs.health()).workers} == {os.getpid()}


async def test_C9_health_names_a_worker_whose_loop_does_not_turn(
    jobs: JobRunner, frozen: FrozenDateTimeFactory
) -> None:
    async with jobs.running():
        worker = worker_of(jobs)
        await worker.do_chores()  # the first beat is over, and the next one is ten seconds away
        frozen.tick(timedelta(seconds=31))
        health = await jobs.health()
        assert health.status == "degraded"
        assert health.workers[0].stalled is True
        assert (
            f"worker {worker.id} (pid {os.getpid()}) is alive, but its loop has not turned"
            in (health.problems[0])
        )
        make_all_due(jobs)
        await worker.do_chores()
        assert (await jobs.health()).status == "ok"


def rename_column(file: Path, before: str, after: str) -> None:
    with contextlib.closing(sqlite3.connect(file)) as conn:
        conn.execute(f"ALTER TABLE jobrunner_attempts RENAME COLUMN {before} TO {after}")


async def test_health_names_a_chore_that_fails_and_forgets_it_once_it_works(
    tmp_db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = JobRunner(tmp_db, retention=0)

    @jobs.task
    async def work() -> None: ...

    async with jobs.running():
        worker = worker_of(jobs)
        await worker.do_chores()
        # Now there is something to prune, with attempts.
        await (await jobs.enqueue(work)).result(timeout=15)
        rename_column(tmp_db, "job", "aside")
        for _ in range(3):
            make_all_due(jobs)
            await worker.do_chores()
        health = await jobs.health()
        assert health.status == "degraded"
        assert "prune fails" in health.problems
        assert caplog.text.count("prune failed and is tried again") == 1
        rename_column(tmp_db, "aside", "job")
        make_all_due(jobs)
        await worker.do_chores()
        assert "prune fails" not in (await jobs.health()).problems


async def test_health_of_a_worker_whose_file_was_replaced_is_failed(
    tmp_db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def work() -> None: ...

    async with jobs.running():
        tmp_db.rename(tmp_db.with_suffix(".moved"))
        await worker_of(jobs).do_chores()
        health = await jobs.health()
        assert (health.status, health.working) == ("failed", False)
        assert "was moved or deleted while open" in health.problems[0]
        assert "this worker has stopped" in caplog.text
        with pytest.raises(jobrunner.StoreFailed, match="was moved or deleted"):
            await jobs.enqueue(work)
        tmp_db.with_suffix(".moved").rename(tmp_db)
