"""Writes that would wait for the caller's own open session are refused at once."""

import asyncio
import contextvars
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.pool import AsyncAdaptedQueuePool

from jobrunner import JobRunner, WouldDeadlock
from jobrunner.fastapi import Background
from tests.support.engine import PATIENCE_S, soon, store_of
from tests.support.joined_shop import ADD, Shop, bill, result_of, ship, tasks
from tests.support.sessions import async_engine, count_jobs, count_rows, make_table, sync_engine


@pytest.fixture
def shop(tmp_db: Path) -> Shop:
    return Shop(tmp_db)


@pytest.mark.parametrize("verb", ["enqueue", "enqueue_many", "cancel", "result"])
def test_write_of_its_own_beside_a_session_that_has_written_is_refused_at_once(
    shop: Shop, verb: str
) -> None:
    """It would wait for a commit that comes after it."""
    jobs = shop.jobs
    calls: dict[str, Callable[[str], Awaitable[object]]] = {
        "enqueue": lambda _: ship.enqueue(2),
        "enqueue_many": lambda _: jobs.enqueue_many([ship.call(2)]),
        "cancel": jobs.cancel,
        "result": lambda id: result_of(jobs, id),
    }

    @shop.app.post("/{id}")
    async def post(id: str) -> str:
        async with AsyncSession(shop.engine) as session:
            await session.execute(text("SELECT 1"))
            await ship.enqueue(1)  # one that has read alone keeps nobody from writing
            await session.execute(ADD)
            with pytest.raises(WouldDeadlock) as refused:
                await calls[verb](id)
            await session.commit()
            await ship.enqueue(3)
            return str(refused.value)

    with shop.open() as client:
        later: str = shop.run(_store_for_later, jobs)
        assert "Depends(jobs.queue)" in client.post(f"/{later}").json()
        assert (count_jobs(shop.path), count_rows(shop.path)) == (3, 1)


async def _store_for_later(jobs: JobRunner) -> str:
    return (await jobs.enqueue(bill.options(delay=3600), 0)).id


def test_background_beside_a_session_that_has_written_is_refused_at_once(tmp_db: Path) -> None:
    """A runner that knows no session cannot store the tasks with its rows."""
    jobs, engine = JobRunner(tmp_db), async_engine(tmp_db)
    jobs.include(tasks)
    app = FastAPI(lifespan=jobs.lifespan)

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as session, session.begin():
            yield session

    @app.post("/")
    async def post(
        session: Annotated[AsyncSession, Depends(get_session, scope="function")],
        background: Background,
    ) -> None:
        await session.execute(ADD)
        background.add_task(ship, 1)

    with TestClient(app) as client:
        make_table(tmp_db)
        with pytest.raises(WouldDeadlock):
            client.post("/")
        assert (count_jobs(tmp_db), count_rows(tmp_db)) == (0, 0)
        assert client.portal is not None
        client.portal.call(engine.dispose)


def test_write_of_its_own_beside_a_session_of_a_def_route_is_refused_at_once(shop: Shop) -> None:
    engine = sync_engine(shop.path)

    @shop.app.post("/")
    def post() -> str:
        with Session(engine) as session:
            session.execute(ADD)
            with pytest.raises(WouldDeadlock):
                shop.jobs.sync.enqueue(ship, 1)
            session.commit()
            return shop.jobs.sync.enqueue(ship, 2).id

    with shop.open() as client:
        id = client.post("/").json()
        assert shop.ids() == [id]
    engine.dispose()


async def test_session_that_has_written_is_not_forgotten_for_one_that_reads(tmp_db: Path) -> None:
    make_table(tmp_db)
    engine, jobs = async_engine(tmp_db), JobRunner(tmp_db)
    async with jobs.running(), AsyncSession(engine) as writing:
        await writing.execute(ADD)
        async with AsyncSession(engine) as reading:
            await reading.execute(text("SELECT 1"))
            with pytest.raises(WouldDeadlock):
                store_of(jobs).refuse_wait("this")
        with pytest.raises(WouldDeadlock):
            store_of(jobs).refuse_wait("this")
        await writing.commit()
        store_of(jobs).refuse_wait("this")
    await engine.dispose()


