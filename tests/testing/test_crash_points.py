"""A worker is killed at each commit in turn: a task with an effect outside its transaction is found."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from jobrunner import Injected, JobContext, JobRunner
from jobrunner.sqlalchemy import attach
from jobrunner.testing import CrashPoint, JobTester, crash_points

CLAIM = ["before the commit of the claim", "after the commit of the claim"]
ENQUEUE = ["before the commit of an enqueue", "after the commit of an enqueue"]
COMMIT = ["before the commit of a transaction", "after the commit of a transaction"]
END = ["before the commit of the end of the attempt", "after the commit of the end of the attempt"]


def add(conn: sqlite3.Connection, amount: int) -> None:
    conn.execute("INSERT INTO charges (amount) VALUES (?)", (amount,))


class Bank:
    """Tasks that book a charge on the jobs' file, each in another way."""

    def __init__(self, jobs: JobRunner) -> None:
        self.path = Path()
        self.lines: list[str] = []

        @jobs.task
        async def by_write(job: JobContext, amount: int) -> None:
            self.lines.append("begin")
            try:
                await asyncio.gather(*(asyncio.to_thread(list) for _ in range(2)))
                job.write(add, amount)
            finally:
                self.lines.append("end")

        @jobs.task
        async def outside(amount: int) -> None:
            with contextlib.closing(sqlite3.connect(self.path)) as conn:
                add(conn, amount)
                conn.commit()

        @jobs.task
        async def with_receipt(job: JobContext, amount: int) -> None:
            await by_write.options(key=f"charge-{job.id}").enqueue(amount)
            self.lines.append("enqueued")

        @jobs.task
        async def with_two_receipts(amount: int) -> None:
            await by_write.enqueue(amount)

        @jobs.task(max_attempts=2)
        async def at_the_second_attempt(job: JobContext, amount: int) -> None:
            if job.attempt == 1:
                raise ConnectionError("no")
            job.write(add, amount)

        @jobs.task
        def in_a_thread(job: JobContext, amount: int) -> None:
            self.lines.append(threading.current_thread().name)
            job.write(add, amount)

        self.by_write, self.outside, self.with_receipt = by_write, outside, with_receipt
        self.with_two_receipts = with_two_receipts
        self.at_the_second_attempt, self.in_a_thread = at_the_second_attempt, in_a_thread

    def create(self, path: Path) -> None:
        """Make the table."""
        self.path = path
        with contextlib.closing(sqlite3.connect(path)) as conn:
            conn.execute("CREATE TABLE charges (amount)")

    def count(self) -> int:
        """Return the number of charges."""
        with contextlib.closing(sqlite3.connect(self.path)) as conn:
            (found,) = conn.execute("SELECT count(*) FROM charges").fetchone()
        return int(found)


@pytest.fixture
def bank(jobs: JobRunner) -> Bank:
    """Return the tasks."""
    return Bank(jobs)


@pytest.fixture
async def tester(jobs: JobRunner, bank: Bank) -> AsyncIterator[JobTester]:
    """Return a tester of the tasks, with their table in its store."""
    async with JobTester(jobs) as t:
        bank.create(t.store)
        yield t


def points(found: list[CrashPoint]) -> list[str]:
    """Return the moments of crash points, which are numbered from 1 on."""
    assert [crash.number for crash in found] == list(range(1, len(found) + 1))
    return [crash.at for crash in found]


async def test_correct_task_passes_each_point(tester: JobTester, bank: Bank) -> None:
    found: list[CrashPoint] = []
    async for crash in tester.crash_points(bank.by_write, 7):
        assert bank.count() == 1, crash
        found.append(crash)
    assert points(found) == CLAIM + END


async def test_effect_outside_the_transaction_is_found(tester: JobTester, bank: Bank) -> None:
    wrong = [crash async for crash in tester.crash_points(bank.outside, 7) if bank.count() != 1]
    assert [crash.at for crash in wrong] == [COMMIT[1], END[0]]
    assert str(wrong[1]) == "crash point 5, before the commit of the end of the attempt"


