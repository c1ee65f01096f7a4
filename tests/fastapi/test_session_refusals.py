"""Sessions that do not fit a route, a runner or a call are refused."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient
from sqlalchemy.ext.asyncio import AsyncSession

from jobrunner import (
    ConfigurationError,
    InvalidOptions,
    InvalidSession,
    JobQueue,
    JobRunner,
    SyncQueue,
)
from jobrunner.fastapi import Queue, bearer, job_queue
from jobrunner.fastapi import SyncQueue as PlainSyncQueue
from tests.support.joined_shop import Shop, ship, tasks
from tests.support.sessions import count_jobs


@pytest.fixture
def shop(tmp_db: Path) -> Shop:
    return Shop(tmp_db)


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
