"""Slots: never more attempts than a queue has, and never one left empty while jobs wait."""

import asyncio

import pytest

from jobrunner import JobRunner
from tests.support.engine import Gate, ThreadGate, next_round, soon, supervisor_of

pytestmark = pytest.mark.each_store


async def test_runs_never_more_than_slots_per_queue(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"default": 3})
    gate = Gate()

    @jobs.task
    async def wait(number: int) -> int:
        await gate.enter(number)
        return number

    async with jobs.running():
        many = await jobs.enqueue_many(wait.call(number) for number in range(20))
        for _ in range(3):
            await gate.arrival()
        await next_round(jobs)
        assert gate.inside == 3
        for _ in range(17):
            gate.let()
            await gate.arrival()
        gate.open()
        assert [await job.result(timeout=15) for job in many] == list(range(20))
    assert gate.most == 3


async def test_runs_threads_never_more_than_slots(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"default": 2})
    gate = ThreadGate()

    @jobs.task
    def wait(number: int) -> None:
        gate.enter(number)

    async with jobs.running():
        many = await jobs.enqueue_many(wait.call(number) for number in range(6))
        for _ in range(2):
            await gate.arrival()
        await next_round(jobs)
        assert gate.inside == 2
        gate.open()
        for job in many:
            await job.result(timeout=15)
    assert gate.most == 2


async def test_frees_a_slot_claims_the_next_job_at_once(store_url: str) -> None:
    """The claim is in the round that settles the first job, without a query or a poll."""
    jobs = JobRunner(store_url, queues={"default": 1})
    gate = Gate()

    @jobs.task
    async def wait(number: int) -> None:
        await gate.enter(number)

    async with jobs.running():
        await jobs.enqueue_many(wait.call(number) for number in range(3))
        for number in range(3):
            assert await gate.arrival() == number
            assert supervisor_of(jobs)._busy == {"default": 1}
            gate.let()


async def test_full_queue_holds_no_other_queue_up(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"default": 1, "mail": 2})
    slow, mail = Gate(), Gate()

    @jobs.task
    async def block(number: int) -> None:
        await slow.enter(number)

    @jobs.task(queue="mail")
    async def send(number: int) -> None:
        await mail.enter(number)

    async with jobs.running():
        blocked = await jobs.enqueue_many(block.call(number) for number in range(3))
        await slow.arrival()
        sent = await jobs.enqueue_many(send.call(number) for number in range(4))
        for _ in range(2):
            await mail.arrival()
        mail.open()
        for job in sent:
            await job.result(timeout=15)
        assert slow.inside == 1
        assert mail.most == 2
        slow.open()
        for job in blocked:
            await job.result(timeout=15)


async def test_failed_attempt_gives_its_slot_back(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"default": 1})
    ran = asyncio.Event()

    @jobs.task(max_attempts=1)
    async def fail() -> None:
        raise LookupError

    @jobs.task(max_attempts=1)
    async def succeed() -> None:
        ran.set()

    async with jobs.running():
        for _ in range(5):
            await jobs.enqueue(fail)
        await jobs.enqueue(succeed)
        await soon(ran.wait())


async def test_queue_that_is_not_served_here_keeps_its_jobs(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"default": 1, "mail": 1})

    @jobs.task(queue="mail")
    async def send() -> str:
        return "sent"

    async with jobs.running(queues=["default"]):
        job = await jobs.enqueue(send)
        await next_round(jobs)
        assert (await job.refresh()).state == "queued"
        assert "queue mail has waiting jobs and no worker serves it" in (
            (await jobs.health()).problems
        )
    async with jobs.running():
        assert await (await jobs.get(job.id, send)).result(timeout=15) == "sent"
