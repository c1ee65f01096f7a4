"""In which order waiting jobs start: priority, then the time they became due, then age."""

from datetime import timedelta

import pytest
from freezegun.api import FrozenDateTimeFactory

from jobrunner import JobRunner
from tests.support.engine import Gate, next_round

pytestmark = pytest.mark.each_store


async def test_starts_higher_priority_first_then_the_older(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"default": 1})
    gate = Gate()

    @jobs.task
    async def work(name: str) -> None:
        await gate.enter(name)

    @jobs.task(priority=5)
    async def urgent(name: str) -> None:
        await gate.enter(name)

    async with jobs.running():
        await jobs.enqueue(work, "first")
        await gate.arrival()
        await jobs.enqueue(work, "plain 1")
        await jobs.enqueue(work.options(priority=-1), "low")
        await jobs.enqueue(urgent, "urgent 1")
        await jobs.enqueue(work.options(priority=9), "highest")
        await jobs.enqueue(urgent, "urgent 2")
        await jobs.enqueue(work, "plain 2")
        await jobs.enqueue(urgent.options(priority=0), "plain 3")
        gate.let(8)
        last = await jobs.enqueue(work.options(priority=-32767), "last")
        gate.open()
        await last.result(timeout=15)
    assert gate.arrivals == [
        "first",
        "highest",
        "urgent 1",
        "urgent 2",
        "plain 1",
        "plain 2",
        "plain 3",
        "low",
        "last",
    ]


async def test_starts_what_became_due_earlier_first_whatever_its_age(
    store_url: str, frozen: FrozenDateTimeFactory
) -> None:
    jobs = JobRunner(store_url, queues={"default": 1})
    gate = Gate()

    @jobs.task
    async def work(name: str) -> None:
        await gate.enter(name)

    async with jobs.running():
        await jobs.enqueue(work, "first")
        await gate.arrival()
        await jobs.enqueue(work.options(delay=timedelta(minutes=3)), "due at 3")
        await jobs.enqueue(work.options(delay=timedelta(minutes=1)), "due at 1")
        frozen.tick(timedelta(minutes=2))
        await jobs.enqueue(work, "due at 2")
        frozen.tick(timedelta(minutes=2))
        await next_round(jobs)
        last = await jobs.enqueue(work, "due at 4")
        gate.open()
        await last.result(timeout=15)
    assert gate.arrivals == ["first", "due at 1", "due at 2", "due at 3", "due at 4"]


async def test_starts_many_of_one_call_in_their_order(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"default": 1})
    ran: list[int] = []

    @jobs.task
    async def work(number: int) -> None:
        ran.append(number)

    async with jobs.running():
        many = await jobs.enqueue_many(work.call(number) for number in range(100))
        await many[-1].result(timeout=15)
    assert ran == list(range(100))
