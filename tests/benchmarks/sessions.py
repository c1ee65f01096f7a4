"""A job in the request's transaction: what it adds to the same transaction of the application's own."""

import asyncio
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from jobrunner.sqlalchemy import attach
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row
from tests.benchmarks.workload import Workload

TRANSACTIONS = 1_000
WARM_UP = 50


class _Base(DeclarativeBase):
    pass


class _Order(_Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


class Transactions(NamedTuple):
    """What transactions of one row took in ms: with a job, and without."""

    joined: list[float]
    plain: list[float]


def joined(bench: Bench) -> list[Row]:
    """Insert a row through an ``AsyncSession`` and commit, with a job in the same transaction and without, in turns."""
    ours, plain = [], []
    for _ in range(bench.runs):
        with bench.place() as place:
            took = asyncio.run(_transactions(place / "jobs.sqlite"))
        ours.append(median(took.joined))
        plain.append(median(took.plain))
    return [
        Row(
            "enqueue in a one-row transaction, p50",
            "ms",
            ours,
            plain,
            beside="the transaction alone",
            judged="ratio",
            target=1.3,
        )
    ]


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
