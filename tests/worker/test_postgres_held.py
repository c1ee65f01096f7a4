"""F16: an idle transaction of the application delays the ends that need what it holds, and no other job."""

import asyncio

import psycopg
import pytest
from psycopg.rows import TupleRow
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from jobrunner import Concurrency, JobContext, JobRunner
from jobrunner.core.errors import StoreBusy
from tests.support.engine import Gate, soon
from tests.worker.site import ended


@pytest.fixture
def jobs(postgres_url: str) -> JobRunner:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS stock")
        connection.execute("CREATE TABLE stock (item text PRIMARY KEY, number int NOT NULL)")
        connection.execute("INSERT INTO stock VALUES ('tea', 0)")
    return JobRunner(postgres_url, queues={"default": 8})


def number(connection: psycopg.Connection[TupleRow]) -> int:
    row = connection.execute("SELECT number FROM stock").fetchone()
    assert row is not None
    return int(row[0])


async def test_F16_end_in_a_lane_that_a_request_holds_comes_after_its_commit(
    jobs: JobRunner, postgres_url: str
) -> None:
    gate, runs = Gate(), list[int]()
    engine = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))

    @jobs.task(concurrency=Concurrency(1, by="account"))
    async def sync(account: int, turn: int) -> None:
        runs.append(turn)
        if turn == 1:
            await gate.enter()

    @jobs.task
    async def other() -> str:
        return "done"

    async with jobs.running():
        first, second = await sync.enqueue(7, 1), await sync.enqueue(7, 2)
        await gate.arrival()
        with Session(engine) as session:
            third = await jobs.enqueue(sync.options(session=session), 7, 3)
            gate.open()
            for _ in range(3):
                assert await soon((await other.enqueue()).result()) == "done"
            fourth = asyncio.create_task(sync.enqueue(7, 4))
            # One of another account goes its way.
            assert (await soon(ended(await sync.enqueue(8, 5)))).state == "succeeded"
            first = await first.refresh()
            assert first.state == "running", "its end waits"
            assert not fourth.done()
            session.commit()
        done = [await soon(ended(job)) for job in (first, second, third, await soon(fourth))]
        assert [job.state for job in done] == ["succeeded"] * 4
        assert [len(job.history) for job in done] == [1, 1, 1, 1]
        assert sorted(runs) == [1, 2, 3, 4, 5]
    engine.dispose()


async def test_F16_enqueue_gives_up_after_a_while_with_nothing_of_its_call_stored(
    jobs: JobRunner, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobrunner.store.gathered.PATIENCE_S", 0.6)
    engine = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))

    @jobs.task
    async def mail(to: str) -> str:
        return to

    async with jobs.running():
        with Session(engine) as session:
            await jobs.enqueue(mail.options(session=session, key="ada"), "ada")
            calls = [mail.call("bob"), mail.options(key="ada").call("ada")]
            busy = asyncio.create_task(jobs.enqueue_many(calls))
            assert await soon((await mail.enqueue("eve")).result()) == "eve"
            with pytest.raises(StoreBusy, match="another transaction"):
                await soon(busy)
            session.rollback()
        assert len((await jobs.list()).items) == 1, "eve's alone"
        assert len(await jobs.enqueue_many(calls)) == 2
    engine.dispose()


async def test_F16_write_to_a_row_that_is_held_comes_after_the_holders_end_and_counts_once(
    jobs: JobRunner, postgres_url: str
) -> None:
    @jobs.task
    async def sell(job: JobContext) -> None:
        job.write(take)

    async def take(connection: object) -> None:
        await connection.execute("UPDATE stock SET number = number + 1")  # type: ignore[attr-defined]

    @jobs.task
    async def other() -> str:
        return "done"

    with psycopg.connect(postgres_url) as holder:
        holder.execute("UPDATE stock SET number = number + 100")
        async with jobs.running():
            job = await sell.enqueue()
            for _ in range(3):
                assert await soon((await other.enqueue()).result()) == "done"
            job = await job.refresh()
            assert job.state == "running"
            holder.commit()
            job = await soon(ended(job))
            assert (job.state, len(job.history)) == ("succeeded", 1)
        assert number(holder) == 101


async def test_F16_close_gives_up_the_ends_that_stay_held_and_their_jobs_run_again(
    jobs: JobRunner,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("jobrunner.store.busy.PAUSE_S", 0.01)
    runs, called = list[int](), asyncio.Event()

    @jobs.task
    async def sell(job: JobContext) -> None:
        runs.append(job.attempt)
        job.write(take)

    async def take(connection: object) -> None:
        called.set()
        await connection.execute("UPDATE stock SET number = number + 1")  # type: ignore[attr-defined]

    with psycopg.connect(postgres_url) as holder:
        holder.execute("UPDATE stock SET number = number + 100")
        async with jobs.running():
            job = await sell.enqueue()
            await soon(called.wait())
        assert "their jobs run again" in caplog.text
        holder.rollback()
        async with jobs.running():
            job = await jobs.get(job.id)
            assert (await soon(ended(job))).state == "succeeded"
        assert number(holder) == 1
    assert len(runs) == 2
