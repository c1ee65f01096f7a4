"""Chains in an open runner: one after another, retries included, in whichever process each of them runs."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from freezegun.api import FrozenDateTimeFactory
from tenacity import wait_none

from jobrunner import (
    InvalidOptions,
    Job,
    JobCancelled,
    JobDead,
    JobExpired,
    JobRunner,
    Retry,
)
from tests.support.children import echo, tasks
from tests.support.engine import Gate, next_round, soon, worker_of
from tests.support.processes import child

pytestmark = pytest.mark.each_store


async def states(jobs: list[Job[Any]]) -> list[str]:
    """Return the states of jobs as they are now."""
    return [(await job.refresh()).state for job in jobs]


@pytest.mark.usefixtures("no_poll")
async def test_chain_runs_in_order_one_at_a_time_retries_included(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"default": 20})
    ran: list[tuple[str, int]] = []
    inside = 0

    @jobs.task(max_attempts=3, wait=wait_none())
    async def step(name: str, fails: int = 0) -> str:
        nonlocal inside
        inside += 1
        assert inside == 1, "two of one chain at once"
        attempt = sum(one == name for one, _ in ran) + 1
        ran.append((name, attempt))
        await asyncio.sleep(0)  # noqa: TID251 - room for another one
        inside -= 1
        if attempt <= fails:
            raise ValueError(name)
        return name

    async with jobs.running():
        await next_round(jobs)
        chain = await jobs.enqueue_chain([step.call("a"), step.call("b", 2), step.call("c")])
        assert [job.state for job in chain] == ["queued", "blocked", "blocked"]
        assert await chain[2].result(timeout=15) == "c"
        assert ran == [("a", 1), ("b", 1), ("b", 2), ("b", 3), ("c", 1)]
        assert await states(chain) == ["succeeded"] * 3


async def test_chain_tells_its_place_in_each_job(jobs: JobRunner) -> None:
    @jobs.task(max_attempts=1)
    async def step(fails: bool = False) -> None:
        if fails:
            raise ValueError

    async with jobs.running():
        chain = await jobs.enqueue_chain([step.call(), step.call(True), step.call()])
        first = chain[0].id
        places = [(first, None), (first, first), (first, chain[1].id)]
        assert [(job.chain, job.after) for job in chain] == places
        await chain[2].result(timeout=15)
        assert [(j.chain, j.after) for j in [await job.refresh() for job in chain]] == places
        letter = await jobs.dead_letters.get(chain[1].id)
        assert (letter.chain, letter.after) == places[1]
        edited = await jobs.dead_letters.replay(chain[1].id, args={"fails": False})
        assert (edited.chain, edited.after) == places[1]
        await edited.result(timeout=15)
        (alone,) = await jobs.enqueue_chain([step.call()])
        assert (alone.chain, alone.after, alone.state) == (None, None, "queued")


@pytest.mark.usefixtures("no_poll")
async def test_chain_goes_on_after_a_dead_letter_whose_replay_touches_nobody(
    jobs: JobRunner,
) -> None:
    gate = Gate()
    ran: list[str] = []
    broken = True

    @jobs.task(max_attempts=1)
    async def step(name: str) -> None:
        ran.append(name)
        if name == "a" and broken:
            raise ValueError(name)
        if name == "b":
            await gate.enter()

    async with jobs.running():
        await next_round(jobs)
        chain = await jobs.enqueue_chain(step.call(name) for name in "abc")
        with pytest.raises(JobDead):
            await chain[0].result(timeout=15)
        await gate.arrival()
        broken = False
        again = await jobs.dead_letters.replay(chain[0].id)
        assert (again, again.created) == (chain[0], False)
        await again.result(timeout=15)
        assert await states(chain) == ["succeeded", "running", "blocked"]
        gate.open()
        await chain[2].result(timeout=15)
        assert ran == ["a", "b", "a", "c"]


async def test_cancel_of_a_blocked_job_cancels_those_behind_it(jobs: JobRunner) -> None:
    gate = Gate()

    @jobs.task
    async def step(name: str) -> str:
        await gate.enter(name)
        return name

    async with jobs.running():
        chain = await jobs.enqueue_chain(step.call(name) for name in "abcd")
        assert await gate.arrival() == "a"
        assert await jobs.cancel(chain[2].id)
        assert await states(chain) == ["running", "blocked", "cancelled", "cancelled"]
        for job in chain[2:]:
            with pytest.raises(JobCancelled):
                await job.result(timeout=15)
        assert await jobs.cancel(chain[3].id) is None
        gate.open()
        assert await chain[1].result(timeout=15) == "b"
        assert gate.arrivals == ["a", "b"]


async def test_cancel_of_the_running_job_cancels_the_rest(jobs: JobRunner) -> None:
    gate = Gate()

    @jobs.task
    async def step(name: str) -> None:
        await gate.enter(name)

    async with jobs.running():
        chain = await jobs.enqueue_chain(step.call(name) for name in "abc")
        await gate.arrival()
        assert await jobs.cancel(chain[0].id)
        for job in chain:
            with pytest.raises(JobCancelled):
                await job.result(timeout=15)
        assert gate.arrivals == ["a"]


async def test_expiry_of_a_job_cancels_those_behind_it(
    jobs: JobRunner, frozen: FrozenDateTimeFactory
) -> None:
    @jobs.task
    async def step() -> None: ...

    async with jobs.running():
        soon_over = step.options(delay=60, expires=60)
        chain = await jobs.enqueue_chain([soon_over.call(), step.call(), step.call()])
        frozen.tick(timedelta(seconds=121))
        await next_round(jobs)
        assert await states(chain) == ["expired", "cancelled", "cancelled"]
        with pytest.raises(JobExpired):
            await chain[0].result(timeout=15)


async def test_next_job_with_a_delay_of_its_own_waits_for_both(
    jobs: JobRunner, frozen: FrozenDateTimeFactory
) -> None:
    @jobs.task
    async def step(name: str) -> str:
        return name

    async with jobs.running():
        later = step.options(delay=60)
        chain = await jobs.enqueue_chain([step.call("a"), later.call("b"), step.call("c")])
        await chain[0].result(timeout=15)
        assert await states(chain) == ["succeeded", "scheduled", "blocked"]
        frozen.tick(timedelta(seconds=61))
        await next_round(jobs)
        assert await chain[2].result(timeout=15) == "c"


@pytest.mark.usefixtures("no_poll")
async def test_next_job_with_a_short_delay_left_is_woken_for(jobs: JobRunner) -> None:
    @jobs.task
    async def step() -> str:
        return "done"

    async with jobs.running():
        await next_round(jobs)
        first, second = await jobs.enqueue_chain(
            [step.call(), step.options(delay=timedelta(milliseconds=300)).call()]
        )
        await first.result(timeout=15)
        assert await second.result(timeout=15) == "done"


async def test_key_that_is_taken_leaves_its_call_out_of_the_chain(jobs: JobRunner) -> None:
    @jobs.task
    async def step(name: str) -> str:
        return name

    async with jobs.running(work=False):
        holder = await jobs.enqueue(step.options(key="k", delay=3600), "old")
        chain = await jobs.enqueue_chain(
            [step.call("a"), step.options(key="k").call("b"), step.call("c")]
        )
        assert [job.created for job in chain] == [True, False, True]
        assert chain[1].id == holder.id
        assert (chain[1].chain, chain[1].after) == (None, None)
        assert (chain[2].chain, chain[2].after) == (chain[0].id, chain[0].id)


async def test_enqueue_chain_refuses_what_it_cannot_store_and_stores_nothing(
    jobs: JobRunner,
) -> None:
    @jobs.task
    async def step(number: int = 0) -> None: ...

    async with jobs.running(work=False):
        assert await jobs.enqueue_chain([]) == []
        with pytest.raises(InvalidOptions, match=r"write enqueue_chain\(\[task\.call\("):
            await jobs.enqueue_chain([step.call(), step])  # type: ignore[arg-type]
        with pytest.raises(InvalidOptions, match=r"10,000 jobs at most, not 10,001"):
            await jobs.enqueue_chain([step.call()] * 10_001)
        assert (await jobs.list()).items == []


async def test_retry_of_the_first_holds_the_rest_back(
    jobs: JobRunner, frozen: FrozenDateTimeFactory
) -> None:
    failed = asyncio.Event()

    @jobs.task
    async def step(name: str) -> str:
        if name == "a" and not failed.is_set():
            failed.set()
            raise Retry(60)
        return name

    async with jobs.running():
        chain = await jobs.enqueue_chain([step.call("a"), step.call("b")])
        await soon(failed.wait())
        await next_round(jobs)
        assert await states(chain) == ["scheduled", "blocked"]
        queues = {queue.name: queue for queue in (await jobs.queues.list()).items}
        assert (queues["default"].scheduled, queues["default"].blocked) == (1, 1)
        assert (await jobs.health()).status == "ok"
        frozen.tick(timedelta(seconds=61))
        await next_round(jobs)
        assert await chain[1].result(timeout=15) == "b"


async def test_chain_goes_from_one_process_to_another_and_back(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"default": 5, "side": 5})
    jobs.include(tasks)

    @jobs.task(queue="side")
    async def first() -> None: ...

    async with child("work", store_url) as other:
        await other.heard("open")
        async with jobs.running(queues=["side"]):
            for _ in range(3):
                chain = await jobs.enqueue_chain([first.call(), echo.call("b"), first.call()])
                assert await chain[1].result(timeout=15) == "b"
                await chain[2].result(timeout=15)


@pytest.mark.usefixtures("no_poll")
async def test_burial_of_a_job_that_nobody_knows_wakes_for_the_next_one(
    store_url: str, frozen: FrozenDateTimeFactory
) -> None:
    old = JobRunner(store_url)

    @old.task
    async def gone() -> None: ...

    @old.task
    async def kept() -> str:
        return "old"

    async with old.running(work=False):
        chain = await old.enqueue_chain([gone.call(), kept.call()])
    jobs = JobRunner(store_url)

    @jobs.task(name="kept")
    async def kept_on() -> str:
        return "new"

    async with jobs.running():
        await next_round(jobs)
        frozen.tick(timedelta(days=8))
        await worker_of(jobs).maintenance.unknown_tasks.check()
        assert await (await jobs.get(chain[1].id, kept_on)).result(timeout=15) == "new"
        assert (await jobs.get(chain[0].id)).state == "dead"


def test_chain_from_a_thread_runs_in_order(jobs: JobRunner) -> None:
    ran: list[str] = []

    @jobs.task
    async def step(name: str) -> str:
        ran.append(name)
        return name

    with jobs.sync.running():
        chain = jobs.sync.enqueue_chain([step.call("a"), step.call("b")])
        assert jobs.sync.run(chain[1].result(timeout=15)) == "b"
    assert ran == ["a", "b"]


@pytest.mark.usefixtures("no_poll")
@pytest.mark.parametrize("blocking", [False, True])
async def test_dead_letter_ends_a_chain_that_asks_for_it(jobs: JobRunner, blocking: bool) -> None:
    @jobs.task(max_attempts=1)
    async def step(name: str) -> str:
        if name == "bad":
            raise ValueError(name)
        return name

    calls = [step.call("bad"), step.call("b"), step.call("c")]
    async with jobs.running():
        if blocking:
            chain = await asyncio.to_thread(jobs.sync.enqueue_chain, calls, on_dead="cancel")
        else:
            chain = await jobs.enqueue_chain(calls, on_dead="cancel")
        with pytest.raises(JobCancelled):
            await chain[2].result(timeout=15)
        assert await states(chain) == ["dead", "cancelled", "cancelled"]
        goes_on = await jobs.enqueue_chain(calls, on_dead="continue")
        assert await goes_on[2].result(timeout=15) == "c"


async def test_chain_refuses_another_effect_of_a_dead_letter(jobs: JobRunner) -> None:
    @jobs.task
    async def step() -> None: ...

    async with jobs.running():
        with pytest.raises(InvalidOptions, match='"continue" or "cancel"'):
            await jobs.enqueue_chain([step.call(), step.call()], on_dead="stop")  # type: ignore[arg-type]