async def test_enqueue_is_a_point_and_a_key_keeps_it_single(tester: JobTester, bank: Bank) -> None:
    found: list[CrashPoint] = []
    async for crash in tester.crash_points(bank.with_receipt, 7):
        await tester.run_until_idle()
        assert bank.count() == 1, crash
        found.append(crash)
    assert points(found) == CLAIM + ENQUEUE + END


async def test_enqueue_without_a_key_is_found(tester: JobTester, bank: Bank) -> None:
    counts = {}
    async for crash in tester.crash_points(bank.with_two_receipts, 7):
        await tester.run_until_idle()
        counts[crash.at] = bank.count()
    assert {at for at, count in counts.items() if count == 2} == {ENQUEUE[1], END[0]}


async def test_each_attempt_has_its_points(tester: JobTester, bank: Bank) -> None:
    found: list[CrashPoint] = []
    async for crash in tester.crash_points(bank.at_the_second_attempt, 7):
        run = tester.runs(bank.at_the_second_attempt)[0]
        assert bank.count() == (run.state == "succeeded")
        found.append(crash)
    assert points(found) == CLAIM + END + CLAIM + END


async def test_attempt_gets_no_further_line_not_even_its_finally(
    tester: JobTester, bank: Bank
) -> None:
    def setup() -> None:
        bank.lines.clear()

    lines = {}
    async for crash in tester.crash_points(bank.with_receipt, 7, setup=setup):
        lines[crash.at] = list(bank.lines)
    # The task that enqueues says so once: in the second worker, unless the first had gone on.
    assert lines[ENQUEUE[0]].count("enqueued") == 1
    assert lines[ENQUEUE[1]].count("enqueued") == 1
    assert lines[END[0]].count("enqueued") == 2


async def test_def_task_passes_each_point(tester: JobTester, bank: Bank) -> None:
    found: list[CrashPoint] = []
    async for crash in tester.crash_points(bank.in_a_thread, 7):
        assert bank.count() == 1, crash
        found.append(crash)
    assert points(found) == CLAIM + END


async def test_setup_runs_before_each_point_on_the_file_as_it_was(
    tester: JobTester, bank: Bank
) -> None:
    calls: list[int] = []

    async def setup() -> None:
        calls.append(bank.count())

    async for _ in tester.crash_points(bank.by_write, 7, setup=setup):
        assert bank.count() == 1
    assert calls == [0] * 5  # four points, and the run that meets none


async def test_tester_goes_on_after_the_points(tester: JobTester, bank: Bank) -> None:
    async for _ in tester.crash_points(bank.by_write, 7):
        pass
    assert [run.state for run in tester.runs(bank.by_write)] == ["succeeded"]
    assert (await tester.perform(bank.by_write, 8)).state == "succeeded"
    assert bank.count() == 2


async def test_loop_that_is_left_early_leaves_nothing_behind(tester: JobTester, bank: Bank) -> None:
    async for _ in tester.crash_points(bank.by_write, 7):
        break
    assert (await tester.perform(bank.by_write, 8)).state == "succeeded"


