"""Background tasks beside a session: with its rows if there are any to commit, else in a commit of their own."""

import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import aiosqlite
import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.testclient import TestClient
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from jobrunner import ConfigurationError, JobQueue, JobRunner, StoreFull, TaskRouter
from jobrunner.fastapi import DurableBackgroundTasks, job_background
from tests.support.engine import committer_of
from tests.support.sessions import async_engine, count_jobs, count_rows, make_table, sync_engine

tasks = TaskRouter()

ADD = text("INSERT INTO orders (item) VALUES ('tea')")


@tasks.task
async def ship(order: int) -> None: ...


@tasks.task
async def bill(order: int) -> None: ...


class Base(DeclarativeBase): ...


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


class Shop:
    """An app on a runner with the shipped form of a session, whose jobs are stored and never run."""

    def __init__(self, database: Path) -> None:
        self.path = database
        self.engine = async_engine(database)
        self.jobs = JobRunner(
            database, work=False, session=Depends(self.get_session, scope="function")
        )
        self.jobs.include(tasks)
        self.app = FastAPI(lifespan=self.jobs.lifespan)
        self.own_commits = 0

    async def get_session(self) -> AsyncIterator[AsyncSession]:
        async with AsyncSession(self.engine) as session, session.begin():
            yield session

    def serve(self) -> Iterator[TestClient]:
        with TestClient(self.app, raise_server_exceptions=False) as client:
            make_table(self.path)
            committer = committer_of(self.jobs)
            store = committer.submit

            def count(jobs: Any) -> Any:
                self.own_commits += 1
                return store(jobs)

            committer.submit = count  # type: ignore[method-assign]
            yield client
            assert client.portal is not None
            client.portal.call(self.engine.dispose)

    def counts(self) -> tuple[int, int]:
        """Return how many jobs and rows a stranger sees."""
        return count_jobs(self.path), count_rows(self.path)


@pytest.fixture
def shop(tmp_db: Path) -> Shop:
    return Shop(tmp_db)


@pytest.fixture
def client(shop: Shop) -> Iterator[TestClient]:
    yield from shop.serve()


def add_two(background: DurableBackgroundTasks) -> None:
    background.add_task(ship, 1)
    background.add_task(bill, 1)


def chain_in(path: Path) -> list[tuple[str, str, bool]]:
    conn = sqlite3.connect(path)
    try:
        rows = conn.execute("SELECT task, state, chain FROM jobrunner_jobs ORDER BY seq").fetchall()
    finally:
        conn.close()
    return [(task.rpartition(".")[2], state, chain is not None) for task, state, chain in rows]


CHAIN = [("ship", "queued", True), ("bill", "blocked", True)]


@pytest.mark.parametrize("how", ["flushed", "unflushed"])
def test_tasks_are_committed_with_the_rows_of_the_session(
    shop: Shop, client: TestClient, how: str
) -> None:
    @shop.app.post("/")
    async def order(
        background: Annotated[DurableBackgroundTasks, Depends(shop.jobs.background)],
        session: Annotated[AsyncSession, Depends(shop.get_session, scope="function")],
    ) -> None:
        add_two(background)
        if how == "flushed":
            await session.execute(ADD)
        else:
            session.add(Order(item="tea"))

    client.post("/").raise_for_status()
    assert chain_in(shop.path) == CHAIN
    assert count_rows(shop.path) == 1
    assert shop.own_commits == 0


def test_function_for_routes_without_a_runner_at_hand_does_the_same(
    shop: Shop, client: TestClient
) -> None:
    get_session = Depends(shop.get_session, scope="function")

    class Orders:
        def __init__(
            self,
            background: Annotated[DurableBackgroundTasks, Depends(job_background(get_session))],
            session: Annotated[AsyncSession, get_session],
        ) -> None:
            self.background, self.session = background, session

    @shop.app.post("/")
    async def order(
        orders: Annotated[Orders, Depends()],
        own: Annotated[DurableBackgroundTasks, Depends(shop.jobs.background)],
    ) -> None:
        assert orders.background is own
        await orders.session.execute(ADD)
        add_two(orders.background)

    client.post("/").raise_for_status()
    assert chain_in(shop.path) == CHAIN
    assert (count_rows(shop.path), shop.own_commits) == (1, 0)


def test_function_is_the_same_for_the_same_argument() -> None:
    def get_session() -> None: ...

    assert job_background(get_session) is job_background(Depends(get_session))
    by_function = job_background(Depends(get_session, scope="function"))
    assert by_function is job_background(Depends(get_session, scope="function"))
    assert by_function is not job_background(get_session)
    with pytest.raises(ConfigurationError, match="use_cache=False"):
        job_background(Depends(get_session, use_cache=False))
    with pytest.raises(ConfigurationError, match="is no dependency"):
        job_background("get_session")  # type: ignore[arg-type]


