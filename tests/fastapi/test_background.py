"""Background tasks of a request: one chain, stored before the response leaves, or nothing."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, WebSocket
from fastapi.testclient import TestClient
from starlette.requests import HTTPConnection

from jobrunner import (
    ConfigurationError,
    InvalidArguments,
    InvalidOptions,
    JobRunner,
    JobRunnerError,
    StoreFull,
    TaskRouter,
    UnknownQueue,
    UnknownTask,
)
from jobrunner.fastapi import Background, DurableBackgroundTasks, Queue, job_background
from jobrunner.fastapi.background import get_background, yield_alone
from jobrunner.fastapi.dependencies import find_queue
from jobrunner.queue.queue import enqueuer_of
from jobrunner.testing import SyncJobTester
from tests.support.engine import committer_of

tasks = TaskRouter()


@tasks.task
async def confirm(order: int) -> None: ...


@tasks.task(priority=3)
def pack(order: int, gift: bool = False) -> None: ...


class Site:
    """An app whose jobs are stored and never run."""

    def __init__(self, file: Path) -> None:
        self.jobs = JobRunner(file)
        self.jobs.include(tasks)
        self.app = FastAPI(lifespan=self.jobs.lifespan)
        self.client = TestClient(self.app, raise_server_exceptions=False)
        self.tester = SyncJobTester(self.app, store=file)

    def stored(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the tasks and arguments of the stored jobs, in their order."""
        return [(job.task.rpartition(".")[2], job.args) for job in self.tester.list()]


@pytest.fixture
def site(tmp_db: Path) -> Iterator[Site]:
    site = Site(tmp_db)
    with site.tester:
        yield site


# -- what is stored -------------------------------------------------------------------------------------------


def test_tasks_of_a_request_are_one_chain_in_the_order_added(site: Site) -> None:
    @site.app.post("/orders")
    async def order(background: Background) -> None:
        background.add_task(confirm, 7)
        background.add_task(pack.options(tag="box", priority=9), order=7, gift=True)
        background.add_task(confirm, 8)
        site.tester.assert_nothing_enqueued()

    with site.client as client:
        assert client.post("/orders").status_code == 200
        first, second, third = site.tester.list()
        assert site.stored() == [
            ("confirm", {"order": 7}),
            ("pack", {"order": 7, "gift": True}),
            ("confirm", {"order": 8}),
        ]
        assert [job.state for job in (first, second, third)] == ["queued", "blocked", "blocked"]
        assert [job.after for job in (first, second, third)] == [None, first.id, second.id]
        site.tester.assert_enqueued(pack.options(priority=9, tag="box"), 7, gift=True)


def test_one_task_alone_is_no_chain_and_none_is_no_commit(site: Site) -> None:
    @site.app.post("/{number}")
    def post(number: int, background: Background) -> None:
        for order in range(number):
            background.add_task(confirm, order)

    with site.client as client:
        client.post("/0").raise_for_status()
        site.tester.assert_nothing_enqueued()
        client.post("/1").raise_for_status()
        (job,) = site.tester.list()
        assert (job.chain, job.state) == (None, "queued")


class Desk:
    def __init__(self, background: Background) -> None:
        self.background = background


class Stock:
    def __init__(self, desk: Annotated[Desk, Depends()], background: Background) -> None:
        self.desk, self.background = desk, background


def test_services_of_one_request_share_one_object_and_requests_do_not(site: Site) -> None:
    seen: list[DurableBackgroundTasks] = []

    @site.app.post("/")
    async def order(
        desk: Annotated[Desk, Depends()],
        stock: Annotated[Stock, Depends()],
        # Other ways to write it are the same object too.
        own: Annotated[DurableBackgroundTasks, Depends(site.jobs.background)],
        apart: Annotated[DurableBackgroundTasks, Depends(get_background, use_cache=False)],
    ) -> None:
        stock.background.add_task(confirm, 1)
        desk.background.add_task(confirm, 2)
        apart.add_task(confirm, 3)
        assert desk.background is stock.background is own is apart
        seen.append(desk.background)

    with site.client as client:
        client.post("/").raise_for_status()
        client.post("/").raise_for_status()
    assert seen[0] is not seen[1]
    assert [job.args["order"] for job in site.tester.list()] == [1, 2, 3, 1, 2, 3]


