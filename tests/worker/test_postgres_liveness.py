"""Workers on PostgreSQL whose session is cut: in doubt they go on, found dead they begin anew."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from jobrunner import JobContext, JobRunner
from jobrunner.core.clock import now_us
from jobrunner.store.postgres import line as lines
from jobrunner.store.postgres import workers as postgres_workers
from jobrunner.store.postgres.access import transact
from jobrunner.store.postgres.connection import READER, Connection, close, connect, connect_line
from jobrunner.store.postgres.sql import workers as rows
from jobrunner.store.postgres.store import PostgresStore
from tests.support.engine import (
    PATIENCE_S,
    Gate,
    ThreadGate,
    next_round,
    store_of,
    stored,
    worker_of,
)


@pytest.fixture(autouse=True)
def nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no worker be found dead but by the test."""
    monkeypatch.setattr(postgres_workers, "RESTART_GRACE_S", 10**6)


@pytest.fixture
async def outside(postgres_url: str) -> AsyncIterator[Connection]:
    """A session of another process."""
    connection = await connect(postgres_url, READER)
    yield connection
    await close(connection)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """An event; while it is not set, no line is opened."""
    is_there = asyncio.Event()
    is_there.set()

    async def connect_when_there(url: str) -> Connection:
        await is_there.wait()
        return await connect_line(url)

    monkeypatch.setattr(lines, "connect_line", connect_when_there)
    return is_there


async def until(jobs: JobRunner, condition: Callable[[], bool]) -> None:
    """Turn the loop, by reads, until a condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await store_of(jobs).change_counter()


async def cut(jobs: JobRunner, outside: Connection, network: asyncio.Event) -> None:
    """End the session of the worker's line at the server; the worker cannot open another one yet."""
    store = store_of(jobs)
    assert isinstance(store, PostgresStore)
    line = store.workers._lines[worker_of(jobs).id]
    assert line._session is not None
    network.clear()
    await outside.execute("SELECT pg_terminate_backend($1)", line._session[0])
    await until(jobs, lambda: worker_of(jobs).membership.standing == "doubtful")


async def find_dead(worker: int, outside: Connection) -> None:
    """Take the jobs of a worker over, as another process that has found it dead."""
    taken = await transact(outside, lambda tx: rows.take_jobs(tx, worker, now_us()))
    assert taken is not None


async def test_worker_in_doubt_claims_nothing_and_its_attempts_go_on(
    postgres_url: str, outside: Connection, network: asyncio.Event
) -> None:
    jobs = JobRunner(postgres_url)
    gate = Gate()

    @jobs.task
    async def pass_through() -> None:
        await gate.enter()

    async with jobs.running():
        running = await pass_through.enqueue()
        await gate.arrival()
        await cut(jobs, outside, network)
        health = await jobs.health()
        assert health.status == "degraded"
        assert "claims nothing until it is back" in health.problems[0]
        waiting = await pass_through.enqueue()
        gate.let()
        await running.result(timeout=PATIENCE_S)
        await next_round(jobs)
        assert (await stored(jobs, waiting.id)).state == "queued"
        network.set()
        await gate.arrival()
        gate.open()
        await waiting.result(timeout=PATIENCE_S)
        assert (await jobs.health()).problems == ()
    assert gate.most == 1


async def test_worker_that_was_found_dead_settles_nothing_and_joins_under_a_new_number(
    postgres_url: str, outside: Connection, network: asyncio.Event
) -> None:
    jobs = JobRunner(postgres_url, queues={"default": 1})
    gate = Gate()
    ends: list[str] = []

    @jobs.task
    async def pass_through(job: JobContext) -> int:
        try:
            await gate.enter(job.cancelled)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        return 7

    async with jobs.running():
        former = worker_of(jobs).id
        job = await pass_through.enqueue()
        await gate.arrival()
        await cut(jobs, outside, network)
        await find_dead(former, outside)
        network.set()
        await gate.arrival()  # under the new number, in the slot that the first attempt has left
        assert ends == ["cancelled"]
        assert worker_of(jobs).id != former
        assert [one.worker for one in await store_of(jobs).workers.list()] == [worker_of(jobs).id]
        gate.open()
        assert await job.result(timeout=PATIENCE_S) == 7
        row = await stored(jobs, job.id)
        attempts = await store_of(jobs).jobs.attempts(row.seq)
        assert [(one.outcome, one.worker == former) for one in attempts] == [
            ("lost", True),
            ("succeeded", False),
        ]
        assert (await jobs.health()).problems == ()


async def test_thread_of_a_worker_that_was_found_dead_is_told_and_its_result_is_dropped(
    postgres_url: str, outside: Connection, network: asyncio.Event
) -> None:
    jobs = JobRunner(postgres_url, queues={"default": 2})
    gate = ThreadGate()
    results: list[bool] = []

    @jobs.task
    def block(job: JobContext) -> int:
        gate.enter(job.attempt)
        results.append(job.cancelled)
        return job.attempt

    async with jobs.running():
        job = await block.enqueue()
        await gate.arrival()
        await cut(jobs, outside, network)
        await find_dead(worker_of(jobs).id, outside)
        network.set()
        await gate.arrival()
        assert gate.inside == 2
        gate.open()
        assert await job.result(timeout=PATIENCE_S) == 2
    assert sorted(results) == [False, True]


async def test_worker_that_ends_while_it_is_cut_off_does_not_wait_for_the_database(
    postgres_url: str, outside: Connection, network: asyncio.Event
) -> None:
    jobs = JobRunner(postgres_url)
    async with asyncio.timeout(PATIENCE_S):
        async with jobs.running():
            former = worker_of(jobs).id
            await cut(jobs, outside, network)
            await find_dead(former, outside)
            # Back for the line, and away again for the one under the new number.
            network.set()
            await until(jobs, lambda: worker_of(jobs).id != former)
            network.clear()
    assert await outside.fetchval("SELECT count(*) FROM jobrunner.workers") in (0, 1)
