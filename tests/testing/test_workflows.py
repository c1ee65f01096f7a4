"""Durable steps under the tester: the clock ends waits, the test sends signals, each memo is a crash point."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from jobrunner import JobContext, JobFinished, JobRunner, TaskRouter, WaitTimedOut
from jobrunner.testing import JobTester, SyncJobTester

CLAIM = ["before the commit of the claim", "after the commit of the claim"]
END = ["before the commit of the end of the attempt", "after the commit of the end of the attempt"]


def commit(of: str) -> list[str]:
    """Return the points at a commit."""
    return [f"before the commit of {of}", f"after the commit of {of}"]


class Approval(BaseModel):
    """The content of a signal."""

    by: str


tasks = TaskRouter()
charged: list[int] = []
ended: list[str] = []


async def charge_card(order: int) -> str:
    """Charge the customer."""
    charged.append(order)
    return f"receipt {order}"


def charge_in_thread(order: int) -> str:
    """Charge the customer, in a thread."""
    charged.append(order)
    return f"receipt {order}"


@tasks.task
async def order(job: JobContext, number: int) -> str:
    """Charge, wait for an approval, and rest for three days."""
    receipt = await job.step("charge", charge_card, number)
    try:
        approval = await job.wait_for("approved", Approval, timeout=timedelta(days=2))
    except WaitTimedOut:
        return "nobody looked"
    await job.sleep(timedelta(days=3))
    return f"{receipt} by {approval.by}"


@tasks.task
async def patient(job: JobContext) -> None:
    """Wait for ever."""
    await job.wait_for("go")


@tasks.task
def in_a_thread(job: JobContext, number: int) -> str:
    """Charge in a thread."""
    try:
        return job.sync.step("charge", charge_in_thread, number)
    finally:
        ended.append(job.id)


@tasks.task
async def part(number: int) -> int:
    """Return a part."""
    return number


@tasks.task
async def whole(job: JobContext) -> int:
    """Sum the parts."""
    return sum(await job.run("parts", [part.call(number) for number in (1, 2)]))


@tasks.task
async def careless(job: JobContext, number: int) -> None:
    """Charge before the step that should have done it."""
    charged.append(number)
    await job.step("note", charge_in_thread, number)


def charge(number: int) -> None:
    """Charge a customer."""
    charged.append(number)


def numbers_after(cursor: int | None) -> Iterator[tuple[int, int]]:
    """Yield what is to be charged, each with its cursor."""
    for number in range(0 if cursor is None else cursor + 1, 5):
        yield number, number


async def numbers_on_the_loop(cursor: int | None) -> AsyncIterator[tuple[int, int]]:
    """Yield the same in a coroutine."""
    for pair in numbers_after(cursor):
        yield pair


@tasks.task
async def go_through(job: JobContext) -> None:
    """Charge five numbers, and store the cursor after each two."""
    async for number in job.iterate("numbers", numbers_on_the_loop, every=2):
        charge(number)


@tasks.task
def go_through_in_a_thread(job: JobContext) -> None:
    """Do the same in a thread."""
    for number in job.sync.iterate("numbers", numbers_after, every=2):
        charge(number)


@pytest.fixture
def jobs(jobs: JobRunner) -> JobRunner:
    """Return a runner of the tasks."""
    charged.clear()
    ended.clear()
    jobs.include(tasks)
    return jobs


async def test_travel_ends_a_sleep_and_a_time_out(jobs: JobRunner) -> None:
    async with JobTester(jobs) as t:
        late = await order.enqueue(1)
        await t.travel(days=1)
        approved = await order.enqueue(2)
        await t.run_until_idle()
        assert (await t.signal(approved, "approved", Approval(by="ann"))).state == "scheduled"
        await t.travel(days=1)
        (run,) = t.runs(order)
        assert (run.id, run.result) == (late.id, "nobody looked")
        await t.travel(days=2)
        assert (await t.finish(approved)).result == "receipt 2 by ann"
    assert charged == [1, 2]


async def test_perform_runs_through_time_outs_and_children(jobs: JobRunner) -> None:
    async with JobTester(jobs) as t:
        began = t.now
        assert (await t.perform(order, 1)).result == "nobody looked"
        assert t.now - began == timedelta(days=2)
        assert (await t.perform(whole)).result == 3


async def test_signal_runs_the_job_that_waits_and_is_kept_for_one_that_does_not_yet(
    jobs: JobRunner,
) -> None:
    async with JobTester(jobs) as t:
        waiting = await patient.enqueue()
        await t.run_until_idle()
        assert (await t.signal(waiting, "go")).state == "succeeded"
        early = await patient.options(delay=60).enqueue()
        assert (await t.signal(early.id, "go")).state == "scheduled"
        with pytest.raises(AssertionError, match="has a signal 'go' already"):
            await t.signal(early, "go")
        assert (await t.finish(early)).state == "succeeded"
        with pytest.raises(JobFinished):
            await t.signal(early, "go")
        with pytest.raises(LookupError, match="have no job"):
            await t.signal("00000000-0000-7000-8000-000000000000", "go")


async def test_job_that_waits_for_a_signal_names_the_line_to_write(jobs: JobRunner) -> None:
    async with JobTester(jobs) as t:
        with pytest.raises(AssertionError, match=r"write t\.signal\(job, name\)"):
            await t.perform(patient)


def test_blocking_tester_sends_signals_too(jobs: JobRunner) -> None:
    with SyncJobTester(jobs) as t:
        job = jobs.sync.enqueue(patient)
        t.run_until_idle()
        assert t.signal(job, "go").state == "succeeded"


async def points(t: JobTester, task: Any, *args: Any) -> list[str]:
    """Return the crash points of a task that succeeds after each of them."""
    found = []
    async for crash in t.crash_points(task, *args, setup=charged.clear):
        assert [run.state for run in t.runs(task)] == ["succeeded"], crash
        found.append(crash.at)
    return found


async def test_each_step_and_each_wait_is_a_point(jobs: JobRunner) -> None:
    async with JobTester(jobs) as t:
        assert await points(t, order, 7) == [
            *CLAIM,
            *commit("the step 'charge'"),
            *commit("the wait for 'approved'"),
            *CLAIM,
            *commit("the time-out of 'approved'"),
            *END,
        ]
        # The round that ends the last child claims the job.
        claim = [CLAIM[1]]
        assert await points(t, whole) == [*CLAIM, *commit("the children 'parts'"), *claim, *END]


async def test_effect_of_a_step_is_repeated_only_before_its_memo(jobs: JobRunner) -> None:
    effects = {}
    async with JobTester(jobs) as t:
        async for crash in t.crash_points(order, 7, setup=charged.clear):
            effects[crash.number] = len(charged)
    assert [number for number, count in effects.items() if count > 1] == [3]


async def test_effect_outside_of_a_step_is_found(jobs: JobRunner) -> None:
    async with JobTester(jobs) as t:
        crashes = t.crash_points(careless, 7, setup=charged.clear)
        repeated = [crash.at async for crash in crashes if len(charged) > 2]
    assert repeated == [*commit("the step 'note'"), END[0]]


async def test_step_in_a_thread_is_a_point_without_any_further_line(jobs: JobRunner) -> None:
    async with JobTester(jobs) as t:
        found = []
        async for crash in t.crash_points(in_a_thread, 7, setup=ended.clear):
            # Once by the second worker, and before it only by an attempt that had reached its end.
            assert len(ended) == (2 if crash.at == END[0] else 1), crash
            found.append(crash.at)
    assert found == CLAIM + commit("the step 'charge'") + END


@pytest.mark.parametrize("task", [go_through, go_through_in_a_thread], ids=["loop", "thread"])
async def test_each_cursor_is_a_point_and_only_what_follows_the_last_one_is_repeated(
    jobs: JobRunner, task: Any
) -> None:
    found, repeated = [], []
    async with JobTester(jobs) as t:
        async for crash in t.crash_points(task, setup=charged.clear):
            assert [run.state for run in t.runs(task)] == ["succeeded"], crash
            assert set(charged) == {0, 1, 2, 3, 4}, crash
            found.append(crash.at)
            repeated.append(sorted(number for number in {*charged} if charged.count(number) > 1))
    assert found == CLAIM + 3 * commit("the cursor of 'numbers'") + END
    assert repeated == [[], [], [0, 1], [], [2, 3], [], [4], [], [], []]