def test_the_runners_own_dependency_is_stable_and_does_the_same(site: Site) -> None:
    @site.app.post("/")
    async def order(
        background: Annotated[DurableBackgroundTasks, Depends(site.jobs.background)],
    ) -> None:
        background.add_task(confirm, 1)

    assert site.jobs.background is site.jobs.background
    with site.client as client:
        client.post("/").raise_for_status()
        assert site.stored() == [("confirm", {"order": 1})]


def test_dependency_that_cleans_up_with_the_function_adds_to_the_same_chain(site: Site) -> None:
    async def closing(background: Background) -> AsyncIterator[None]:
        yield
        background.add_task(confirm, 2)

    @site.app.post("/")
    async def order(
        _: Annotated[None, Depends(closing, scope="function")], background: Background
    ) -> None:
        background.add_task(confirm, 1)

    with site.client as client:
        client.post("/").raise_for_status()
        assert site.stored() == [("confirm", {"order": 1}), ("confirm", {"order": 2})]


# -- what is not ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "status"), [("refuse", 409), ("raise", 500), ("invalid", 500)])
def test_route_that_fails_stores_nothing(site: Site, how: str, status: int) -> None:
    held: list[DurableBackgroundTasks] = []

    @site.app.post("/{how}")
    async def post(how: str, background: Background) -> int:
        held.append(background)
        background.add_task(confirm, 1)
        background.add_task(confirm, 2)
        if how == "refuse":
            raise HTTPException(409)
        if how == "raise":
            raise ValueError(how)
        return "no number"  # type: ignore[return-value]

    with site.client as client:
        assert client.post(f"/{how}").status_code == status
        site.tester.assert_nothing_enqueued()
        with pytest.raises(JobRunnerError, match="has failed, and nothing"):
            held[0].add_task(confirm, 3)


