"""Jobs whose task nobody knows (any more), or whose arguments no longer fit."""

import logging
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from freezegun.api import FrozenDateTimeFactory

from jobrunner import InvalidArguments, Job, JobDead, JobRunner, UnknownTask
from jobrunner.core.clock import utcnow
from jobrunner.core.counts import ReplayCounts
from jobrunner.core.logs import WHOLE, repeats
from jobrunner.store.sqlite.sql import workers
from tests.support.engine import next_round, worker_of
from tests.support.factories import worker_row


async def stored_by_an_older_version(file: Path, *, args: int = 7) -> Job[None]:
    old = JobRunner(file)

    @old.task
    async def send(number: int) -> None: ...

    async with old.running(work=False):
        return await old.enqueue(send.options(key="k", tag="t"), args)


async def test_D16_job_of_an_unknown_task_stays_waiting_and_is_shown(
    tmp_db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = await stored_by_an_older_version(tmp_db)
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def other() -> str:
        return "done"

    async with jobs.running():
        # It does not stand in the way of what comes after it.
        assert await (await jobs.enqueue(other)).result(timeout=15) == "done"
        with caplog.at_level(logging.WARNING, "jobrunner"):
            for _ in range(3):
                await worker_of(jobs).maintenance.unknown_tasks.check()
        assert (await jobs.get(stored.id)).state == "queued"
        health = await jobs.health()
        assert health.status == "degraded"
        assert health.unknown_tasks == {"send": stored.run_at}
        assert "no worker knows task send" in health.problems
        (queue,) = (await jobs.queues.list()).items
        assert queue.queued == 1
    told = [r.message for r in caplog.records if "no worker knows it" in r.message]
    assert len(told) == 1
    assert "jobs of task 'send' wait in queue 'default'" in told[0]
    assert "@jobs.task(aliases=['send'])" in told[0]


async def test_D16_job_of_an_unknown_task_runs_once_somebody_knows_it(tmp_db: Path) -> None:
    stored = await stored_by_an_older_version(tmp_db)
    without = JobRunner(tmp_db)
    async with without.running():
        await worker_of(without).maintenance.unknown_tasks.check()
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def send(number: int) -> int:
        return number + 1

    async with jobs.running():
        assert await (await jobs.get(stored.id, send)).result(timeout=15) == 8
        await worker_of(jobs).maintenance.unknown_tasks.check()
        assert (await jobs.health()).unknown_tasks == {}


async def test_D16_job_of_a_renamed_task_runs_by_its_alias(tmp_db: Path) -> None:
    stored = await stored_by_an_older_version(tmp_db)
    jobs = JobRunner(tmp_db)

    @jobs.task(aliases=["send"])
    async def deliver(number: int) -> int:
        return number + 2

    async with jobs.running():
        job = await jobs.get(stored.id, deliver)
        assert await job.result(timeout=15) == 9
        assert job.task == "send"


async def test_D16_task_that_another_live_worker_knows_is_not_unknown(tmp_db: Path) -> None:
    """A rolling deploy: the new version's jobs wait for the new version's workers."""
    stored = await stored_by_an_older_version(tmp_db)
    with closing(sqlite3.connect(tmp_db)) as conn, conn:
        workers.join(conn, worker_row(tasks={"send": None}))
    jobs = JobRunner(tmp_db, unknown_task_after=0)
    async with jobs.running():
        await worker_of(jobs).maintenance.unknown_tasks.check()
        assert (await jobs.health()).unknown_tasks == {}
        assert (await jobs.get(stored.id)).state == "queued"


async def test_D17_job_of_a_task_gone_for_good_becomes_a_dead_letter_and_can_be_replayed(
    tmp_db: Path, frozen: FrozenDateTimeFactory
) -> None:
    stored = await stored_by_an_older_version(tmp_db)
    jobs = JobRunner(tmp_db, unknown_task_after=timedelta(days=7))
    async with jobs.running():
        frozen.tick(timedelta(days=7))
        await worker_of(jobs).maintenance.unknown_tasks.check()
        assert (await jobs.get(stored.id)).state == "queued"
        frozen.tick(1)
        await worker_of(jobs).maintenance.unknown_tasks.check()
        letter = await jobs.dead_letters.get(stored.id)
        assert (letter.reason, letter.args, letter.attempt) == ("unknown_task", {"number": 7}, 0)
        assert letter.error == "no worker knows the task 'send'"
        assert letter.died_at == utcnow()
        with pytest.raises(UnknownTask, match=rf"{stored.id} is of task send"):
            await jobs.dead_letters.replay(stored.id)

    again = JobRunner(tmp_db)

    @again.task
    async def send(number: int) -> int:
        return number + 1

    async with again.running():
        await again.dead_letters.replay(stored.id)
        assert await (await again.get(stored.id, send)).result(timeout=15) == 8


async def test_D17_more_jobs_than_a_slice_are_all_buried(
    tmp_db: Path, frozen: FrozenDateTimeFactory
) -> None:
    old = JobRunner(tmp_db)

    @old.task
    async def gone(number: int) -> None: ...

    async with old.running(work=False):
        await old.enqueue_many(gone.call(number) for number in range(1200))
    frozen.tick(timedelta(days=8))
    jobs = JobRunner(tmp_db)
    async with jobs.running():
        await worker_of(jobs).maintenance.unknown_tasks.check()
        assert await jobs.dead_letters.count(reason="unknown_task") == 1200


async def test_D18_arguments_that_no_longer_fit_are_a_dead_letter_with_the_payload_intact(
    tmp_db: Path,
) -> None:
    stored = await stored_by_an_older_version(tmp_db)
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def send(number: int, to: str) -> str:
        return f"{number} to {to}"

    async with jobs.running():
        with pytest.raises(JobDead, match="invalid_args"):
            await (await jobs.get(stored.id)).result(timeout=15)
        letter = await jobs.dead_letters.get(stored.id)
        assert (letter.reason, letter.args, letter.attempt) == ("invalid_args", {"number": 7}, 1)
        assert letter.error == "send: missing: to"
        assert [a.outcome for a in letter.history] == ["failed"]

        # As it is it stays; with what is missing it runs, as a new job that names the old one.
        with pytest.raises(InvalidArguments, match=r"send: missing: to; the dead letter stays"):
            await jobs.dead_letters.replay(stored.id)
        assert await jobs.dead_letters.get(stored.id) == letter
        with pytest.raises(InvalidArguments, match="to"):
            await jobs.dead_letters.replay(stored.id, args={"to": 5})
        edited = await jobs.dead_letters.replay(stored.id, args={"to": "ada"})
        assert await edited.result(timeout=15) == "7 to ada"
        assert (edited.id != stored.id, edited.created) == (True, True)
        assert (await edited.refresh()).replay_of == stored.id
        assert (await jobs.dead_letters.get(stored.id)).replayed_as == edited.id


async def test_unknown_task_does_not_fill_the_slots_of_known_ones(tmp_db: Path) -> None:
    old = JobRunner(tmp_db)

    @old.task(priority=100)
    async def gone(number: int) -> None: ...

    async with old.running(work=False):
        await old.enqueue_many(gone.call(number) for number in range(500))

    jobs = JobRunner(tmp_db, queues={"default": 1})

    @jobs.task
    async def work(number: int) -> int:
        return number

    async with jobs.running():
        many = await jobs.enqueue_many(work.call(number) for number in range(10))
        assert [await job.result(timeout=15) for job in many] == list(range(10))
        await next_round(jobs)
        assert (await jobs.queues.list()).items[0].queued == 500


async def test_replay_all_leaves_dead_letters_of_unknown_tasks_where_they_are(
    tmp_db: Path,
) -> None:
    old = JobRunner(tmp_db)

    @old.task(max_attempts=1)
    async def gone() -> None:
        raise ValueError("no")

    async with old.running():
        with pytest.raises(JobDead):
            await (await old.enqueue(gone)).result(timeout=15)

    async with JobRunner(tmp_db).running(work=False) as jobs:
        assert await jobs.dead_letters.replay_all() == ReplayCounts(0, 0)
        assert await jobs.dead_letters.replay_all(dry_run=True) == ReplayCounts(0, 0)
        assert await jobs.dead_letters.count() == 1


@pytest.mark.slow
async def test_many_unknown_tasks_are_one_line_and_one_problem(
    tmp_db: Path, caplog: pytest.LogCaptureFixture, frozen: FrozenDateTimeFactory
) -> None:
    old = JobRunner(tmp_db)
    made = [old.task(name=f"old_{number:03}")(_nothing) for number in range(500)]
    async with old.running(work=False):
        await old.enqueue_many([task.call() for task in made])
    jobs = JobRunner(tmp_db, unknown_task_after=timedelta(hours=1))
    jobs.task(_nothing)
    async with jobs.running():
        with caplog.at_level(logging.INFO, "jobrunner"):
            await worker_of(jobs).maintenance.unknown_tasks.check()
            await worker_of(jobs).maintenance.unknown_tasks.check()
        told = [record.getMessage() for record in caplog.records if "wait" in record.getMessage()]
        assert len(told) == 1
        assert told[0].startswith("jobs of 500 tasks that no worker knows wait: old_0")
        assert " and 490 more: register them" in told[0]
        health = await jobs.health()
        assert len(health.unknown_tasks) == 500
        (problem,) = (one for one in health.problems if "no worker knows" in one)
        assert problem.startswith("no worker knows 500 tasks: old_0")
        assert problem.endswith(" and 490 more")

        caplog.clear()
        frozen.tick(3601)
        with caplog.at_level(logging.INFO, "jobrunner"):
            await worker_of(jobs).maintenance.unknown_tasks.check()
            repeats.end()
        assert await jobs.dead_letters.count(reason="unknown_task") == 500
        told = [record.getMessage() for record in caplog.records if "unknown_task" in record.msg]
        assert len(told) == WHOLE + 1
        assert "490 more like this" in told[-1]


async def _nothing() -> None:
    pass
