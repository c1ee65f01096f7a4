"""Routes whose queue joins the request's session: one transaction, one commit, one answer."""

import logging
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.testclient import TestClient
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession

from jobrunner import JobQueue, JobRunner, NotCommitted
from jobrunner.fastapi import job_queue, sync_job_queue
from jobrunner.queue.queue import enqueuer_of
from tests.support.engine import PATIENCE_S
from tests.support.joined_shop import ADD, Shop, bill, result_of, ship, tasks
from tests.support.sessions import async_engine, count_jobs, count_rows


def fails(response: Any) -> bool:
    return bool(response.status_code == 500)


@pytest.fixture
def shop(tmp_db: Path) -> Shop:
    return Shop(tmp_db)


def test_route_and_queue_hold_one_session_and_commit_once(shop: Shop) -> None:
    SessionDep = Annotated[AsyncSession, Depends(shop.get_session, scope="function")]  # noqa: N806
    by_name = job_queue(Depends(shop.get_session, scope="function"))

    @shop.app.post("/runner")
    async def by_runner(
        session: SessionDep, queue: Annotated[JobQueue, Depends(shop.jobs.queue)]
    ) -> str:
        await session.execute(ADD)
        assert enqueuer_of(queue).sink.source is session
        job = await queue.enqueue(ship, 1)
        assert count_jobs(shop.path) == 0
        return job.id

    @shop.app.post("/alias")
    async def by_alias(
        queue: Annotated[JobQueue, Depends(by_name)], session: SessionDep
    ) -> list[str]:
        made = await queue.enqueue_many([ship.call(2), bill.call(2)])
        return [job.id for job in made]

    with shop.open() as client:
        first = client.post("/runner").json()
        others = client.post("/alias").json()
        assert shop.ids() == [first, *others]
        assert count_rows(shop.path) == 1
        for id in shop.ids():
            shop.run(lambda id=id: result_of(shop.jobs, id))
    assert len(shop.sessions) == 2


def test_job_queue_is_the_same_function_for_the_same_argument() -> None:
    def get_session() -> None: ...

    assert job_queue(get_session) is job_queue(get_session)
    assert job_queue(Depends(get_session)) is job_queue(get_session)
    assert job_queue(Depends(get_session, scope="function")) is job_queue(
        Depends(get_session, scope="function")
    )
    assert job_queue(get_session) is not job_queue(Depends(get_session, scope="function"))
    assert sync_job_queue(get_session) is sync_job_queue(get_session)


