"""Callers that wait for one job share its reads."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from jobrunner import JobRunner, ResultTimeout, StoreUnavailable
from jobrunner.core.model import JobRow
from jobrunner.queue.queue import enqueuer_of
from jobrunner.queue.shared_reads import POLL_S, SharedReads
from tests.support.engine import Gate, next_round, soon, store_of

pytestmark = pytest.mark.each_store


CALLERS = 1_000


class Reads:
    """Counts the reads of jobs."""

    def __init__(self, jobs: JobRunner, patch: pytest.MonkeyPatch) -> None:
        self.number = 0
        self.error: Exception | None = None
        store = store_of(jobs).jobs
        get = store.get

        async def counted(id: str) -> JobRow | None:
            self.number += 1
            row = await get(id)
            if self.error is not None:
                raise self.error
            return row

        patch.setattr(store, "get", counted)


@pytest.fixture
def jobs(store_url: str) -> JobRunner:
    return JobRunner(store_url)


@pytest.fixture
def no_poll(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(SharedReads, "next_poll_s", lambda reads, id: 3600.0)
        yield


@pytest.mark.usefixtures("no_poll")
async def test_a_thousand_callers_of_one_result_read_it_twice_for_each_change(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()

    @jobs.task
    async def work() -> str:
        await gate.enter()
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(work)
        await gate.arrival()
        reads = Reads(jobs, monkeypatch)
        callers = [asyncio.create_task(job.result()) for _ in range(CALLERS)]
        # What they wait for next is registered before their read begins.
        assert jobs._open is not None
        ends = enqueuer_of(jobs._open).parts.events.ends
        async with asyncio.timeout(15):
            while reads.number < 2 or len(ends._futures[job.id]) < CALLERS:
                await next_round(jobs)
        assert reads.number == 2
        gate.open()
        assert await soon(asyncio.gather(*callers)) == ["done"] * CALLERS
        assert reads.number == 4


async def test_callers_that_came_at_different_times_poll_together(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with jobs.running(work=False):
        reads = SharedReads(store_of(jobs))
        loop = asyncio.get_running_loop()
        now = loop.time()
        polls = []
        for late_s in (0, 0.1, 0.3, 0.49, 7.2):
            monkeypatch.setattr(loop, "time", lambda at=now + late_s: at)
            polls.append(now + late_s + reads.next_poll_s("id"))
            assert 0 < reads.next_poll_s("id") <= POLL_S
        monkeypatch.undo()
        apart = [(at - polls[0]) / POLL_S for at in polls]
        assert all(abs(each - round(each)) < 1e-6 for each in apart)


@pytest.mark.parametrize("gone", [0, 1])
async def test_cancelled_caller_leaves_the_read_to_the_others(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch, gone: int
) -> None:
    @jobs.task
    async def work() -> None: ...

    async with jobs.running(work=False):
        job = await jobs.enqueue(work)
        assert jobs._open is not None
        shared = enqueuer_of(jobs._open).parts.reads
        reads = Reads(jobs, monkeypatch)
        callers = [asyncio.create_task(shared.get(job.id)) for _ in range(3)]
        # The callers before this one have asked when it runs: the first reads for itself, the second shares.
        asyncio.get_running_loop().call_soon(callers.pop(gone).cancel)
        rows = await soon(asyncio.gather(*callers))
        assert [row.id for row in rows if row is not None] == [job.id] * 2
        assert reads.number == 2
        assert await shared.get(job.id) is not None
        assert (reads.number, shared._alone, shared._next) == (3, set(), {})


async def test_error_of_a_shared_read_reaches_each_caller_and_no_later_one(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    @jobs.task
    async def work() -> None: ...

    async with jobs.running(work=False):
        job = await jobs.enqueue(work)
        reads = Reads(jobs, monkeypatch)
        reads.error = StoreUnavailable("no disk")
        callers: list[Any] = await soon(
            asyncio.gather(*(job.result(1) for _ in range(3)), return_exceptions=True)
        )
        assert [str(error) for error in callers] == ["no disk"] * 3
        assert reads.number == 2
        reads.error = None
        with pytest.raises(ResultTimeout):
            await job.result(0)
