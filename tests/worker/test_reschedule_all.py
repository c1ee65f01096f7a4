"""Rescheduling by a filter on an open runner: what is due starts, here and elsewhere, and a call may be broken off."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobrunner import InvalidOptions, JobRunner, RescheduleCounts
from jobrunner.queue import slices
from tests.support.children import hold, tasks
from tests.support.engine import Gate, soon, store_of
from tests.support.processes import child

pytestmark = pytest.mark.each_store


@pytest.fixture
def jobs(store_url: str) -> JobRunner:
    return JobRunner(store_url, queues={"default": 9})


@pytest.mark.usefixtures("no_poll")
async def test_reschedule_all_starts_what_matches_and_leaves_the_rest(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "CHANGED_PER_SLICE", 2)
    gate = Gate()

    @jobs.task
    async def wait(number: int) -> None:
        await gate.enter(number)

    async with jobs.running():
        later = wait.options(tag="t", delay=3600)
        stored = [await jobs.enqueue(later, number) for number in range(3)]
        other = await jobs.enqueue(wait.options(delay=3600), 3)
        assert await jobs.reschedule_all(0, tag="t", dry_run=True) == RescheduleCounts(3)
        assert {(await job.refresh()).state for job in stored} == {"scheduled"}
        sizes: list[int] = []
        done = await jobs.reschedule_all(0, task=wait, tag="t", on_slice=sizes.append)
        assert (done, sizes) == (RescheduleCounts(3), [2, 1])
        assert {await gate.arrival() for _ in stored} == {0, 1, 2}
        gate.open()
        assert (await other.refresh()).state == "scheduled"


async def test_reschedule_all_makes_another_process_start_the_jobs(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"default": 2})
    jobs.include(tasks)
    async with jobs.running(work=False), child("work", store_url) as other:
        await other.heard("open")
        await jobs.enqueue(hold.options(delay=3600), "a")
        assert await jobs.reschedule_all(timedelta(0), task=hold) == RescheduleCounts(1)
        await other.heard("held")


async def test_call_that_is_broken_off_leaves_the_rest_and_can_be_made_again(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "CHANGED_PER_SLICE", 2)

    @jobs.task
    async def work() -> None: ...

    async with jobs.running(work=False):
        await jobs.enqueue_many(work.options(delay=3600).call() for _ in range(5))
        store = store_of(jobs)
        reschedule_all, second = store.jobs.reschedule_all, asyncio.Event()
        calls = 0

        async def slowly(*args: Any, **words: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2:
                second.set()
                await asyncio.Event().wait()
            return await reschedule_all(*args, **words)

        store.jobs.reschedule_all = slowly  # type: ignore[method-assign]
        changing = asyncio.ensure_future(jobs.reschedule_all(0))
        await soon(second.wait())
        changing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await changing
        assert len((await jobs.list(state="queued")).items) == 2
        assert await jobs.reschedule_all(0, state="scheduled") == RescheduleCounts(3)


async def test_two_calls_at_once_move_each_job_and_break_nothing(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "CHANGED_PER_SLICE", 3)

    @jobs.task
    async def work() -> None: ...

    at = datetime(2100, 1, 1, tzinfo=UTC)
    async with jobs.running(work=False):
        await jobs.enqueue_many(work.options(delay=3600).call() for _ in range(20))
        calls = (jobs.reschedule_all(run_at=at), jobs.reschedule_all(run_at=at, queue="default"))
        assert [one.rescheduled for one in await asyncio.gather(*calls)] == [20, 20]
        assert {job.run_at for job in (await jobs.list()).items} == {at}


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ({}, r"write reschedule_all\(3600\), or reschedule_all\(run_at=...\)"),
        ({"delay": 1, "run_at": datetime(2100, 1, 1, tzinfo=UTC)}, "is a delay or a run_at"),
        ({"delay": 0, "state": "running"}, "none of scheduled, queued, retrying"),
        ({"run_at": datetime(2100, 1, 1)}, "run_at"),  # noqa: DTZ001 - the naive one is the subject
    ],
)
async def test_reschedule_all_refuses_what_has_no_meaning(
    jobs: JobRunner, words: dict[str, Any], hint: str
) -> None:
    async with jobs.running(work=False):
        with pytest.raises(InvalidOptions, match=hint):
            await jobs.reschedule_all(**words)
        with pytest.raises(TypeError, match="reschedule_all\\(\\) has no filter 'reason'"):
            await jobs.reschedule_all(0, reason="lost")  # type: ignore[call-arg]