def test_store_that_fails_is_a_500_and_no_job(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    @site.app.post("/")
    async def post(background: Background) -> str:
        background.add_task(confirm, 1)
        return "done"

    async def full(jobs: object) -> None:
        raise StoreFull("no space left")

    with site.client as client:
        with monkeypatch.context() as patch:
            patch.setattr(committer_of(site.jobs), "submit", full)
            assert client.post("/").status_code == 500
        site.tester.assert_nothing_enqueued()
        assert client.post("/").status_code == 200
        assert len(site.stored()) == 1


def test_task_added_after_the_response_is_refused_and_told_what_to_do(site: Site) -> None:
    said: list[str] = []

    async def late(background: Background) -> AsyncIterator[None]:
        yield
        with pytest.raises(JobRunnerError) as refusal:
            background.add_task(confirm.options(tag="late"), 2)
        said.append(str(refusal.value))

    @site.app.post("/")
    async def post(_: Annotated[None, Depends(late)], background: Background) -> None:
        background.add_task(confirm, 1)

    with site.client as client:
        client.post("/").raise_for_status()
        assert "what was added before is stored" in said[0]
        assert "await confirm.enqueue(...)" in said[0]
        assert site.stored() == [("confirm", {"order": 1})]


@pytest.mark.parametrize("is_caught", [True, False])
def test_call_that_does_not_fit_is_refused_where_it_is_added(site: Site, is_caught: bool) -> None:
    def send_mail(to: str) -> None: ...

    stranger = JobRunner("other.db")

    @stranger.task
    async def elsewhere() -> None: ...

    def wrong(background: Background) -> None:
        add: Any = background.add_task
        with pytest.raises(InvalidArguments):
            add(confirm, "seven")
        with pytest.raises(InvalidArguments):
            add(confirm)
        with pytest.raises(UnknownTask, match=r"write @jobs.task above `def send_mail`"):
            add(send_mail, "ada@example.com")
        with pytest.raises(UnknownTask, match=r"add_task\(confirm, \.\.\.\)"):
            add(confirm.call(1))
        with pytest.raises(UnknownTask, match="not registered with this runner"):
            add(elsewhere)
        with pytest.raises(UnknownQueue):
            add(confirm.options(queue="mail"), 1)
        with pytest.raises(InvalidOptions, match="leave out the session"):
            add(confirm.options(session=object()), 1)

    @site.app.post("/")
    async def post(background: Background) -> None:
        background.add_task(confirm, 1)
        wrong(background)
        if not is_caught:
            background.add_task(confirm, "seven")  # type: ignore[arg-type]

    with site.client as client:
        assert client.post("/").status_code == (200 if is_caught else 500)
        assert site.stored() == ([("confirm", {"order": 1})] if is_caught else [])


def test_more_than_a_transaction_may_carry_is_refused_where_it_is_added(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobrunner.queue.background.MAX_TASKS", 2)

    @site.app.post("/")
    async def post(background: Background) -> None:
        background.add_task(confirm, 1)
        background.add_task(confirm, 2)
        with pytest.raises(InvalidOptions, match="2 tasks of one request at most"):
            background.add_task(confirm, 3)

    with site.client as client:
        client.post("/").raise_for_status()
        assert len(site.stored()) == 2


# -- around ---------------------------------------------------------------------------------------------------


def test_openapi_knows_nothing_of_it(site: Site) -> None:
    @site.app.post("/plain")
    async def plain() -> None: ...

    @site.app.post("/background")
    async def post(
        background: Background,
        own: Annotated[DurableBackgroundTasks, Depends(site.jobs.background)],
        desk: Annotated[Desk, Depends()],
    ) -> None: ...

    paths = site.app.openapi()["paths"]
    for operation in (paths["/plain"]["post"], paths["/background"]["post"]):
        del operation["operationId"], operation["summary"]
    assert paths["/background"] == paths["/plain"]


def test_app_without_an_open_runner_says_which_line_to_write(site: Site) -> None:
    bare = FastAPI()

    @bare.post("/")
    async def post(background: Background) -> None: ...

    @bare.post("/own")
    async def own(
        background: Annotated[DurableBackgroundTasks, Depends(site.jobs.background)],
    ) -> None: ...

    client = TestClient(bare)
    with pytest.raises(JobRunnerError, match=r"FastAPI\(lifespan=jobs.lifespan\)"):
        client.post("/")
    with pytest.raises(JobRunnerError, match=r"Depends\(jobs.background\): the runner is not open"):
        client.post("/own")


def test_plain_alias_on_a_runner_with_a_session_is_refused_with_the_line(tmp_db: Path) -> None:
    async def get_session() -> AsyncIterator[None]:
        yield None

    jobs = JobRunner(tmp_db, session=get_session)
    app = FastAPI(lifespan=jobs.lifespan)

    @app.post("/")
    async def post(background: Background) -> None: ...

    with (
        TestClient(app) as client,
        pytest.raises(ConfigurationError, match=r"Depends\(job_background\(get_session\)\)"),
    ):
        client.post("/")


# -- where nothing would be stored ------------------------------------------------------------------------------


def on_a_websocket(app: FastAPI, jobs: JobRunner) -> None:
    @app.websocket("/ws")
    async def ws(socket: WebSocket, background: Background) -> None: ...


def through_services(app: FastAPI, jobs: JobRunner) -> None:
    class Desk:
        def __init__(self, background: Background) -> None: ...

    class Office:
        def __init__(self, desk: Annotated[Desk, Depends()]) -> None: ...

    @app.websocket("/ws")
    async def ws(socket: WebSocket, office: Annotated[Office, Depends()]) -> None: ...


def of_the_runner_in_a_router(app: FastAPI, jobs: JobRunner) -> None:
    router = APIRouter(prefix="/v1")

    @router.websocket("/ws")
    async def ws(
        socket: WebSocket,
        background: Annotated[DurableBackgroundTasks, Depends(jobs.background)],
    ) -> None: ...

    app.include_router(router)


def of_a_session_in_a_mounted_app(app: FastAPI, jobs: JobRunner) -> None:
    inner = FastAPI()

    async def get_session() -> None: ...

    @inner.websocket("/ws")
    async def ws(
        socket: WebSocket,
        background: Annotated[DurableBackgroundTasks, Depends(job_background(get_session))],
    ) -> None: ...

    app.mount("/inner", inner)


def beside_a_router(app: FastAPI, jobs: JobRunner) -> None:
    async def audit(background: Background) -> None: ...

    router = APIRouter(dependencies=[Depends(audit)])

    @router.websocket("/ws")
    async def ws(socket: WebSocket) -> None: ...

    app.include_router(router)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (on_a_websocket, "WebSocket /ws: ws() holds Background"),
        (through_services, "WebSocket /ws: ws(), through Office > Desk, holds Background"),
        (of_the_runner_in_a_router, "WebSocket /v1/ws: ws() holds Background"),
        (of_a_session_in_a_mounted_app, "WebSocket /inner/ws: ws() holds Background"),
        (beside_a_router, "WebSocket /ws: ws(), through audit, holds Background"),
    ],
)
def test_background_of_a_websocket_is_refused_at_the_start(
    site: Site, make: Callable[[FastAPI, JobRunner], None], said: str
) -> None:
    make(site.app, site.jobs)
    with pytest.raises(ConfigurationError) as refusal, site.client:
        pass
    assert str(refusal.value).startswith(said)
    assert "write `await task.enqueue(...)` for each message" in str(refusal.value)


