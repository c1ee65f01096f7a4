"""``jobs.respond()``: the result in time, else the address of the status."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount

from jobrunner import (
    Bury,
    ConfigurationError,
    InvalidOptions,
    Job,
    JobContext,
    JobQueue,
    JobRunner,
    NotCommitted,
    NotRunning,
    Task,
    WouldDeadlock,
)
from jobrunner.fastapi import Queue
from jobrunner.sqlalchemy import attach
from tests.support.engine import Gate, next_round, soon

SECRET = "canary-7f3a"  # noqa: S105 - what no answer may show


def anybody() -> None:
    """Let every client pass."""


class Shop:
    """An application with a route that waits a moment for its job."""

    def __init__(self, file: Path) -> None:
        self.jobs = jobs = JobRunner(file)
        self.gate = Gate()

        @jobs.task(max_attempts=1)
        async def report(month: str, fails: bool = False) -> dict[str, str]:
            await self.gate.enter()
            if fails:
                raise Bury(f"no data: {SECRET}")
            return {"month": month}

        self.report = report
        self.app = FastAPI(lifespan=jobs.lifespan)
        self.app.include_router(jobs.status_router(anybody, public=[report]), prefix="/status")

        @self.app.post("/reports/{month}")
        async def start(month: str, queue: Queue, within: float, fails: bool = False) -> Response:
            job = await queue.enqueue(report, month, fails)
            return await jobs.respond(job, within=within)

    @asynccontextmanager
    async def open(self, app: Any = None, **more: Any) -> AsyncIterator[httpx2.AsyncClient]:
        """Open the runner on its application; yield a client of it, or of the one around it."""
        transport = httpx2.ASGITransport(app or self.app, **more)
        async with (
            self.jobs.running(self.app),
            httpx2.AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            yield client
            self.gate.open()


@pytest.fixture
def shop(tmp_db: Path) -> Shop:
    return Shop(tmp_db)


async def post(client: httpx2.AsyncClient, path: str = "", **query: Any) -> httpx2.Response:
    return await soon(client.post(f"{path}/reports/may", params=query))


async def test_job_that_succeeds_in_time_is_answered_with_its_result(shop: Shop) -> None:
    shop.gate.open()
    async with shop.open() as client:
        answer = await post(client, within=20)
        assert (answer.status_code, answer.json()) == (200, {"month": "may"})
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        assert "location" not in answer.headers


async def test_job_that_takes_longer_is_answered_with_the_address_of_its_status(shop: Shop) -> None:
    async with shop.open() as client:
        answer = await post(client, within=0.01)
        assert (answer.status_code, answer.headers["retry-after"]) == (202, "1")
        body = answer.json()
        assert answer.headers["location"] == f"/status/{body['id']}"
        assert (body["done"], body["result"]) == (False, None)
        shop.gate.open()
        job = await shop.jobs.get(body["id"])
        await soon(job.result())
        found = await client.get(answer.headers["location"])
        assert (found.json()["state"], found.json()["result"]) == ("succeeded", {"month": "may"})


async def test_job_that_dies_in_time_is_a_problem_with_its_id_and_without_its_error(
    shop: Shop,
) -> None:
    shop.gate.open()
    async with shop.open() as client:
        answer = await post(client, within=20, fails=True)
        (job,) = (await shop.jobs.list(state="dead")).items
        assert (answer.status_code, answer.headers["content-type"]) == (
            500,
            "application/problem+json",
        )
        assert answer.json() == {
            "type": "urn:jobrunner:job-failed",
            "title": "Job failed",
            "status": 500,
            "detail": "the job has failed",
            "code": "job-failed",
            "id": job.id,
        }


async def test_job_that_was_cancelled_is_a_problem_that_says_so(shop: Shop) -> None:
    async with shop.open():
        job = await shop.jobs.enqueue(shop.report.options(delay=3600), "may")
        await shop.jobs.cancel(job.id)
        answer = await shop.jobs.respond(job)
        assert answer.status_code == 500
        assert b"the job was cancelled" in answer.body


async def test_result_of_none_and_one_that_could_not_be_stored(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def nothing() -> None: ...

    @jobs.task
    async def strange() -> object:
        return object()

    app = FastAPI()
    app.include_router(jobs.status_router(anybody, public=[nothing, strange]), prefix="/status")
    async with jobs.running(app):
        answer = await jobs.respond(await jobs.enqueue(nothing), within=timedelta(seconds=20))
        assert (answer.status_code, answer.body) == (200, b"null")
        answer = await jobs.respond(await jobs.enqueue(strange), within=20)
        assert answer.status_code == 500
        assert b"could not be stored" in answer.body


async def test_within_nothing_answers_at_once(shop: Shop) -> None:
    async with shop.open():
        job = await shop.jobs.enqueue(shop.report, "may")
        await shop.gate.arrival()
        assert (await shop.jobs.respond(job, within=0)).status_code == 202


@pytest.mark.parametrize("within", [-1, float("nan"), float("inf"), "soon"])
async def test_impossible_time_is_refused(shop: Shop, within: Any) -> None:
    async with shop.open():
        job = await shop.jobs.enqueue(shop.report, "may")
        with pytest.raises(InvalidOptions, match="within"):
            await shop.jobs.respond(job, within=within)


async def test_response_to_a_client_that_goes_away_leaves_the_job(shop: Shop) -> None:
    async with shop.open():
        job = await shop.jobs.enqueue(shop.report, "may")
        await shop.gate.arrival()
        waits = asyncio.create_task(shop.jobs.respond(job, within=20))
        await next_round(shop.jobs)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        shop.gate.open()
        assert await soon(job.result()) == {"month": "may"}


# -- where the status is -----------------------------------------------------------------------------------


async def test_location_begins_with_the_root_path_of_a_proxy(shop: Shop) -> None:
    async with shop.open(root_path="/behind/a/proxy") as client:
        answer = await post(client, within=0)
        id = answer.json()["id"]
        assert answer.headers["location"] == f"/behind/a/proxy/status/{id}"


async def test_location_is_of_the_first_of_several_status_routers(shop: Shop) -> None:
    jobs = shop.jobs
    router = jobs.status_router(anybody, public=[shop.report])
    for prefix in ("/staff", "/night"):
        shop.app.include_router(router, prefix=prefix)
    async with shop.open() as client:
        answer = await post(client, within=0)
        assert answer.headers["location"] == f"/status/{answer.json()['id']}"


@pytest.mark.parametrize("root_path", ["", "/proxy"])
async def test_location_in_an_application_that_is_mounted(shop: Shop, root_path: str) -> None:
    outer = Starlette(routes=[Mount("/shop", app=shop.app)])
    async with shop.open(outer, root_path=root_path) as client:
        answer = await post(client, f"{root_path}/shop", within=0)
        assert answer.status_code == 202, answer.text
        location = answer.headers["location"]
        assert location == f"{root_path}/shop/status/{answer.json()['id']}"
        found = await client.get(location)
        assert found.json()["id"] == answer.json()["id"]


async def test_location_of_a_router_in_an_application_mounted_in_that_of_the_runner(
    tmp_db: Path,
) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def report() -> None: ...

    inner, outer = FastAPI(), FastAPI()
    inner.include_router(jobs.status_router(anybody, public=[report]), prefix="/status")
    outer.mount("/users", inner)

    @inner.post("/inside")
    @outer.post("/outside")
    async def start() -> Response:
        return await jobs.respond(await jobs.enqueue(report.options(delay=3600)), within=0)

    transport = httpx2.ASGITransport(outer, root_path="/proxy")
    async with (
        jobs.running(outer),
        httpx2.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        for path in ("/proxy/users/inside", "/proxy/outside"):
            answer = await client.post(path)
            assert answer.headers["location"] == f"/proxy/users/status/{answer.json()['id']}"


# -- what cannot work --------------------------------------------------------------------------------------


def app_that_responds(jobs: JobRunner, report: Task[[], None]) -> FastAPI:
    app = FastAPI(lifespan=jobs.lifespan)

    @app.post("/reports")
    async def start(queue: Queue) -> Response:
        return await jobs.respond(await queue.enqueue(report))

    return app


async def test_route_that_responds_without_a_status_router_is_an_error_at_the_start(
    tmp_db: Path,
) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def report() -> None: ...

    app = app_that_responds(jobs, report)
    advice = r"^/reports: .*write app\.include_router\(jobs\.status_router\(guard, public="
    with pytest.raises(ConfigurationError, match=advice):
        async with jobs.running(app):
            pass
    # Made, but not included, is not there.
    router = jobs.status_router(anybody, public=[report])
    with pytest.raises(ConfigurationError, match=advice):
        async with jobs.running(app):
            pass
    app.include_router(router, prefix="/status")
    async with jobs.running(app):
        pass


async def test_other_functions_named_respond_need_no_status_router(tmp_db: Path) -> None:
    jobs, other = JobRunner(tmp_db), JobRunner(tmp_db)

    @jobs.task
    async def report() -> None: ...

    async with other.running(app_that_responds(jobs, report)):
        pass


@pytest.mark.parametrize("place", ["helper", "inner function", "dependency"])
async def test_helper_of_a_route_that_responds_is_an_error_at_the_start_too(
    tmp_db: Path, place: str
) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def report() -> None: ...

    async def answer(job: Job[None]) -> Response:
        return await jobs.respond(job)

    async def passes_on(job: Job[None]) -> Response:
        return await answer(job)

    async def direct(queue: Queue) -> Response:
        return await passes_on(await queue.enqueue(report))

    async def inside(queue: Queue) -> Response:
        async def respond() -> Response:
            return await jobs.respond(await queue.enqueue(report))

        return await respond()

    async def by_dependency(response: Response = Depends(direct)) -> Response:
        return response

    routes: dict[str, Callable[..., Any]] = {
        "helper": direct,
        "inner function": inside,
        "dependency": by_dependency,
    }
    app = FastAPI()
    app.post("/reports")(routes[place])
    with pytest.raises(ConfigurationError, match=r"^/reports: .*status_router"):
        async with jobs.running(app):
            pass
    app.include_router(jobs.status_router(anybody, public=[report]), prefix="/status")
    async with jobs.running(app):
        pass


async def test_call_that_no_check_can_find_raises_without_a_status_router(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def report() -> None: ...

    async with jobs.running(FastAPI()):
        job = await jobs.enqueue(report)
        with pytest.raises(ConfigurationError, match="has no status router"):
            await jobs.respond(job)
    with pytest.raises(NotRunning):
        await jobs.respond(job)


async def test_runner_that_was_opened_without_the_application_raises(shop: Shop) -> None:
    async with shop.jobs.running():
        job = await shop.jobs.enqueue(shop.report, "may")
        with pytest.raises(ConfigurationError, match=r"write `async with jobs\.running\(app\):`"):
            await shop.jobs.respond(job, within=0)
        shop.gate.open()


async def test_task_that_is_not_public_raises(shop: Shop) -> None:
    @shop.jobs.task
    async def private() -> None: ...

    async with shop.open():
        job = await shop.jobs.enqueue(private)
        with pytest.raises(ConfigurationError, match=r"the jobs of private are not public"):
            await shop.jobs.respond(job)


# -- sessions ----------------------------------------------------------------------------------------------


@pytest.fixture
async def joined(tmp_db: Path) -> AsyncIterator[tuple[JobRunner, httpx2.AsyncClient]]:
    """An application whose queue joins the session of the request."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_db}")
    attach(engine)

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as session:
            yield session

    jobs = JobRunner(tmp_db, session=get_session)
    session_dep = Annotated[AsyncSession, Depends(get_session)]
    queue_dep = Annotated[JobQueue, Depends(jobs.queue)]

    @jobs.task
    async def report(month: str) -> str:
        return month

    @jobs.task
    async def settles(job: JobContext, other: str) -> str:
        async with job.transaction():
            try:
                await jobs.respond(await jobs.get(other), within=0)
            except WouldDeadlock as error:
                return str(error)
        return "no error"

    app = FastAPI(lifespan=jobs.lifespan)
    app.include_router(jobs.status_router(anybody, public=[report, settles]), prefix="/status")

    @app.post("/committed")
    async def committed(session: session_dep, queue: queue_dep) -> Response:
        job = await queue.enqueue(report, "may")
        await session.commit()
        return await jobs.respond(job, within=20)

    @app.post("/uncommitted")
    async def uncommitted(session: session_dep, queue: queue_dep) -> Response:
        return await jobs.respond(await queue.enqueue(report, "may"), within=20)

    @app.post("/writing")
    async def writing(session: session_dep) -> Response:
        job = await jobs.enqueue(report.options(delay=3600), "may")
        await session.execute(text("CREATE TABLE IF NOT EXISTS rows (a)"))
        await session.execute(text("INSERT INTO rows VALUES (1)"))
        return await jobs.respond(job, within=20)

    @app.post("/settles")
    async def settle(session: session_dep) -> Response:
        other = await jobs.enqueue(report, "may")
        return await jobs.respond(await jobs.enqueue(settles, other.id), within=20)

    transport = httpx2.ASGITransport(app)
    async with (
        jobs.running(app),
        httpx2.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield jobs, client
    await engine.dispose()


async def test_job_of_a_committed_session_is_waited_for(
    joined: tuple[JobRunner, httpx2.AsyncClient],
) -> None:
    _, client = joined
    answer = await soon(client.post("/committed"))
    assert (answer.status_code, answer.json()) == (200, "may")


@pytest.mark.parametrize(
    ("path", "error"), [("/uncommitted", NotCommitted), ("/writing", WouldDeadlock)]
)
async def test_job_behind_an_uncommitted_session_is_an_error_at_once(
    joined: tuple[JobRunner, httpx2.AsyncClient], path: str, error: type[Exception]
) -> None:
    _, client = joined
    with pytest.raises(error):
        await soon(client.post(path))


async def test_respond_inside_the_transaction_of_a_job_is_an_error_at_once(
    joined: tuple[JobRunner, httpx2.AsyncClient],
) -> None:
    _, client = joined
    answer = await soon(client.post("/settles"))
    assert answer.json().startswith("respond() waits for the store")
