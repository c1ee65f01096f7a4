"""Routes whose queue joins the request's session: one transaction, one session, one answer."""

import asyncio
import contextvars
import gc
import logging
import sqlite3
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import aiosqlite
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, WebSocket
from fastapi.testclient import TestClient
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.pool import AsyncAdaptedQueuePool

from jobrunner import (
    ConfigurationError,
    InvalidOptions,
    InvalidSession,
    JobQueue,
    JobRunner,
    NotCommitted,
    SyncQueue,
    TaskRouter,
    WouldDeadlock,
    WrongThread,
)
from jobrunner.fastapi import Background, Queue, bearer, job_queue, sync_job_queue
from jobrunner.fastapi import SyncQueue as PlainSyncQueue
from jobrunner.queue.queue import enqueuer_of
from tests.support.engine import PATIENCE_S, soon, store_of
from tests.support.sessions import async_engine, count_jobs, count_rows, make_table, sync_engine

tasks = TaskRouter()

ADD = text("INSERT INTO orders (item) VALUES ('tea')")


@tasks.task
async def ship(order: int) -> int:
    return order


@tasks.task
async def bill(order: int) -> None: ...


def fails(response: Any) -> bool:
    return bool(response.status_code == 500)


class Shop:
    """An app on a runner with the shipped form of a session: commit after the route, before the answer."""

    def __init__(self, database: Path) -> None:
        self.path = database
        self.engine: AsyncEngine = async_engine(database)
        self.sessions: list[AsyncSession] = []
        self.jobs = JobRunner(database, session=Depends(self.get_session, scope="function"))
        self.jobs.include(tasks)
        self.app = FastAPI(lifespan=self.jobs.lifespan)
        self.client = TestClient(self.app, raise_server_exceptions=False)

    async def get_session(self) -> AsyncIterator[AsyncSession]:
        async with AsyncSession(self.engine) as session, session.begin():
            self.sessions.append(session)
            yield session

    def ids(self) -> list[str]:
        conn = sqlite3.connect(self.path)
        try:
            return [id for (id,) in conn.execute("SELECT id FROM jobrunner_jobs ORDER BY seq")]
        finally:
            conn.close()

    @contextmanager
    def open(self) -> Iterator[TestClient]:
        with self.client as client:
            make_table(self.path)
            yield client
            assert client.portal is not None
            client.portal.call(self.engine.dispose)

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        assert self.client.portal is not None
        return self.client.portal.call(function, *args)


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
            shop.run(lambda id=id: _result(shop.jobs, id))
    assert len(shop.sessions) == 2


async def _result(jobs: JobRunner, id: str) -> object:
    return await (await jobs.get(id)).result(PATIENCE_S)


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
        "result": lambda id: _result(jobs, id),
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


# -- the other kinds ---------------------------------------------------------------------------------------


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
        assert client.portal.call(_result, jobs, id) == 1
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
        assert client.portal.call(_result, jobs, id) == 1
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
            client.portal.call(_result, jobs, id)
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


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["queue", "sync"])
def test_plain_queue_on_a_runner_with_a_session_says_which_alias_to_write(
    shop: Shop, name: str
) -> None:
    @shop.app.post("/queue")
    async def plain(queue: Queue) -> None: ...

    @shop.app.post("/sync")
    def plain_sync(queue: PlainSyncQueue) -> None: ...

    with TestClient(shop.app) as client, pytest.raises(ConfigurationError) as refusal:
        client.post(f"/{name}")
    assert 'Annotated[JobQueue, Depends(job_queue(Depends(get_session, scope="function")))]' in str(
        refusal.value
    )


def mismatched(tmp_db: Path, build: Callable[[FastAPI, JobRunner, Any], None], session: Any) -> str:
    async def get_session() -> AsyncIterator[None]:
        yield None

    jobs = JobRunner(tmp_db, session=session(get_session))
    app = FastAPI(lifespan=jobs.lifespan)
    build(app, jobs, get_session)
    with pytest.raises(ConfigurationError) as refusal, TestClient(app):
        pass
    return str(refusal.value)


def on_the_app(app: FastAPI, jobs: JobRunner, get_session: Any) -> None:
    @app.post("/orders")
    async def post(
        session: Annotated[None, Depends(get_session, scope="function")],
        queue: Annotated[JobQueue, Depends(jobs.queue)],
    ) -> None: ...


