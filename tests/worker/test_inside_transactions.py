"""Calls inside ``job.transaction()``, which must not wait for that transaction."""

import asyncio

import pytest

from jobrunner import (
    JobContext,
    WouldDeadlock,
)
from tests.support.engine import Gate, soon
from tests.worker.site import Site, ended

pytestmark = pytest.mark.each_store


@pytest.mark.parametrize("fails", [False, True])
async def test_F14_jobs_enqueued_inside_are_part_of_the_transaction(
    site: Site, fails: bool
) -> None:
    @site.tasks.task
    async def child(word: str) -> str:
        return word

    @site.tasks.task(max_attempts=1)
    async def work(job: JobContext) -> None:
        async with job.transaction() as tx:
            await site.add(tx, "a")
            await child.enqueue("one")
            await site.jobs.enqueue(child, "two")
            await site.jobs.enqueue_many([child.call("three")])
            if fails:
                raise ValueError

    async with site.open() as jobs:
        await ended(await work.enqueue())
        children = (await jobs.list(task="child")).items
        assert len(children) == (0 if fails else 3)
        for one in children:
            await one.result(timeout=15)
        assert site.words() == ([] if fails else ["a"])


async def test_F14_jobs_enqueued_inside_a_def_task_are_part_of_the_transaction(
    blocking: Site,
) -> None:
    @blocking.tasks.task
    async def child(word: str) -> str:
        return word

    @blocking.tasks.task(max_attempts=1)
    def work(job: JobContext, *, fails: bool) -> None:
        with job.transaction() as tx:
            blocking.add_now(tx, f"{fails}")
            blocking.jobs.sync.enqueue(child, f"{fails}")
            if fails:
                raise ValueError

    async with blocking.open() as jobs:
        await ended(await work.enqueue(fails=True))
        await ended(await work.enqueue(fails=False))
        (one,) = (await jobs.list(task="child")).items
        assert await one.result(timeout=15) == "False"


@pytest.mark.parametrize("fails", [False, True])
async def test_batch_enqueued_inside_is_part_of_the_transaction(site: Site, fails: bool) -> None:
    @site.tasks.task
    async def member(n: int) -> int:
        return n

    @site.tasks.task
    async def double(n: int) -> int:
        return 2 * n

    @site.tasks.task
    async def then(job: JobContext) -> int:
        return sum([n async for n in job.batch.results(double)])

    @site.tasks.task(max_attempts=1)
    async def work(job: JobContext) -> str:
        parts = [member.call(n) for n in range(3)]
        doubled = [double.call(part.result) for part in parts]
        async with job.transaction() as tx:
            await site.add(tx, "a")
            batch = await site.jobs.enqueue_batch([*parts, *doubled], then=then.call())
            assert (batch.state, batch.total) == ("running", 6)
            if fails:
                raise ValueError
        return batch.id

    async with site.open() as jobs:
        job = await ended(await work.enqueue())
        if fails:
            assert (await jobs.batches.list()).items == []
            assert [one.task for one in (await jobs.list()).items if one.task != "work"] == []
            assert site.words() == []
            return
        batch = await jobs.batches.get(await job.result(timeout=15))
        assert await soon(batch.results()) == [0, 1, 2, 0, 2, 4]
        assert batch.then is not None
        assert await soon(batch.then.result()) == 6
        assert site.words() == ["a"]


async def test_batch_enqueued_inside_a_def_task_is_part_of_the_transaction(
    blocking: Site,
) -> None:
    @blocking.tasks.task
    async def member(n: int) -> int:
        return n

    @blocking.tasks.task(max_attempts=1)
    def work(job: JobContext, *, fails: bool) -> None:
        with job.transaction() as tx:
            blocking.add_now(tx, f"{fails}")
            calls = [member.call(n) for n in range(2)]
            blocking.jobs.sync.enqueue_batch(calls, at_end=member.call(9), name=f"{fails}")
            if fails:
                raise ValueError

    async with blocking.open() as jobs:
        await ended(await work.enqueue(fails=True))
        assert (await jobs.batches.list()).items == []
        await ended(await work.enqueue(fails=False))
        (batch,) = (await jobs.batches.list()).items
        batch = await soon(batch.wait())
        assert (batch.name, batch.state, batch.total) == ("False", "succeeded", 2)
        assert batch.at_end is not None
        assert await soon(batch.at_end.result()) == 9
        assert blocking.words() == ["False"]


async def test_batch_of_a_step_is_stored_once_over_all_attempts(site: Site) -> None:
    @site.tasks.task
    async def member(n: int) -> int:
        return n

    @site.tasks.task
    async def work(job: JobContext) -> int:
        async with job.transaction(step="fan-out") as tx:
            if tx is not None:
                await site.add(tx, "a")
                await site.jobs.enqueue_batch([member.call(n) for n in range(2)])
        if job.attempt == 1:
            raise ValueError
        return job.attempt

    async with site.open() as jobs:
        job = await ended(await work.enqueue())
        assert await job.result(timeout=15) == 2
        (batch,) = (await jobs.batches.list()).items
        assert await soon(batch.results()) == [0, 1]
        assert site.words() == ["a"]


async def test_what_would_wait_for_the_transaction_is_refused_inside(site: Site) -> None:
    refused: list[str] = []

    @site.tasks.task
    async def nothing() -> None: ...

    @site.tasks.task(max_attempts=1)
    async def work(job: JobContext, other: str) -> None:
        waiting = await site.jobs.get(other)
        batch = await site.jobs.enqueue_batch([nothing.options(delay=3600).call()])
        async with job.transaction():
            for what, wait in {
                "result": lambda: waiting.result(timeout=5),
                "cancel": lambda: site.jobs.cancel(other),
                "wait": lambda: batch.wait(timeout=5),
                "pause": lambda: site.jobs.queues.pause("default"),
                "transaction": job.transaction().__aenter__,
            }.items():
                try:
                    await wait()
                except WouldDeadlock:
                    refused.append(what)

    async with site.open() as jobs:
        other = await jobs.enqueue(nothing.options(delay=3600))
        job = await ended(await work.enqueue(other.id))
        assert job.state == "succeeded"
        assert refused == ["result", "cancel", "wait", "pause", "transaction"]


async def test_task_started_inside_is_outside_once_the_block_has_ended(site: Site) -> None:
    gate = Gate()
    later: list[asyncio.Task[str | None]] = []

    @site.tasks.task
    async def nothing() -> None: ...

    async def cancel(id: str) -> str | None:
        await gate.enter()
        return await site.jobs.cancel(id)

    @site.tasks.task
    async def work(job: JobContext, other: str) -> None:
        async with job.transaction():
            later.append(asyncio.create_task(cancel(other)))
            await gate.arrival()

    async with site.open() as jobs:
        other = await jobs.enqueue(nothing.options(delay=3600))
        await (await work.enqueue(other.id)).result(timeout=15)
        gate.open()
        assert await soon(later[0]) == "cancelled"
