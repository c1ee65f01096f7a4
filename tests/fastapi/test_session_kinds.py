"""Queues that join each kind of session, in routes and in threads."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import aiosqlite
import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import Session

from jobrunner import JobQueue, JobRunner, SyncQueue, WrongThread
from jobrunner.fastapi import sync_job_queue
from tests.support.engine import soon
from tests.support.joined_shop import ADD, Shop, result_of, ship, tasks
from tests.support.sessions import async_engine, count_jobs, count_rows, make_table, sync_engine


@pytest.fixture
def shop(tmp_db: Path) -> Shop:
    return Shop(tmp_db)


def test_aiosqlite_connection_as_the_session(tmp_db: Path) -> None:
    async def get_db() -> AsyncIterator[aiosqlite.Connection]:
        async with aiosqlite.connect(tmp_db) as db:
            yield db

    jobs = JobRunner(tmp_db, session=get_db)
    jobs.include(tasks)
    app = FastAPI(lifespan=jobs.lifespan)

    @app.post("/")
    async def post(
        db: Annotated[aiosqlite.Connection, Depends(get_db)],
        queue: Annotated[JobQueue, Depends(jobs.queue)],
    ) -> str:
        await db.execute("INSERT INTO orders (item) VALUES ('tea')")
        job = await queue.enqueue(ship, 1)
        assert count_jobs(tmp_db) == 0
        await db.commit()
        return job.id

    with TestClient(app) as client:
        make_table(tmp_db)
        id = client.post("/").json()
        assert client.portal is not None
        assert client.portal.call(result_of, jobs, id) == 1
        assert count_rows(tmp_db) == 1


def test_async_connection_as_the_session(tmp_db: Path) -> None:
    engine = async_engine(tmp_db)

    async def get_connection() -> AsyncIterator[AsyncConnection]:
        async with engine.begin() as connection:
            yield connection

    jobs = JobRunner(tmp_db, session=Depends(get_connection, scope="function"))
    jobs.include(tasks)
    app = FastAPI(lifespan=jobs.lifespan)

    @app.post("/")
    async def post(queue: Annotated[JobQueue, Depends(jobs.queue)]) -> str:
        return (await queue.enqueue(ship, 1)).id

    with TestClient(app) as client:
        id = client.post("/").json()
        assert client.portal is not None
        assert client.portal.call(result_of, jobs, id) == 1
        client.portal.call(engine.dispose)


def test_def_route_on_a_sync_session_writes_in_its_own_thread(tmp_db: Path) -> None:
    engine = sync_engine(tmp_db)

    def get_session() -> Iterator[Session]:
        with Session(engine) as session, session.begin():
            yield session

    jobs = JobRunner(tmp_db, session=Depends(get_session, scope="function"))
    jobs.include(tasks)
    app = FastAPI(lifespan=jobs.lifespan)
    threads: list[tuple[int, int]] = []

    @app.post("/{how}")
    def post(
        how: str,
        session: Annotated[Session, Depends(get_session, scope="function")],
        queue: Annotated[SyncQueue, Depends(jobs.sync_queue)],
        by_alias: Annotated[
            SyncQueue, Depends(sync_job_queue(Depends(get_session, scope="function")))
        ],
    ) -> list[str]:
        here = threading.get_ident()
        raw: Any = session.connection().connection.driver_connection
        raw.set_trace_callback(lambda _: threads.append((threading.get_ident(), here)))
        session.execute(ADD)
        if how == "many":
            made = [job.id for job in queue.enqueue_many([ship.call(1), ship.call(2)])]
        else:
            made = [by_alias.enqueue(ship, 1).id]
        raw.set_trace_callback(None)
        assert count_jobs(tmp_db) == 0
        return made

    with TestClient(app) as client:
        make_table(tmp_db)
        ids = [*client.post("/many").json()]
        assert count_jobs(tmp_db) == 2
        assert client.portal is not None
        for id in ids:
            client.portal.call(result_of, jobs, id)
    assert threads
    assert all(thread == here for thread, here in threads)
    engine.dispose()


def test_async_session_in_a_def_route_goes_through_the_loop(shop: Shop) -> None:
    @shop.app.post("/")
    def post(queue: Annotated[SyncQueue, Depends(shop.jobs.sync_queue)]) -> str:
        return queue.enqueue(ship, 1).id

    @shop.app.post("/other-loop")
    def other_loop(queue: Annotated[JobQueue, Depends(shop.jobs.queue)]) -> str:
        with pytest.raises(WrongThread, match="another one"):
            asyncio.run(_enqueue(queue))
        return "refused"

    with shop.open() as client:
        assert shop.ids() == []
        id = client.post("/").json()
        assert shop.ids() == [id]
        assert client.post("/other-loop").json() == "refused"


async def _enqueue(queue: JobQueue) -> None:
    await queue.enqueue(ship, 1)


async def test_sync_verbs_store_through_a_sync_session_of_their_thread(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db, work=False)
    jobs.include(tasks)

    def work() -> None:
        conn = sqlite3.connect(tmp_db)  # of this thread alone
        jobs.sync.enqueue(ship.options(session=conn), 1)
        jobs.sync.enqueue_many([ship.options(session=conn).call(2)])
        jobs.sync.enqueue_chain([ship.options(session=conn).call(number) for number in (3, 4)])
        assert count_jobs(tmp_db) == 0
        conn.commit()
        conn.close()

    async with jobs.running():
        await soon(asyncio.to_thread(work))
        assert count_jobs(tmp_db) == 4