def on_a_router(app: FastAPI, jobs: JobRunner, get_session: Any) -> None:
    router = APIRouter(prefix="/v1")
    on_the_app(router, jobs, get_session)  # type: ignore[arg-type]
    app.include_router(router, prefix="/api")


def on_the_inclusion(app: FastAPI, jobs: JobRunner, get_session: Any) -> None:
    router = APIRouter()

    @router.post("/orders")
    async def post(queue: Annotated[JobQueue, Depends(jobs.queue)]) -> None: ...

    app.include_router(router, dependencies=[Depends(get_session, scope="function")])


def on_a_mounted_app(app: FastAPI, jobs: JobRunner, get_session: Any) -> None:
    inner = FastAPI()
    on_the_app(inner, jobs, get_session)
    app.mount("/inner", inner)


def in_a_service(app: FastAPI, jobs: JobRunner, get_session: Any) -> None:
    async def get_service(
        session: Annotated[None, Depends(get_session, scope="function")],
    ) -> None: ...

    @app.post("/orders")
    async def post(
        queue: Annotated[JobQueue, Depends(jobs.queue)],
        service: Annotated[None, Depends(get_service)],
    ) -> None: ...


def in_a_sync_queue(app: FastAPI, jobs: JobRunner, get_session: Any) -> None:
    @app.post("/orders")
    def post(
        session: Annotated[None, Depends(get_session, scope="function")],
        queue: Annotated[SyncQueue, Depends(jobs.sync_queue)],
    ) -> None: ...


def on_a_websocket(app: FastAPI, jobs: JobRunner, get_session: Any) -> None:
    @app.websocket("/orders")
    async def post(
        session: Annotated[None, Depends(get_session, scope="function")],
        queue: Annotated[JobQueue, Depends(jobs.queue)],
    ) -> None: ...


@pytest.mark.parametrize(
    ("build", "path"),
    [
        (on_the_app, "POST /orders"),
        (on_a_router, "POST /api/v1/orders"),
        (on_the_inclusion, "POST /orders"),
        (on_a_mounted_app, "POST /inner/orders"),
        (in_a_service, "POST /orders"),
        (in_a_sync_queue, "POST /orders"),
        (on_a_websocket, "WebSocket /orders"),
    ],
)
def test_route_that_holds_the_session_in_another_scope_is_refused_at_start(
    tmp_db: Path, build: Callable[[FastAPI, JobRunner, Any], None], path: str
) -> None:
    said = mismatched(tmp_db, build, lambda function: function)
    assert said.startswith(f"{path}: ")
    assert 'JobRunner(session=Depends(get_session, scope="function"))' in said


def queue_alone(shop: Shop) -> None:
    @shop.app.websocket("/ws")
    async def ws(
        socket: WebSocket, queue: Annotated[JobQueue, Depends(shop.jobs.queue)]
    ) -> None: ...


def queue_in_a_service(shop: Shop) -> None:
    class Desk:
        def __init__(self, queue: Annotated[SyncQueue, Depends(shop.jobs.sync_queue)]) -> None: ...

    @shop.app.websocket("/ws")
    async def ws(socket: WebSocket, desk: Annotated[Desk, Depends()]) -> None: ...


def queue_by_name(shop: Shop) -> None:
    queue_dep = Annotated[JobQueue, Depends(job_queue(shop.get_session))]

    @shop.app.websocket("/ws")
    async def ws(socket: WebSocket, queue: queue_dep) -> None: ...


@pytest.mark.parametrize("build", [queue_alone, queue_in_a_service, queue_by_name])
def test_queue_of_a_websocket_whose_session_nobody_can_commit_is_refused_at_start(
    shop: Shop, build: Callable[[Shop], None]
) -> None:
    build(shop)
    with (
        pytest.raises(
            ConfigurationError, match=r"^WebSocket /ws: its queue stores jobs"
        ) as refusal,
        shop.open(),
    ):
        pass
    assert "write `await task.enqueue(...)` for each message" in str(refusal.value)