async def test_too_many_points_are_an_error(
    tester: JobTester, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobrunner.testing.tester.MOST_POINTS", 2)
    with pytest.raises(AssertionError, match="by_write has more than 2 crash points"):
        async for _ in tester.crash_points(bank.by_write, 7):
            pass


def test_nothing_of_a_dead_attempt_runs_when_its_loop_ends(jobs: JobRunner) -> None:
    ended: list[str] = []
    begun = 0

    @jobs.task
    async def work(job: JobContext) -> None:
        nonlocal begun
        begun += 1
        try:
            await work.options(delay=3600, key="again").enqueue()
        finally:
            ended.append(job.id)

    async def run() -> None:
        async with JobTester(jobs) as t:
            async for _ in t.crash_points(work):
                pass

    asyncio.run(run())
    # At two of the six points an attempt is suspended at its enqueue, for ever.
    assert begun - len(ended) == 2


# -- the application's sessions ------------------------------------------------------------------------


class Base(DeclarativeBase):
    """The tables of the application."""


class Charge(Base):
    """A charge."""

    __tablename__ = "charge"
    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[int]


class Shop:
    """An application with an engine on the jobs' file, made by its lifespan."""

    def __init__(self, path: Path) -> None:
        self.engine: AsyncEngine | None = None

        async def get_session() -> AsyncIterator[AsyncSession]:
            async with self.sessions() as session:
                yield session

        self.jobs = jobs = JobRunner(path, session=Depends(get_session, scope="function"))

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            self.engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
            attach(self.engine)
            async with self.engine.begin() as conn:
                await conn.run_sync(Base.metadata.create_all)
            async with jobs.running(app):
                yield
            await self.engine.dispose()

        self.app = FastAPI(lifespan=lifespan)

        @jobs.task
        async def in_transaction(job: JobContext, amount: int) -> None:
            async with job.transaction() as tx:
                tx.add(Charge(amount=amount))

        self.in_transaction = in_transaction

    @property
    def sessions(self) -> "async_sessionmaker[AsyncSession]":
        """Make sessions on the engine."""
        assert self.engine is not None
        return async_sessionmaker(self.engine)

    async def count(self) -> int:
        """Return the number of charges."""
        async with self.sessions() as session:
            return await session.scalar(select(func.count()).select_from(Charge)) or 0


async def test_transaction_of_the_application_is_a_point(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop.db")
    found: list[CrashPoint] = []
    async with JobTester(shop.app, store=tmp_path / "shop.db") as t:
        async for crash in t.crash_points(shop.in_transaction, 7):
            assert await shop.count() == 1, crash
            (run,) = t.runs(shop.in_transaction)
            assert run.state == "succeeded"
            found.append(crash)
    assert points(found) == CLAIM + COMMIT + END


def test_blocking_transaction_is_a_point(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"

    def get_session() -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(path, check_same_thread=False)) as conn:
            yield conn

    jobs = JobRunner(path, session=get_session)

    @jobs.task
    def charge(job: JobContext, amount: int) -> None:
        with job.transaction() as tx:
            add(tx, amount)

    async def run() -> list[CrashPoint]:
        found = []
        async with JobTester(jobs, store=path) as t:
            with contextlib.closing(sqlite3.connect(path)) as conn:
                conn.execute("CREATE TABLE charges (amount)")
            async for crash in t.crash_points(charge, 7):
                with contextlib.closing(sqlite3.connect(path)) as conn:
                    rows = conn.execute("SELECT amount FROM charges").fetchall()
                assert rows == [(7,)], crash
                found.append(crash)
        return found

    assert points(asyncio.run(run())) == CLAIM + COMMIT + END
    assert crash_points.MOST_POINTS == 200


def test_end_of_the_loop_closes_no_generator_of_a_killed_attempt(
    jobs: JobRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """Its ``finally`` blocks would be further lines of the attempt, after the test."""
    ended: list[str] = []

    async def get_client() -> AsyncIterator[str]:
        try:
            yield "client"
        finally:
            ended.append("dependency")

    async def numbers(cursor: int | None) -> AsyncIterator[tuple[int, int]]:
        for number in range(0 if cursor is None else cursor + 1, 3):
            yield number, number

    @jobs.task
    async def count(
        job: JobContext, client: Annotated[str, Depends(get_client)] = Injected
    ) -> None:
        async for _ in job.iterate("numbers", numbers, every=1):
            pass

    async def crash() -> int:
        async with JobTester(jobs) as t:
            points = [crash.at async for crash in t.crash_points(count)]
        assert "before the commit of the cursor of 'numbers'" in points
        return len(ended)

    assert asyncio.run(crash()) == len(ended)
    assert "asynchronous generator" not in caplog.text
