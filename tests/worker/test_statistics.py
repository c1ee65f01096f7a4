"""The worker counts what ended, and its rounds write it about once a second."""

import asyncio
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends
from freezegun.api import FrozenDateTimeFactory
from tenacity import wait_fixed, wait_none

from jobrunner import Bury, Injected, JobContext, JobDead, JobRunner, Snooze, Stats
from jobrunner.core.histogram import lane_of
from jobrunner.core.model import Claimed, Ended, Outcome
from jobrunner.worker.statistics import MOST_WAITING, ROWS_PER_ROUND, Statistics
from tests.support.clocks import MOMENT
from tests.support.engine import (
    Gate,
    Heard,
    claimed,
    make_due,
    next_round,
    on_writer,
    producer_of,
    soon,
    stored,
    worker_of,
)
from tests.support.factories import MINUTE, cancelled, dead, released, retry, snoozed, succeeded
from tests.worker.site import Site


async def written(jobs: JobRunner) -> Stats:
    """See what was counted written, and return the statistics of the last hour."""
    producer_of(jobs)._statistics._period.end()
    await next_round(jobs)
    return await jobs.stats()


def numbers(found: Stats) -> tuple[int, int, int]:
    return found.total.succeeded, found.total.failed, found.total.dead


# -- counting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (succeeded, [(1, 0, 0)]),
        (retry, [(0, 1, 0)]),
        (dead, [(0, 1, 1)]),
        (snoozed, []),
        (released, []),
        (cancelled, []),
    ],
)
async def test_attempts_that_succeeded_or_failed_count_and_others_do_not(
    outcome: Callable[[Claimed], Outcome], expected: list[tuple[int, int, int]]
) -> None:
    counter = Statistics()
    counter.count([outcome(claimed())], 0)
    rows = counter.take()
    assert [(one.succeeded, one.failed, one.dead) for one in rows] == expected


async def test_time_out_counts_as_failed() -> None:
    counter = Statistics()
    timed_out = retry(claimed())._replace(ended=Ended("timed_out", 1))
    counter.count([timed_out], 0)
    (row,) = counter.take()
    assert (row.succeeded, row.failed) == (0, 1)


async def test_wait_is_from_due_to_started_and_run_from_started_to_ended() -> None:
    counter = Statistics()
    job = claimed(created_at=0, run_at=1_000, started_at=1_003, first_started_at=500)
    counter.count([succeeded(job, at=1_010)], MINUTE)
    (row,) = counter.take()
    assert row.key == (MINUTE, "default", "task")
    assert (row.wait.counts, row.run.counts) == ({lane_of(3): 1}, {lane_of(7): 1})


async def test_sums_of_waits_and_runs_are_counted_and_never_shrink() -> None:
    counter = Statistics()
    job = claimed(created_at=0, run_at=1_000, started_at=1_003, first_started_at=500)
    # The clock was set back between the due time and the start of the second one.
    early = claimed(created_at=0, run_at=1_000, started_at=900, first_started_at=500)
    counter.count([succeeded(job, at=1_010), succeeded(early, at=905)], MINUTE)
    (row,) = counter.take()
    assert row.counts == {"wait": 3, "run": 12}


async def test_commits_and_lags_are_a_row_without_a_task_beside_the_others() -> None:
    counter = Statistics()
    counter.count_commit(rows=6, took_us=1_500)
    counter.count_lag(9)
    counter.count([succeeded(claimed())], MINUTE)
    of_task, of_workers = counter.take()
    assert (of_task.task, of_workers.queue, of_workers.task) == ("task", "", "")
    assert of_workers.counts == {
        "commit:rows": 6,
        "commit:rows:3": 1,
        "commit:time": 1_500,
        "commit:time:11": 1,
        "lag": 9,
        "lag:4": 1,
    }
    assert counter.take(all_of_them=True) == ()


async def test_counters_of_the_workers_that_were_put_back_are_taken_again_with_the_others() -> None:
    counter = Statistics()
    counter.count_lag(9)
    rows = counter.take(all_of_them=True)
    counter.put_back(rows)
    counter.count_lag(9)
    (row, again) = counter.take(all_of_them=True)
    assert row.counts["lag"] + again.counts["lag"] == 18


async def test_rows_are_taken_once_a_second() -> None:
    counter = Statistics()
    counter.count([succeeded(claimed())], 0)
    assert len(counter.take()) == 1
    counter.count([succeeded(claimed())], 0)
    assert counter.take() == ()
    assert len(counter.take(all_of_them=True)) == 1
    assert counter.take(all_of_them=True) == ()