async def test_connection_that_was_closed_is_not_kept(tmp_db: Path) -> None:
    """A task that lives as long as the process may use any number of them."""
    make_table(tmp_db)
    engine = async_engine(tmp_db)
    async with AsyncSession(engine) as session:
        await session.execute(ADD)
        raw = await (await session.connection()).get_raw_connection()
        driver = weakref.ref(raw.driver_connection)
        del raw
        await session.invalidate()
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT 1"))
        gc.collect()
        assert driver() is None
    await engine.dispose()


async def test_session_of_somebody_else_on_the_same_connection_is_waited_for(tmp_db: Path) -> None:
    """The pool hands a connection to one after another; what the first one has begun is over."""
    make_table(tmp_db)
    engine = async_engine(tmp_db, poolclass=AsyncAdaptedQueuePool, pool_size=1, max_overflow=0)
    begun, checked = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        async with AsyncSession(engine) as session:
            await session.execute(ADD)
            begun.set()
            await soon(checked.wait())

    jobs = JobRunner(tmp_db)
    async with jobs.running():
        async with AsyncSession(engine) as session:
            await session.execute(ADD)
            with pytest.raises(WouldDeadlock):
                store_of(jobs).refuse_wait("this")
        somebody = asyncio.create_task(write(), context=contextvars.Context())
        await soon(begun.wait())
        store_of(jobs).refuse_wait("this")
        checked.set()
        await somebody
    await engine.dispose()


async def test_raw_connection_of_somebody_else_is_waited_for(tmp_db: Path) -> None:
    """SQLAlchemy reports the return of a connection to its pool, but not a transaction begun on the driver's own."""
    make_table(tmp_db)
    engine = async_engine(tmp_db, poolclass=AsyncAdaptedQueuePool, pool_size=1, max_overflow=0)

    begun, checked = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        async with engine.connect() as held:
            raw: Any = await held.get_raw_connection()
            await raw.driver_connection.execute("INSERT INTO orders (item) VALUES ('milk')")
            begun.set()
            await soon(checked.wait())

    jobs = JobRunner(tmp_db)
    async with jobs.running():
        async with AsyncSession(engine) as session:
            await session.execute(ADD)
            await session.commit()
        somebody = asyncio.create_task(write(), context=contextvars.Context())
        await soon(begun.wait())
        store_of(jobs).refuse_wait("this")
        checked.set()
        await somebody
    await engine.dispose()


async def test_session_that_outlives_the_runner_can_still_be_committed(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker cannot sign off before the commit; that is no reason to break off what the session is in."""
    monkeypatch.setattr("jobrunner.store.sqlite.connection.BUSY_TIMEOUT_S", 0.1)
    make_table(tmp_db)
    engine = async_engine(tmp_db)
    async with AsyncSession(engine) as session:
        async with JobRunner(tmp_db).running():
            await session.execute(ADD)
        await session.commit()
    await engine.dispose()
    assert count_rows(tmp_db) == 1
    assert "could not sign off" in caplog.text


async def test_session_begun_before_the_runner_was_opened_stops_nothing_that_a_job_waits_for(
    tmp_db: Path,
) -> None:
    """Jobs run in copies of the context in which the runner was opened, and wait for that session as for any other."""
    make_table(tmp_db)
    engine, jobs = async_engine(tmp_db), JobRunner(tmp_db)
    jobs.include(tasks)
    written, checked = asyncio.Event(), asyncio.Event()

    @jobs.task
    async def asks() -> None:
        await soon(written.wait())
        try:
            store_of(jobs).refuse_wait("this")
        finally:
            checked.set()
        await ship.enqueue(1)

    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT 1"))
        async with jobs.running():
            job = await asks.enqueue()
            await session.execute(ADD)
            with pytest.raises(WouldDeadlock):
                await ship.enqueue(2)
            written.set()
            await soon(checked.wait())
            await session.commit()
            await job.result(PATIENCE_S)
            assert len((await job.refresh()).history) == 1
    await engine.dispose()
