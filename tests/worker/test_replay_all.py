"""Replays by a filter on an open runner: what dies again meanwhile, and the pace over several slices."""

from datetime import timedelta
from itertools import pairwise
from typing import Annotated, Any

import pytest
from pydantic import Field

from jobrunner import Bury, InvalidOptions, Job, JobDead, JobRunner, ReplayCounts
from jobrunner.queue import dead_letters
from tests.support.engine import Heard, soon, store_of

pytestmark = pytest.mark.each_store


@pytest.fixture
def jobs(store_url: str) -> JobRunner:
    jobs = JobRunner(store_url)

    @jobs.task
    async def fail(number: int) -> None:
        raise Bury

    return jobs


async def bury(jobs: JobRunner, number: int) -> list[Job[Any]]:
    """Let jobs die, one after another."""
    stored = []
    for each in range(number):
        job = await jobs.enqueue(jobs.tasks["fail"], each)
        with pytest.raises(JobDead):
            await job.result(timeout=15)
        stored.append(job)
    return stored


async def test_job_that_dies_again_during_the_replay_is_replayed_once(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "REPLAYED_PER_SLICE", 1)
    async with jobs.running():
        stored = await bury(jobs, 3)
        heard = Heard(jobs)
        replay_all = store_of(jobs).dead_letters.replay_all

        async def and_die(*args: Any, **words: Any) -> Any:
            done = await replay_all(*args, **words)
            if done.replayed:
                jobs.dead_letters._wake()
                await soon(heard.dead.get())
            return done

        store_of(jobs).dead_letters.replay_all = and_die  # type: ignore[method-assign]
        assert await jobs.dead_letters.replay_all() == ReplayCounts(3, 0, 0, 3)
        for job in stored:
            assert (await jobs.dead_letters.get(job.id)).replays == 1


async def test_pace_goes_on_over_slices_and_is_stored(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "REPLAYED_PER_SLICE", 2)
    async with jobs.running():
        stored = await bury(jobs, 5)
    async with jobs.running(work=False):
        plan = await jobs.dead_letters.replay_all(per_minute=4, dry_run=True)
        assert await jobs.dead_letters.count() == 5
        assert await jobs.dead_letters.replay_all(per_minute=4) == plan == ReplayCounts(5, 0, 0, 5)
        replayed = [await jobs.get(job.id) for job in reversed(stored)]
    assert [job.state for job in replayed] == ["queued", *["scheduled"] * 4]
    gaps = [b.run_at - a.run_at for a, b in pairwise(replayed)]
    assert gaps == [timedelta(seconds=15)] * 4


async def test_letters_whose_arguments_do_not_fit_any_more_stay_and_are_counted(
    jobs: JobRunner, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "REPLAYED_PER_SLICE", 2)
    async with jobs.running():
        stored = await bury(jobs, 7)
    new, ran = JobRunner(store_url), []

    @new.task(name=stored[0].task)
    async def fail(number: Annotated[int, Field(multiple_of=3)]) -> None:
        ran.append(number)

    expected = ReplayCounts(3, 0, 4, 7)
    async with new.running(work=False):
        assert await new.dead_letters.replay_all(dry_run=True) == expected
        monkeypatch.setattr(dead_letters, "CHECKED_BY_PLAN", 3)
        plan = await new.dead_letters.replay_all(dry_run=True)
        assert plan == ReplayCounts(5, 0, 2, 3)
        assert (plan.partly_checked, expected.partly_checked) == (True, False)
        assert await new.dead_letters.count() == 7
    async with new.running():
        handled: list[int] = []
        assert await new.dead_letters.replay_all(on_slice=handled.append) == expected
        assert sum(handled) == 3
        for job in stored[::3]:
            await (await new.get(job.id)).result(timeout=15)
        assert sorted(ran) == [0, 3, 6]
        left = {letter.id for letter in (await new.dead_letters.list()).items}
        assert left == {job.id for number, job in enumerate(stored) if number % 3}


@pytest.mark.parametrize("per_minute", [0, -1, 1.5, True, "5", 60_000_001])
async def test_pace_that_is_no_number_is_refused(jobs: JobRunner, per_minute: Any) -> None:
    async with jobs.running(work=False):
        with pytest.raises(InvalidOptions, match="is not a whole number from 1 to 60,000,000"):
            await jobs.dead_letters.replay_all(per_minute=per_minute)