def test_websocket_stores_each_message_where_the_runner_has_a_session(shop: Shop) -> None:
    """The code that the error message suggests, and the alternative: a session that the route commits."""

    @shop.app.websocket("/own")
    async def own(socket: WebSocket) -> None:
        await socket.accept()
        async for order in socket.iter_text():
            job = await ship.enqueue(int(order))
            await socket.send_text(job.id)

    @shop.app.websocket("/joined")
    async def joined(
        socket: WebSocket,
        session: Annotated[AsyncSession, Depends(shop.get_session, scope="function")],
        queue: Annotated[JobQueue, Depends(shop.jobs.queue)],
    ) -> None:
        await socket.accept()
        job = await queue.enqueue(ship, int(await socket.receive_text()))
        await session.commit()
        await socket.send_text(job.id)

    with shop.open() as client:
        for path in ("/own", "/joined"):
            with client.websocket_connect(path) as socket:
                socket.send_text("1")
                assert socket.receive_text() == shop.ids()[-1]
        assert len(shop.ids()) == 2


def test_session_that_is_a_method_is_refused_in_another_scope_too(shop: Shop) -> None:
    """FastAPI treats equal functions as the same, and each access to a method makes a new object."""

    @shop.app.post("/orders")
    async def post(
        session: Annotated[AsyncSession, Depends(shop.get_session)],
        queue: Annotated[JobQueue, Depends(shop.jobs.queue)],
    ) -> None: ...

    with pytest.raises(ConfigurationError, match="takes for two sessions"), shop.open():
        pass


def test_route_without_a_cached_session_is_refused_at_start(tmp_db: Path) -> None:
    def build(app: FastAPI, jobs: JobRunner, get_session: Any) -> None:
        @app.post("/orders")
        async def post(
            session: Annotated[None, Depends(get_session, use_cache=False)],
            queue: Annotated[JobQueue, Depends(jobs.queue)],
        ) -> None: ...

    assert "use_cache=False" in mismatched(tmp_db, build, lambda function: function)


def test_equal_scopes_in_other_words_pass(tmp_db: Path) -> None:
    async def get_session() -> AsyncIterator[None]:
        yield None

    jobs = JobRunner(tmp_db, session=get_session)
    app = FastAPI(lifespan=jobs.lifespan)
    app.include_router(jobs.router(read=bearer("secret")), prefix="/jobs")

    @app.post("/orders")
    async def post(
        session: Annotated[None, Depends(get_session, scope="request")],
        queue: Annotated[JobQueue, Depends(jobs.queue)],
    ) -> None: ...

    @app.post("/elsewhere")
    async def elsewhere(
        session: Annotated[None, Depends(get_session, scope="function")],
    ) -> None: ...

    with TestClient(app, headers={"Authorization": "Bearer secret"}) as client:
        # Its routes steer the queue, and open no session.
        assert client.get("/jobs").status_code == 200


def test_what_is_no_dependency_is_refused(tmp_db: Path) -> None:
    for wrong in ("get_session", Depends()):
        with pytest.raises(ConfigurationError, match="session=get_session"):
            JobRunner(tmp_db, session=wrong)  # type: ignore[arg-type]

    def get_session() -> None: ...

    with pytest.raises(ConfigurationError, match="use_cache=False"):
        JobRunner(tmp_db, session=Depends(get_session, use_cache=False))


async def test_calls_with_different_sessions_in_one_enqueue_many_are_refused(
    tmp_db: Path,
) -> None:
    jobs = JobRunner(tmp_db, work=False)
    jobs.include(tasks)
    async with jobs.running():
        conn = sqlite3.connect(tmp_db)
        joined = ship.options(session=conn)
        with pytest.raises(InvalidOptions, match="the same session"):
            await jobs.enqueue_many([joined.call(1), ship.call(2)])
        made = await jobs.enqueue_many([joined.call(1), joined.options(tag="x").call(2)])
        with pytest.raises(InvalidOptions, match="10,000"):
            await jobs.enqueue_many([joined.call(1)] * 10_001)
        assert count_jobs(tmp_db) == 0
        conn.commit()
        conn.close()
        assert (await jobs.get(made[1].id)).tag == "x"
        with pytest.raises(InvalidSession, match="hand in"):
            await jobs.enqueue(ship.options(session="session"), 1)


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
