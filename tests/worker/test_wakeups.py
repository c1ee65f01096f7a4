"""A worker wakes at an enqueue, a due time, another process's bell, or the poll."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from freezegun.api import FrozenDateTimeFactory

from jobrunner import JobRunner
from jobrunner.core.clock import now_us
from jobrunner.store.postgres.store import PostgresStore
from jobrunner.worker import maintenance, producer
from tests.support.children import echo, parent_of, tasks
from tests.support.engine import Gate, next_round, soon, store_of, stored, supervisor_of, worker_of
from tests.support.processes import child

pytestmark = pytest.mark.each_store


@pytest.mark.usefixtures("no_poll")
async def test_enqueues_starts_the_job_at_once(jobs: JobRunner) -> None:
    @jobs.task
    async def work() -> str:
        return "done"

    async with jobs.running():
        await next_round(jobs)
        for _ in range(20):
            assert await (await jobs.enqueue(work)).result(timeout=15) == "done"


@pytest.mark.usefixtures("no_poll")
async def test_enqueues_is_claimed_in_its_own_round(jobs: JobRunner) -> None:
    gate = Gate()

    @jobs.task
    async def work() -> None:
        await gate.enter()

    async with jobs.running():
        await next_round(jobs)
        job = await jobs.enqueue(work)
        # Nothing has run between the commit that stored it and this line.
        assert (await stored(jobs, job.id)).state == "running"
        gate.open()
        await job.result(timeout=15)


@pytest.mark.usefixtures("no_poll")
async def test_scheduled_job_starts_at_its_time_and_not_before(jobs: JobRunner) -> None:
    started: list[int] = []

    @jobs.task
    async def work() -> None:
        started.append(now_us())

    async with jobs.running():
        many = [await jobs.enqueue(work.options(delay=delay)) for delay in (0.3, 0.1, 0.2)]
        for job in many:
            await job.result(timeout=15)
        due = [(await stored(jobs, job.id)).run_at for job in many]
    assert all(at >= when for at, when in zip(started, sorted(due), strict=True))


@pytest.mark.usefixtures("no_poll")
async def test_scheduled_job_that_comes_before_the_next_one_known_moves_the_timer(
    jobs: JobRunner,
) -> None:
    @jobs.task
    async def work() -> str:
        return "done"

    async with jobs.running():
        await jobs.enqueue(work.options(delay=0.4))
        assert await (await jobs.enqueue(work.options(delay=0.05))).result(timeout=15) == "done"


async def test_run_at_in_the_past_means_now(jobs: JobRunner) -> None:
    @jobs.task
    async def work() -> str:
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(work.options(run_at=datetime(2000, 1, 1, tzinfo=UTC)))
        assert job.run_at == job.created_at
        assert await job.result(timeout=15) == "done"


async def test_due_after_a_jump_of_the_clock_is_found_by_the_poll(
    jobs: JobRunner, frozen: FrozenDateTimeFactory
) -> None:
    @jobs.task
    async def work() -> str:
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(work.options(delay=timedelta(hours=24)))
        await next_round(jobs)
        assert (await job.refresh()).state == "scheduled"
        frozen.tick(timedelta(hours=24))
        assert await job.result(timeout=15) == "done"


async def test_more_due_at_once_than_a_round_promotes_all_run(
    jobs: JobRunner, frozen: FrozenDateTimeFactory
) -> None:
    ran: list[int] = []
    done = asyncio.Event()

    @jobs.task
    async def work(number: int) -> None:
        ran.append(number)
        if len(ran) == 1200:
            done.set()

    async with jobs.running():
        later = work.options(delay=60)
        await jobs.enqueue_many(later.call(number) for number in range(1200))
        frozen.tick(60)
        worker_of(jobs).wake()
        await soon(done.wait())
    assert sorted(ran) == list(range(1200))


@pytest.mark.usefixtures("no_poll")
async def test_enqueue_of_another_process_rings_the_bell(store_url: str) -> None:
    jobs = JobRunner(store_url)
    jobs.include(tasks)
    async with jobs.running(), child("client", store_url) as client:
        await client.heard("open")
        for word in ("one", "two"):
            client.send(word)
            id = (await client.heard("stored"))["id"]
            assert await (await jobs.get(id, echo)).result(timeout=15) == word


@pytest.mark.usefixtures("no_poll")
async def test_enqueue_that_its_own_worker_has_no_slot_for_rings_the_bell(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"default": 1, "left": 1})
    jobs.include(tasks)
    async with (
        jobs.running(queues={"default": 1}),
        child("family", store_url, json.dumps({"left": 1})) as other,
    ):
        await other.heard("open")
        # It runs there, and enqueues a job that can run here alone.
        parent = await jobs.enqueue(parent_of.options(queue="left"), "one", "default")
        assert await parent.result(timeout=15) == "one"


@pytest.mark.usefixtures("no_poll")
async def test_ring_is_obeyed_while_no_chore_can_run(store_url: str) -> None:
    jobs = JobRunner(store_url)
    jobs.include(tasks)
    async with jobs.running(), child("client", store_url) as client:
        await client.heard("open")
        await worker_of(jobs).maintenance.chores.stop()
        client.send("one")
        id = (await client.heard("stored"))["id"]
        assert await (await jobs.get(id, echo)).result(timeout=15) == "one"


async def test_enqueue_whose_bell_is_lost_is_found_by_the_poll(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = JobRunner(store_url)
    jobs.include(tasks)
    async with jobs.running(), child("client", store_url) as client:
        await client.heard("open")
        # The socket or the session stays, so that it can be rung, but nobody listens at the door.
        store = store_of(jobs)
        if isinstance(store, PostgresStore):
            store.workers._bell.on_work[worker_of(jobs).id] = lambda: None
        else:
            (bell,) = store.workers._doorbells.values()  # type: ignore[attr-defined]
            bell._on_ring = lambda: None
        client.send("one")
        id = (await client.heard("stored"))["id"]
        assert await (await jobs.get(id, echo)).result(timeout=15) == "one"


async def test_sleeps_when_there_is_nothing_to_do(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No round follows from a round: with the poll away, an idle worker writes nothing at all."""
    monkeypatch.setattr(maintenance, "POLL_S", 3600.0)
    monkeypatch.setattr(producer, "POLL_S", 3600.0)

    @jobs.task
    async def work() -> None: ...

    async with jobs.running():
        await (await jobs.enqueue(work)).result(timeout=15)
        await jobs.enqueue(work.options(delay=3600))
        await next_round(jobs)
        assert supervisor_of(jobs)._committer._idle.is_set()
        assert not supervisor_of(jobs)._committer._wake.is_set()
