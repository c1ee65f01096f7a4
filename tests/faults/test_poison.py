"""A job that kills its process each time ends as a dead letter, and the innocent beside it succeed."""

from pathlib import Path

import pytest

from jobrunner import JobDead, JobRunner
from tests.support.children import die_once, echo, poison, tasks
from tests.support.processes import child

MOST_DEATHS = 12


async def restarted_until_it_lives(file: Path, jobs: JobRunner, ids: list[str]) -> int:
    """Start a worker again each time it dies; return how often it died until all jobs had ended."""
    for deaths in range(MOST_DEATHS):
        async with child("work", file) as worker:
            await worker.heard("open")
            while await worker.lives(0.3):
                states = {(await jobs.get(id)).state for id in ids}
                if states <= {"succeeded", "dead"}:
                    return deaths
    pytest.fail(f"the worker still dies after {MOST_DEATHS} times")


async def test_D4_D6_poison_dies_as_lost_and_the_innocent_succeed(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)
    jobs.include(tasks)
    async with jobs.running(work=False):
        before = await jobs.enqueue_many(echo.call(f"before {n}") for n in range(30))
        bad = await jobs.enqueue(poison)
        after = await jobs.enqueue_many(echo.call(f"after {n}") for n in range(30))
        ids = [job.id for job in (*before, bad, *after)]
        deaths = await restarted_until_it_lives(tmp_db, jobs, ids)
        assert deaths == 3
        letter = await jobs.dead_letters.get(bad.id)
        assert (letter.reason, letter.attempt, letter.error_type) == ("lost", 3, "ProcessLost")
        assert [a.outcome for a in letter.history] == ["lost"] * 3
        for job in (*before, *after):
            assert (await job.result(timeout=15)).startswith(("before", "after"))
        with pytest.raises(JobDead, match="lost"):
            await bad.result(timeout=15)
        assert await jobs.dead_letters.count() == 1


async def test_D6_two_poisons_with_one_attempt_left_bury_nobody_else(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)
    jobs.include(tasks)
    async with jobs.running(work=False):
        fragile = echo.options(max_attempts=2)
        bad = [await jobs.enqueue(poison.options(max_attempts=2)) for _ in range(2)]
        good = await jobs.enqueue_many(fragile.call(str(n)) for n in range(10))
        ids = [job.id for job in (*bad, *good)]
        await restarted_until_it_lives(tmp_db, jobs, ids)
        for job in good:
            await job.result(timeout=15)
        letters = (await jobs.dead_letters.list()).items
        assert {letter.id for letter in letters} == {job.id for job in bad}
        assert {letter.reason for letter in letters} == {"lost"}


async def test_D4_attempts_of_the_dead_ones_code_count_where_nobody_knows_the_task(
    tmp_db: Path,
) -> None:
    """A job that may run once must not run again because a process without its code found it first."""
    jobs = JobRunner(tmp_db)
    jobs.include(tasks)
    async with jobs.running(work=False):
        job = await jobs.enqueue(die_once)
    async with child("work", tmp_db) as worker:
        await worker.ended()
    async with JobRunner(tmp_db).running(work=False) as stranger:
        letter = await stranger.dead_letters.get(job.id)
        assert (letter.reason, letter.attempt) == ("lost", 1)