def test_rollback_in_the_route_or_its_error_leaves_no_job_and_no_error_in_the_log(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    @shop.app.post("/{how}")
    async def post(
        how: str,
        session: Annotated[AsyncSession, Depends(shop.get_session, scope="function")],
        queue: Annotated[JobQueue, Depends(shop.jobs.queue)],
    ) -> str:
        await session.execute(ADD)
        job = await queue.enqueue(ship, 1)
        if how == "rollback":
            await session.rollback()
        if how == "refuse":
            raise HTTPException(409)
        if how == "invalid":
            return 5  # type: ignore[return-value]
        if how == "taken":
            await session.execute(text("INSERT INTO orders (id, item) VALUES (9, 'tea')"))
        return job.id

    with shop.open() as client:
        assert client.post("/rollback").status_code == 200
        assert client.post("/refuse").status_code == 409
        assert fails(client.post("/invalid"))
        assert fails(client.post("/taken"))
        assert (count_jobs(shop.path), count_rows(shop.path)) == (0, 0)
    assert not [
        record
        for record in caplog.records
        if record.name == "jobrunner" and record.levelno >= logging.ERROR
    ]


def test_failing_commit_is_a_500_and_no_job(shop: Shop) -> None:
    @shop.app.post("/", status_code=201)
    async def post(
        session: Annotated[AsyncSession, Depends(shop.get_session, scope="function")],
        queue: Annotated[JobQueue, Depends(shop.jobs.queue)],
    ) -> str:
        # Deferred: it is the COMMIT that finds it broken.
        await session.execute(text("PRAGMA defer_foreign_keys = ON"))
        await session.execute(text("INSERT INTO parts VALUES (7)"))
        return (await queue.enqueue(ship, 1)).id

    with shop.open() as client:
        conn = sqlite3.connect(shop.path)
        conn.execute(
            "CREATE TABLE parts (of INTEGER REFERENCES orders DEFERRABLE INITIALLY DEFERRED)"
        )
        conn.commit()
        conn.close()

        @event.listens_for(shop.engine.sync_engine, "connect")
        def keys(connection: Any, _: object) -> None:
            connection.execute("PRAGMA foreign_keys = ON")

        assert fails(client.post("/"))
        assert count_jobs(shop.path) == 0


def test_I1_answer_that_is_lost_after_the_commit_is_found_again_by_the_key(shop: Shop) -> None:
    lose = threading.Event()

    @shop.app.middleware("http")
    async def lossy(request: Any, call_next: Any) -> Any:
        answer = await call_next(request)
        if lose.is_set():
            raise ConnectionResetError("the answer is lost")
        return answer

    @shop.app.post("/")
    async def post(queue: Annotated[JobQueue, Depends(shop.jobs.queue)]) -> str:
        return (await queue.enqueue(ship.options(key="order-1", delay=3600), 1)).id

    with shop.open() as client:
        lose.set()
        assert fails(client.post("/"))
        lose.clear()
        again = client.post("/").json()
        assert shop.ids() == [again]


def test_worker_is_woken_after_the_commit_and_never_before(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    wakes: list[int] = []

    @shop.app.post("/")
    async def post(queue: Annotated[JobQueue, Depends(shop.jobs.queue)]) -> str:
        id = (await queue.enqueue(ship, 1)).id
        assert wakes == []
        return id

    with shop.open() as client:
        assert shop.jobs._open is not None
        parts = enqueuer_of(shop.jobs._open).parts
        wake = parts.notify

        def notify() -> None:
            wakes.append(count_jobs(shop.path))
            wake()

        parts.notify = notify
        client.post("/").raise_for_status()
        assert wakes == [1]


def test_result_before_the_commit_says_what_to_do(shop: Shop) -> None:
    @shop.app.post("/joined")
    async def post(queue: Annotated[JobQueue, Depends(shop.jobs.queue)]) -> str:
        job = await queue.enqueue(ship, 7)
        said = ""
        for wait in (job.result, job.refresh):
            with pytest.raises(NotCommitted, match=r"await session.commit\(\)") as refusal:
                await wait()
            said = str(refusal.value)
        return said

    @shop.app.post("/")
    async def outside() -> int:
        async with AsyncSession(shop.engine) as session:
            job = await ship.options(session=session).enqueue(7)
            with pytest.raises(NotCommitted):
                await job.result()
            await session.commit()
            assert (await job.refresh()).id == job.id
            return await job.result(PATIENCE_S)

    with shop.open() as client:
        assert "ship" in client.post("/joined").json()
        assert client.post("/").json() == 7


# -- what a session must not end with ---------------------------------------------------------------------


def test_session_that_only_closes_is_an_error_that_names_the_route_and_the_tasks(
    tmp_db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = async_engine(tmp_db)

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as session:
            yield session

    jobs = JobRunner(tmp_db, session=get_session)
    jobs.include(tasks)
    app = FastAPI(lifespan=jobs.lifespan)

    @app.post("/register")
    async def register(
        session: Annotated[AsyncSession, Depends(get_session)],
        queue: Annotated[JobQueue, Depends(jobs.queue)],
        refuse: bool = False,
    ) -> str:
        await session.commit()
        id = (await queue.enqueue(ship, 1)).id
        if refuse:
            raise HTTPException(409)
        return id

    with TestClient(app) as client:
        assert client.post("/register?refuse=true").status_code == 409
        assert "without a commit" not in caplog.text
        client.post("/register").raise_for_status()
        assert client.portal is not None
        client.portal.call(engine.dispose)
    assert count_jobs(tmp_db) == 0
    (said,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "POST /register" in said.message
    assert "ship" in said.message
    assert "without a commit of the 1 job(s)" in said.message
    assert "await session.commit()" in said.message
