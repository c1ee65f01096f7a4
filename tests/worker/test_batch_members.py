"""Members of a batch, added late and read from inside its jobs."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobrunner import (
    Batch,
    BatchEnded,
    Bury,
    InvalidOptions,
    JobContext,
    JobDead,
    JobRunner,
    JobRunnerError,
    NotRunning,
    WrongThread,
)
from tests.support.contexts import context
from tests.support.document_batches import Page, Shop
from tests.support.engine import soon


@pytest.fixture
def shop(tmp_db: Path) -> Shop:
    return Shop(tmp_db)


# late members


async def test_members_that_bring_members_end_together(shop: Shop) -> None:
    @shop.jobs.task
    async def crawl(job: JobContext, depth: int) -> int:
        if depth:
            job.batch.add(*[crawl.call(depth - 1) for _ in range(2)])
        return depth

    async with shop.jobs.running():
        batch = await shop.jobs.enqueue_batch([crawl.call(4)], then=shop.publish.call(1))
        results = await soon(batch.results())
        assert sorted(results) == sorted([4, *[3] * 2, *[2] * 4, *[1] * 8, *[0] * 16])
        assert (await batch.refresh()).total == 31
        assert batch.then is not None
        assert await soon(batch.then.result()) == "published 1"


async def test_members_added_by_an_attempt_that_fails_are_not_stored(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def extra(attempt: int) -> int:
        return attempt

    @jobs.task(max_attempts=2, wait=lambda state: 0)
    async def grow(job: JobContext) -> None:
        job.batch.add(extra.call(job.attempt))
        if job.attempt == 1:
            raise ValueError("once more")

    async with jobs.running():
        batch: Batch[Any] = await jobs.enqueue_batch([grow.call()])
        assert await soon(batch.results()) == [None, 2]


async def test_add_outside_a_batch_and_with_edges_is_refused(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)
    said: list[str] = []
    kept: list[Any] = []

    @jobs.task
    async def extra(n: int = 0) -> int:
        return n

    @jobs.task
    async def grow(job: JobContext, how: str) -> None:
        first = extra.call()
        calls: dict[str, Callable[[], object]] = {
            "no member": lambda: job.batch.add(first),
            "edges": lambda: job.batch.add(first, extra.call(first.result)),
            "many": lambda: job.batch.add(*[first] * 10_001),
            "later": lambda: kept.append(job.batch),
        }
        try:
            calls[how]()
        except JobRunnerError as error:
            said.append(f"{how}: {type(error).__name__}: {error}")

    async with jobs.running():
        await soon((await jobs.enqueue(grow, "no member")).result())
        batch: Batch[Any] = await jobs.enqueue_batch([], then=grow.call("no member"))
        assert batch.then is not None
        await soon(batch.then.result())
        for how in ("edges", "many", "later"):
            await soon((await jobs.enqueue_batch([grow.call(how)])).results())
        with pytest.raises(JobRunnerError, match="the task has returned"):
            kept[0].add(extra.call())
    assert [one.partition(" ")[0] for one in said] == ["no", "no", "edges:", "many:"]
    assert all("InvalidBatch" in one for one in said)
    assert "`await queue.enqueue_batch([...])`" in said[0]
    assert "10,000 calls of one attempt" in said[3]


async def test_batch_takes_a_graph_until_it_has_ended(shop: Shop) -> None:
    async with shop.jobs.running():
        batch: Batch[Any] = await shop.jobs.enqueue_batch([shop.wait.call(1)])
        await shop.gate.arrival()
        page = shop.resize.call(7)
        added = await batch.add([page, shop.ship.call(page.result)])
        assert [job.state for job in added] == ["queued", "blocked"]
        assert added[0].batch == batch.id
        shop.gate.open()
        assert await soon(batch.results()) == [1, Page(n=7), "7 False"]
        with pytest.raises(BatchEnded):
            await batch.add([shop.resize.call(8)])
        anything: Any = shop.resize.call(8)
        with pytest.raises(InvalidOptions, match="takes a list"):
            await batch.add(anything)


async def test_fault_7_late_add_races_the_last_end_and_is_stored_or_refused(shop: Shop) -> None:
    """Whichever comes first: a member that was acknowledged is waited for."""
    stored = refused = 0
    async with shop.jobs.running():
        for turns in range(-15, 16):
            batch: Batch[Any] = await shop.jobs.enqueue_batch([shop.wait.call(1)])
            await shop.gate.arrival()
            if turns < 0:
                shop.gate.let()
            for _ in range(-turns):
                await asyncio.sleep(0)  # noqa: TID251 - turns of the loop between the two
            adding = asyncio.ensure_future(batch.add([shop.nothing.call()]))
            for _ in range(turns):
                await asyncio.sleep(0)  # noqa: TID251 - the same
            if turns >= 0:
                shop.gate.let()
            try:
                (late,) = await soon(adding)
            except BatchEnded:
                refused += 1
                assert (await batch.refresh()).total == 1
            else:
                stored += 1
                ended = await soon(batch.wait())
                assert (ended.total, ended.succeeded) == (2, 2)
                assert (await late.refresh()).state == "succeeded"
    assert stored
    assert refused


# in a running job


async def test_batch_of_a_job_that_has_none_says_so(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task(max_attempts=1)
    async def read(job: JobContext) -> None:
        await job.batch.get()

    async with jobs.running():
        job = await jobs.enqueue(read)
        with pytest.raises(JobDead, match="neither a member nor a callback of a batch"):
            await soon(job.result())


async def test_members_are_read_in_parts_dead_ones_last(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobrunner.queue.job_batches.MEMBERS_PER_READ", 2)
    jobs = JobRunner(tmp_db)
    seen: dict[str, list[str]] = {}

    @jobs.task
    async def work(n: int) -> None:
        if n % 2:
            raise Bury("odd")

    @jobs.task
    async def report(job: JobContext) -> None:
        seen["all"] = [one.state async for one in job.batch.members()]
        seen["dead"] = [one.id async for one in job.batch.members(state="dead")]
        seen["queued"] = [one.id async for one in job.batch.members(state="queued")]

    async with jobs.running():
        batch = await jobs.enqueue_batch([work.call(n) for n in range(7)], at_end=report.call())
        assert batch.at_end is not None
        await soon(batch.at_end.result())
        assert seen["all"] == ["succeeded"] * 4 + ["dead"] * 3
        assert sorted(seen["dead"]) == sorted(batch.jobs[n].id for n in (1, 3, 5))
        assert seen["queued"] == []


async def test_def_task_reads_its_batch_with_a_plain_loop(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def work(n: int) -> int:
        return n

    @jobs.task
    def add_up(job: JobContext) -> int:
        return sum(job.batch.results(work)) + len(list(job.batch.members()))

    @jobs.task
    async def loop(job: JobContext) -> str:
        with pytest.raises(WrongThread, match="`async for result in"):
            list(job.batch.results(work))
        return "refused"

    async with jobs.running():
        batch = await jobs.enqueue_batch(
            [work.call(n) for n in range(5)], then=add_up.call(), at_end=loop.call()
        )
        assert batch.then is not None
        assert batch.at_end is not None
        assert await soon(batch.then.result()) == 15
        assert await soon(batch.at_end.result()) == "refused"


def test_batch_of_a_context_without_a_runner_says_so() -> None:
    with pytest.raises(NotRunning, match="for the task that runs the job"):
        _ = context().batch