def test_background_of_a_websocket_that_the_start_has_not_seen_is_refused_at_its_first_client(
    site: Site,
) -> None:
    with site.client as client:
        on_a_websocket(site.app, site.jobs)
        with (
            pytest.raises(ConfigurationError, match=r"^WebSocket /ws: the route holds Background"),
            client.websocket_connect("/ws"),
        ):
            pass


@pytest.mark.parametrize("by", ["task", "queue"])
def test_websocket_stores_each_message_before_it_is_acknowledged(site: Site, by: str) -> None:
    """The code that the error message suggests, and the queue."""

    @site.app.websocket("/ws")
    async def ws(socket: WebSocket, queue: Queue) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            if by == "task":
                await confirm.enqueue(int(text))
            else:
                await queue.enqueue(confirm, int(text))
            await socket.send_text("saved")

    with site.client as client, client.websocket_connect("/ws") as socket:
        for order in (1, 2):
            socket.send_text(str(order))
            assert socket.receive_text() == "saved"
            assert site.stored()[-1] == ("confirm", {"order": order})


def test_background_of_a_route_that_yields_its_response_is_refused_at_the_start(
    site: Site,
) -> None:
    @site.app.get("/rows")
    async def rows(background: Background) -> AsyncIterator[int]:
        yield 1

    with (
        pytest.raises(ConfigurationError, match=r"^GET /rows: rows\(\) yields") as refusal,
        site.client,
    ):
        pass
    assert "await queue.enqueue(task, ...)" in str(refusal.value)


def test_background_of_a_dependency_of_a_route_that_yields_its_response_is_stored(
    site: Site,
) -> None:
    async def audit(background: Background) -> None:
        background.add_task(confirm, 1)

    @site.app.get("/rows", dependencies=[Depends(audit)])
    async def rows() -> AsyncIterator[int]:
        yield 1

    with site.client as client:
        assert client.get("/rows").text.split() == ["1"]
        assert site.stored() == [("confirm", {"order": 1})]


async def test_tasks_of_dependencies_that_nobody_closes_are_an_error_in_the_log(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async with site.jobs.running(site.app):
        gather = yield_alone(find_queue)
        scope = {"type": "http", "method": "GET", "path": "/", "app": site.app, "headers": []}
        open_one = gather(HTTPConnection(scope))
        tasks_of_it = await anext(open_one)
        tasks_of_it.add_task(confirm, 1)
        await open_one.aclose()  # type: ignore[attr-defined] # a generator, as the collector closes it
        site.tester.assert_nothing_enqueued()
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert record.getMessage().startswith(
        "GET /: the dependencies of this request were never closed, so that 1 background task(s)"
    )


async def test_tasks_that_belong_to_nothing_are_an_error_in_the_log(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async with site.jobs.running() as jobs:
        loose = DurableBackgroundTasks(enqueuer_of(await jobs.queue()).prepare)
        loose.add_task(confirm, 1)
        del loose
    assert "1 background task(s) were added and are not stored (confirm)" in caplog.text