@pytest.mark.parametrize("before", ["nothing", "read", "commit", "rollback"])
def test_session_without_changes_leaves_the_tasks_a_commit_of_their_own(
    shop: Shop, client: TestClient, before: str
) -> None:
    @shop.app.post("/")
    async def order(
        background: Annotated[DurableBackgroundTasks, Depends(shop.jobs.background)],
        session: Annotated[AsyncSession, Depends(shop.get_session, scope="function")],
    ) -> None:
        if before == "read":
            await session.execute(text("SELECT * FROM orders"))
        if before in {"commit", "rollback"}:
            await session.execute(ADD)
            await (session.commit() if before == "commit" else session.rollback())
        add_two(background)

    client.post("/").raise_for_status()
    assert chain_in(shop.path) == CHAIN
    assert count_rows(shop.path) == (1 if before == "commit" else 0)
    assert shop.own_commits == 1


@pytest.mark.parametrize("how", ["refuse", "invalid", "commit"])
def test_request_that_fails_leaves_neither_rows_nor_jobs(
    shop: Shop, client: TestClient, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    conn = sqlite3.connect(shop.path)
    conn.execute("CREATE TABLE parts (of INTEGER REFERENCES orders DEFERRABLE INITIALLY DEFERRED)")
    conn.commit()
    conn.close()

    @event.listens_for(shop.engine.sync_engine, "connect")
    def keys(connection: Any, _: object) -> None:
        connection.execute("PRAGMA foreign_keys = ON")

    @shop.app.post("/")
    async def order(
        background: Annotated[DurableBackgroundTasks, Depends(shop.jobs.background)],
        session: Annotated[AsyncSession, Depends(shop.get_session, scope="function")],
    ) -> int:
        await session.execute(ADD)
        add_two(background)
        if how == "refuse":
            raise HTTPException(409)
        if how == "invalid":
            return "no number"  # type: ignore[return-value]
        # It is the COMMIT that finds it broken.
        await session.execute(text("INSERT INTO parts VALUES (7)"))
        return 1

    assert client.post("/").status_code == (409 if how == "refuse" else 500)
    assert shop.counts() == (0, 0)
    assert shop.own_commits == 0
    assert not [one for one in caplog.records if one.name == "jobrunner" and one.levelno >= 40]


def test_store_that_fails_rolls_the_rows_back(
    shop: Shop, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    @shop.app.post("/")
    async def order(
        background: Annotated[DurableBackgroundTasks, Depends(shop.jobs.background)],
        session: Annotated[AsyncSession, Depends(shop.get_session, scope="function")],
    ) -> None:
        await session.execute(ADD)
        add_two(background)

    async def full(*_: object, **__: object) -> None:
        raise StoreFull("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("jobrunner.store.session_writer.SessionWriter.insert", full)
        assert client.post("/").status_code == 500
        assert shop.counts() == (0, 0)
    client.post("/").raise_for_status()
    assert shop.counts() == (2, 1)


def test_session_that_nobody_commits_is_an_error_that_names_the_route(
    tmp_db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = async_engine(tmp_db)

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as session:
            yield session

    jobs = JobRunner(tmp_db, work=False, session=get_session)
    jobs.include(tasks)
    app = FastAPI(lifespan=jobs.lifespan)

    @app.post("/register")
    async def register(
        session: Annotated[AsyncSession, Depends(get_session)],
        background: Annotated[DurableBackgroundTasks, Depends(jobs.background)],
    ) -> None:
        await session.execute(ADD)
        background.add_task(ship, 1)

    with TestClient(app) as client:
        make_table(tmp_db)
        client.post("/register").raise_for_status()
        assert client.portal is not None
        client.portal.call(engine.dispose)
    assert (count_jobs(tmp_db), count_rows(tmp_db)) == (0, 0)
    (said,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "POST /register" in said.message
    assert "ship" in said.message


# -- the other kinds ------------------------------------------------------------------------------------------


def served(path: Path, get_session: Callable[..., Any], route: Callable[..., Any]) -> int:
    """Serve one route on a runner with this session; return the number of jobs that one request leaves."""
    jobs = JobRunner(path, work=False, session=Depends(get_session, scope="function"))
    jobs.include(tasks)
    app = FastAPI(lifespan=jobs.lifespan)
    background = Annotated[DurableBackgroundTasks, Depends(jobs.background)]
    route.__annotations__["background"] = background
    app.post("/")(route)
    with TestClient(app) as client:
        make_table(path)
        client.post("/").raise_for_status()
    return count_jobs(path)


def test_aiosqlite_connection_as_the_session(tmp_db: Path) -> None:
    async def get_db() -> AsyncIterator[aiosqlite.Connection]:
        async with aiosqlite.connect(tmp_db) as db:
            yield db
            assert count_jobs(tmp_db) == 0
            await db.commit()

    async def route(
        db: Annotated[aiosqlite.Connection, Depends(get_db, scope="function")], background: Any
    ) -> None:
        await db.execute("INSERT INTO orders (item) VALUES ('tea')")
        add_two(background)

    assert served(tmp_db, get_db, route) == 2
    assert count_rows(tmp_db) == 1


def test_async_connection_as_the_session(tmp_db: Path) -> None:
    engine = async_engine(tmp_db)

    async def get_connection() -> AsyncIterator[AsyncConnection]:
        async with engine.begin() as connection:
            yield connection
            assert count_jobs(tmp_db) == 0
        await engine.dispose()

    async def route(
        connection: Annotated[AsyncConnection, Depends(get_connection, scope="function")],
        background: Any,
    ) -> None:
        await connection.execute(ADD)
        add_two(background)

    assert served(tmp_db, get_connection, route) == 2
    assert count_rows(tmp_db) == 1


@pytest.mark.parametrize("writes", [True, False])
def test_sync_session_of_a_thread_is_used_in_a_thread(tmp_db: Path, writes: bool) -> None:
    engine = sync_engine(tmp_db)
    threads: set[int] = set()
    loops: set[int] = set()

    @event.listens_for(engine, "connect")
    def trace(connection: Any, _: object) -> None:
        connection.set_trace_callback(lambda _: threads.add(threading.get_ident()))

    def get_session() -> Iterator[Session]:
        with Session(engine) as session, session.begin():
            yield session
            assert count_jobs(tmp_db) == (0 if writes else 2)

    async def on_the_loop() -> None:
        loops.add(threading.get_ident())

    def route(
        session: Annotated[Session, Depends(get_session, scope="function")],
        _: Annotated[None, Depends(on_the_loop)],
        background: Any,
    ) -> None:
        if writes:
            session.execute(ADD)
        add_two(background)

    assert served(tmp_db, get_session, route) == 2
    assert count_rows(tmp_db) == writes
    assert bool(threads) == writes
    assert not threads & loops
    engine.dispose()


def test_sqlite_connection_of_the_loop_is_used_on_the_loop(tmp_db: Path) -> None:
    async def get_db() -> AsyncIterator[sqlite3.Connection]:
        # Refuses every other thread.
        conn = sqlite3.connect(tmp_db)
        try:
            yield conn
            conn.commit()
        finally:
            conn.close()

    async def route(
        db: Annotated[sqlite3.Connection, Depends(get_db, scope="function")], background: Any
    ) -> None:
        db.execute("INSERT INTO orders (item) VALUES ('tea')")
        add_two(background)

    assert served(tmp_db, get_db, route) == 2
    assert count_rows(tmp_db) == 1


# -- what is refused ------------------------------------------------------------------------------------------


def test_route_that_holds_the_session_in_another_scope_is_refused_at_the_start(
    tmp_db: Path,
) -> None:
    async def get_session() -> AsyncIterator[None]:
        yield None

    jobs = JobRunner(tmp_db, session=get_session)
    app = FastAPI(lifespan=jobs.lifespan)

    @app.post("/orders")
    async def order(
        session: Annotated[None, Depends(get_session, scope="function")],
        background: Annotated[DurableBackgroundTasks, Depends(jobs.background)],
    ) -> None: ...

    with (
        pytest.raises(ConfigurationError, match=r"POST /orders.* background tasks") as refusal,
        TestClient(app),
    ):
        pass
    assert "write Depends(get_session) in the route" in str(refusal.value)


def test_queue_and_background_in_one_route_are_of_one_transaction(
    shop: Shop, client: TestClient
) -> None:
    @shop.app.post("/")
    async def order(
        background: Annotated[DurableBackgroundTasks, Depends(shop.jobs.background)],
        queue: Annotated[JobQueue, Depends(shop.jobs.queue)],
        refuse: bool = False,
    ) -> None:
        background.add_task(ship, 1)
        await queue.enqueue(bill, 1)
        if refuse:
            raise HTTPException(409)

    assert client.post("/?refuse=true").status_code == 409
    assert count_jobs(shop.path) == 0
    client.post("/").raise_for_status()
    assert [name for name, _, _ in chain_in(shop.path)] == ["bill", "ship"]
    assert shop.own_commits == 0


def test_route_that_only_reads_leaves_its_tasks_a_commit_of_their_own(tmp_db: Path) -> None:
    """With SQLAlchemy's BEGIN recipe a SELECT opens a transaction, which a session that only closes never commits."""
    engine = async_engine(tmp_db)

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as session:
            yield session

    jobs = JobRunner(tmp_db, work=False, session=Depends(get_session, scope="function"))
    jobs.include(tasks)
    app = FastAPI(lifespan=jobs.lifespan)

    @app.post("/read")
    async def read(
        session: Annotated[AsyncSession, Depends(get_session, scope="function")],
        background: Annotated[DurableBackgroundTasks, Depends(jobs.background)],
    ) -> None:
        await session.execute(text("SELECT count(*) FROM orders"))
        background.add_task(ship, 1)

    with TestClient(app) as client:
        make_table(tmp_db)
        assert client.post("/read").status_code == 200
        assert count_jobs(tmp_db) == 1
        assert client.portal is not None
        client.portal.call(engine.dispose)