async def test_minutes_queues_and_tasks_have_rows_of_their_own() -> None:
    counter = Statistics()
    for now in (0, MINUTE - 1, MINUTE, 0):  # the clock was set back at the end
        counter.count([succeeded(claimed(task="a")), succeeded(claimed(task="b"))], now)
    counter.count([succeeded(claimed(task="a", queue="mail"))], 0)
    rows = counter.take()
    assert sum(one.succeeded for one in rows) == 9
    assert {one.key for one in rows} == {
        *((minute, "default", task) for minute in (0, MINUTE) for task in "ab"),
        (0, "mail", "a"),
    }


async def test_rows_are_taken_less_often_the_more_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 0.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now_s)
    counter = Statistics()
    outcomes = [succeeded(claimed(task=f"t{n}")) for n in range(1_000)]
    taken: list[tuple[float, int]] = []
    for more in (800, 1, 300, 0, 0, 0, 10, 0, 0, 0, 0):
        counter.count(outcomes[:more], 0)
        rows = counter.take()
        if rows:
            taken.append((now_s, len(rows)))
        now_s += 0.5
    # 500 at most, then a pause of 5 ms for each; of the 800, 300 are left for the second time.
    assert taken == [(0, 500), (2.5, 500), (5, 110)]


async def test_rows_that_were_put_back_wait_for_a_period() -> None:
    """The rounds of a full disk must not try all of them again and again."""
    counter = Statistics()
    many = ROWS_PER_ROUND + 1
    counter.count([succeeded(claimed(task=f"t{n}")) for n in range(many)], 0)
    counter.put_back(counter.take())
    assert counter.take() == ()
    assert len(counter.take(all_of_them=True)) == many


async def test_rows_that_were_put_back_are_taken_again_with_what_came_since() -> None:
    counter = Statistics()
    counter.count([succeeded(claimed())], 0)
    counter.put_back(counter.take())
    counter.count([succeeded(claimed())], 0)
    counter._period.end()
    counter.put_back(counter.take())
    (row,) = counter.take(all_of_them=True)
    assert row.succeeded == 2


async def test_rows_that_can_never_be_written_do_not_fill_the_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counter = Statistics()
    outcomes = [succeeded(claimed(task=f"t{n}")) for n in range(1_000)]
    minutes = MOST_WAITING // 1_000 + 2
    for minute in range(minutes):
        counter.count(outcomes, minute * MINUTE)
    assert len(counter._rows) <= MOST_WAITING
    assert (
        f"statistics of {minutes - 1} minute(s) could not be written and are dropped" in caplog.text
    )


# -- in a worker -------------------------------------------------------------------------------------


async def test_statistics_count_attempts_retries_and_deaths(
    tmp_db: Path, frozen: FrozenDateTimeFactory
) -> None:
    jobs = JobRunner(tmp_db)
    heard = Heard(jobs)

    @jobs.task(max_attempts=3, wait=wait_none())
    async def flaky(job: JobContext, good: int) -> None:
        if job.attempt < good:
            raise LookupError

    @jobs.task
    async def buried() -> None:
        raise Bury("no")

    @jobs.task
    async def naps(job: JobContext) -> None:
        if (await jobs.get(job.id)).history[:-1] == ():
            raise Snooze(0)

    async with jobs.running():
        await (await jobs.enqueue(flaky, 1)).result(15)
        await (await jobs.enqueue(flaky, 3)).result(15)
        with pytest.raises(JobDead):
            await (await jobs.enqueue(flaky, 9)).result(15)
        with pytest.raises(JobDead):
            await (await jobs.enqueue(buried)).result(15)
        await (await jobs.enqueue(naps)).result(15)
        found = await written(jobs)
        by_task = {one.task: one for one in (await jobs.stats(by="task")).buckets}
    assert numbers(found) == (3, 6, 2)
    counts = {task: (one.succeeded, one.failed, one.dead) for task, one in by_task.items()}
    assert counts == {"flaky": (2, 5, 1), "buried": (0, 1, 1), "naps": (1, 0, 0)}
    assert heard.dead.qsize() == 2


async def test_wait_of_a_retry_begins_when_the_retry_is_due(
    tmp_db: Path, frozen: FrozenDateTimeFactory
) -> None:
    jobs = JobRunner(tmp_db)
    heard = Heard(jobs)

    @jobs.task(max_attempts=2, wait=wait_fixed(60))
    async def fail() -> None:
        raise LookupError

    async with jobs.running():
        await jobs.enqueue(fail)
        await soon(heard.retries.get())
        frozen.tick(64)
        await next_round(jobs)
        await soon(heard.dead.get())
        found = await written(jobs)
    # The first attempt started at once, the second 4 s after it was due.
    assert numbers(found) == (0, 2, 1)
    assert found.total.wait_p50 == timedelta(0)
    assert found.total.wait_p95 is not None
    assert abs(found.total.wait_p95 - timedelta(seconds=4)) <= timedelta(seconds=0.5)


