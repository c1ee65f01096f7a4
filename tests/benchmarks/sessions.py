"""Transactions of the application's own: what a job adds to one, and how long a task waits for its turn."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from jobrunner import JobContext, JobRunner
from jobrunner.core.clock import now_us
from jobrunner.core.model import Claim, Claimed, Ended, Succeeded
from jobrunner.sqlalchemy import attach
from jobrunner.store.round import Round
from jobrunner.store.sqlite import SqliteStore
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row
from tests.benchmarks.workload import Workload

TRANSACTIONS = 1_000
WAITS = 500
WARM_UP = 50
WORKER = 4711


class _Base(DeclarativeBase):
    pass


class _Order(_Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


class Transactions(NamedTuple):
    """Durations in ms of transactions of one row, with and without a job."""

    joined: list[float]
    plain: list[float]


def joined(bench: Bench) -> list[Row]:
    """Insert a row through an ``AsyncSession`` and commit, with a job in the same transaction and without, in turns."""
    return _beside(bench, "enqueue in a one-row transaction, p50", _transactions)


def settled(bench: Bench) -> list[Row]:
    """Insert a row through an ``AsyncSession`` and commit, with the settle of a running job beside it and without."""
    return _beside(bench, "commit of a job with one row in its session, p50", _settles)


def gate(bench: Bench) -> list[Row]:
    """Have four tasks at a time wait for ``job.transaction()``, beside 100 enqueuers who never pause."""
    middle, worst = [], []
    for _ in range(bench.runs):
        with bench.place() as place:
            waits = asyncio.run(_waits(place / "jobs.sqlite"))
        middle.append(median(waits))
        worst.append(max(waits))
    return [
        Row("wait for job.transaction() beside 100 enqueuers, p50", "ms", middle),
        Row("  worst", "ms", worst, target=250),
    ]


async def _waits(file: Path) -> list[float]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}")
    attach(engine)

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as session:
            yield session

    jobs = JobRunner(file, queues={"default": 20, "writers": 4}, session=get_session)
    waits: list[float] = []
    enough = asyncio.Event()

    @jobs.task(queue="writers", max_attempts=1)
    async def add(job: JobContext) -> None:
        asked = time.perf_counter()
        async with job.transaction() as session:
            waits.append((time.perf_counter() - asked) * 1000)
            session.add(_Order(item="tea"))
        if len(waits) == WAITS:
            enough.set()

    @jobs.task
    async def noop() -> None: ...

    async def enqueue() -> None:
        while not enough.is_set():
            await noop.enqueue()

    async with jobs.running():
        async with engine.begin() as connection:
            await connection.run_sync(_Base.metadata.create_all)
        await jobs.enqueue_many([add.call() for _ in range(WAITS)])
        async with asyncio.timeout(120), asyncio.TaskGroup() as callers:
            for _ in range(100):
                callers.create_task(enqueue())
    await engine.dispose()
    return waits


def _beside(
    bench: Bench, name: str, measure: Callable[[Path], Coroutine[Any, Any, Transactions]]
) -> list[Row]:
    ours, plain = [], []
    for _ in range(bench.runs):
        with bench.place() as place:
            took = asyncio.run(measure(place / "jobs.sqlite"))
        ours.append(median(took.joined))
        plain.append(median(took.plain))
    return [
        Row(
            name,
            "ms",
            ours,
            plain,
            beside="the transaction alone",
            judged="ratio",
            target=1.3,
        )
    ]


async def _settles(file: Path) -> Transactions:
    """Measure inside one task: what its own sessions take with a job to settle, and without."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}")
    attach(engine)
    session_of = async_sessionmaker(engine)
    took = Transactions([], [])
    workload = Workload(file, work=False)
    store = SqliteStore(file)
    await store.open()
    await store.close()
    async with workload.jobs.running():
        await workload.fill(WARM_UP + TRANSACTIONS)
    await store.open()
    claimed: list[Claimed] = []
    while len(claimed) < WARM_UP + TRANSACTIONS:
        claim = Claim(WORKER, {"default": 500}, frozenset({"noop"}), False)
        claimed += (await store.write(Round(now_us(), claim=claim))).claimed
    async with engine.begin() as connection:
        await connection.run_sync(_Base.metadata.create_all)
    for number, job in enumerate(claimed):
        for with_settle, samples in ((False, took.plain), (True, took.joined)):
            started = time.perf_counter()
            async with session_of() as session:
                session.add(_Order(item="tea"))
                await session.flush()
                if with_settle:
                    ended = Ended("succeeded", now_us())
                    joined = store.session(session)
                    assert await joined.settle(Succeeded(job, ended, None), now=ended.at)
                await session.commit()
            if number >= WARM_UP:
                samples.append((time.perf_counter() - started) * 1000)
    await engine.dispose()
    await store.close()
    return took


async def _transactions(file: Path) -> Transactions:
    workload = Workload(file, work=False)
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}")
    attach(engine)
    session_of = async_sessionmaker(engine)
    took = Transactions([], [])
    async with workload.jobs.running():
        async with engine.begin() as connection:
            await connection.run_sync(_Base.metadata.create_all)
        for number in range(WARM_UP + TRANSACTIONS):
            for with_job, samples in ((False, took.plain), (True, took.joined)):
                started = time.perf_counter()
                async with session_of.begin() as session:
                    order = _Order(item="tea")
                    session.add(order)
                    await session.flush()
                    if with_job:
                        task = workload.noop.options(session=session)
                        await workload.jobs.enqueue(task, order.id)
                if number >= WARM_UP:
                    samples.append((time.perf_counter() - started) * 1000)
        await engine.dispose()
    return took