async def test_statistics_are_written_while_a_worker_idles(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def work() -> None: ...

    async with jobs.running():
        for expected in (1, 2):
            await (await jobs.enqueue(work)).result(15)
            async with asyncio.timeout(15):
                # By the rounds of the poll alone.
                while numbers(await jobs.stats()) != (expected, 0, 0):
                    pass


async def test_shutdown_writes_the_statistics_of_the_last_second(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)
    gate = Gate()

    @jobs.task
    async def work() -> None:
        await gate.enter()

    async with jobs.running():
        for _ in range(3):
            await jobs.enqueue(work)
            await gate.arrival()
        gate.open()
    async with jobs.running(work=False):
        assert numbers(await jobs.stats()) == (3, 0, 0)


async def test_clock_that_is_set_back_counts_in_the_earlier_minute(
    tmp_db: Path, frozen: FrozenDateTimeFactory
) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def work() -> None: ...

    async with jobs.running():
        await (await jobs.enqueue(work)).result(15)
        assert numbers(await written(jobs)) == (1, 0, 0)
        make_due(jobs, "statistics")
        frozen.tick(180)
        await worker_of(jobs).do_chores()  # the first minute is part of its hour
        frozen.move_to(MOMENT - timedelta(seconds=90))
        await (await jobs.enqueue(work)).result(15)
        await written(jobs)
        frozen.move_to(MOMENT)
        found = await jobs.stats()
        assert [one.succeeded for one in found.buckets if one.succeeded] == [1, 1]
        assert numbers(await jobs.stats(per="hour")) == (2, 0, 0)


async def test_chore_rolls_up_minutes_and_deletes_old_ones(
    tmp_db: Path, frozen: FrozenDateTimeFactory
) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def work() -> None: ...

    def count(conn: sqlite3.Connection) -> tuple[int, int]:
        found: tuple[int, int] = conn.execute(
            "SELECT (SELECT count(*) FROM jobrunner_minutes), (SELECT count(*) FROM jobrunner_hours)"
        ).fetchone()
        return found

    async with jobs.running():

        async def rows() -> tuple[int, int]:
            """Run the chore; return the number of minutes' rows and of hours' rows."""
            make_due(jobs, "statistics")
            await worker_of(jobs).do_chores()
            return await on_writer(jobs, count)

        await (await jobs.enqueue(work)).result(15)
        await written(jobs)
        assert await rows() == (3, 0)
        frozen.tick(60)
        assert await rows() == (3, 3)
        frozen.tick(timedelta(hours=6, minutes=1))
        assert await rows() == (0, 3)
        frozen.tick(timedelta(days=30))
        assert await rows() == (0, 0)


async def test_jobs_succeed_although_their_statistics_cannot_be_written(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def work() -> None: ...

    async with jobs.running():
        await on_writer(
            jobs,
            lambda conn: conn.execute(
                "CREATE TRIGGER refuse BEFORE INSERT ON jobrunner_minutes BEGIN SELECT raise(ABORT, 'no'); END"
            ),
        )
        for _ in range(3):
            job = await jobs.enqueue(work)
            await job.result(15)
            assert (await stored(jobs, job.id)).state == "succeeded"
            assert numbers(await written(jobs)) == (0, 0, 0)
        assert (await jobs.health()).status == "ok"
        await on_writer(jobs, lambda conn: conn.execute("DROP TRIGGER refuse"))
        assert numbers(await written(jobs)) == (3, 0, 0)


async def test_stale_outcome_is_not_counted(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)
    gate = Gate()

    @jobs.task
    async def work() -> None:
        await gate.enter()

    async with jobs.running():
        job = await jobs.enqueue(work)
        await gate.arrival()
        await on_writer(
            jobs, lambda conn: conn.execute("UPDATE jobrunner_jobs SET lease = lease + 1")
        )
        gate.open()
        await next_round(jobs)
        await next_round(jobs)
        assert numbers(await written(jobs)) == (0, 0, 0)
        assert (await stored(jobs, job.id)).state == "running"


async def test_jobs_settled_by_their_own_transactions_count(site: Site) -> None:
    @site.tasks.task
    async def in_block(job: JobContext) -> None:
        async with job.transaction() as tx:
            await site.add(tx, "block")

    session_dep = Annotated[Any, Depends(site.get_session)]

    @site.tasks.task
    async def injected(session: session_dep = Injected) -> None:
        await site.add(session, "injected")

    async with site.open() as jobs:
        await (await jobs.enqueue(in_block)).result(15)
        await (await jobs.enqueue(injected)).result(15)
        assert numbers(await written(jobs)) == (2, 0, 0)
    assert site.words() == ["block", "injected"]
