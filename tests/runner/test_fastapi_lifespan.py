"""A runner in an application: its lifespan, its dependencies, its tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from jobrunner import AlreadyRunning, Job, JobQueue, JobRunner, NotRunning, TaskRouter
from jobrunner.fastapi import Queue, SyncQueue, get_queue

tasks = TaskRouter()


@tasks.task
async def greet(name: str) -> str:
    return f"hello {name}"


def a_runner(file: Path) -> JobRunner:
    jobs = JobRunner(file)
    jobs.include(tasks)
    return jobs


def routes(app: FastAPI, jobs: JobRunner) -> FastAPI:
    @app.post("/queue")
    async def by_alias(name: str, queue: Queue) -> str:
        return await (await queue.enqueue(greet, name)).result(timeout=15)

    @app.post("/sync")
    def by_sync_alias(name: str, queue: SyncQueue) -> str:
        return queue.run(queue.enqueue(greet, name).result(timeout=15))

    @app.post("/named")
    async def by_name(name: str, queue: Annotated[JobQueue, Depends(jobs.queue)]) -> str:
        return await (await queue.enqueue(greet, name)).result(timeout=15)

    @app.post("/runner")
    async def by_runner(name: str) -> str:
        return await (await jobs.enqueue(greet, name)).result(timeout=15)

    @app.post("/bare")
    async def bare(name: str) -> str:
        return await (await greet.enqueue(name)).result(timeout=15)

    @app.post("/job")
    async def job(name: str, queue: Queue) -> Job[str]:
        return await queue.enqueue(greet, name)

    return app


PATHS = ["/queue", "/sync", "/named", "/runner", "/bare"]


@pytest.mark.parametrize("path", PATHS)
def test_lifespan_of_the_runner_opens_it_for_every_way_to_ask(tmp_db: Path, path: str) -> None:
    jobs = a_runner(tmp_db)
    app = routes(FastAPI(lifespan=jobs.lifespan), jobs)
    with TestClient(app) as client:
        assert client.post(path, params={"name": "ada"}).json() == "hello ada"
    assert not hasattr(app.state, "jobrunner")


def test_lifespan_of_one_s_own_opens_it_with_the_app(tmp_db: Path) -> None:
    jobs = a_runner(tmp_db)
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with jobs.running(app) as opened:
            assert opened is jobs
            assert app.state.jobrunner is await jobs.queue()
            seen.append("open")
            yield
        seen.append("closed")

    app = routes(FastAPI(lifespan=lifespan), jobs)
    with TestClient(app) as client:
        for path in PATHS:
            assert client.post(path, params={"name": "ada"}).json() == "hello ada"
    assert seen == ["open", "closed"]


def test_client_opened_again_finds_a_runner_again(tmp_db: Path) -> None:
    """Each client starts a new loop."""
    jobs = a_runner(tmp_db)
    app = routes(FastAPI(lifespan=jobs.lifespan), jobs)
    for _ in range(3):
        with TestClient(app) as client:
            assert client.post("/queue", params={"name": "ada"}).json() == "hello ada"


@pytest.mark.parametrize("path", PATHS)
def test_client_without_with_is_told_so(tmp_db: Path, path: str) -> None:
    jobs = a_runner(tmp_db)
    client = TestClient(routes(FastAPI(lifespan=jobs.lifespan), jobs))
    with pytest.raises(NotRunning) as refused:
        client.post(path, params={"name": "ada"})
    if path != "/bare":
        assert "with TestClient(app) as client:" in str(refused.value)
    assert "FastAPI(lifespan=jobs.lifespan)" in str(refused.value)


def test_app_without_a_runner_is_told_so(tmp_db: Path) -> None:
    jobs = a_runner(tmp_db)
    with (
        TestClient(routes(FastAPI(), jobs)) as client,
        pytest.raises(NotRunning, match=r"write FastAPI\(lifespan=jobs\.lifespan\)"),
    ):
        client.post("/queue", params={"name": "ada"})


def test_overrides_work_on_either_dependency(tmp_path: Path) -> None:
    jobs, other = a_runner(tmp_path / "1.db"), a_runner(tmp_path / "2.db")
    app = routes(FastAPI(), jobs)

    async def of_the_other() -> JobQueue:
        return await other.queue()

    app.dependency_overrides[jobs.queue] = of_the_other
    app.dependency_overrides[get_queue] = of_the_other

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with jobs.running(app), other.running():
            yield
            assert (await jobs.list()).items == []
            assert len((await other.list()).items) == 3

    app.router.lifespan_context = lifespan
    with TestClient(app) as client:
        for path in ("/queue", "/sync", "/named"):
            assert client.post(path, params={"name": "ada"}).json() == "hello ada"


def test_override_with_an_object_of_the_test_s_own_needs_no_runner(tmp_db: Path) -> None:
    jobs = a_runner(tmp_db)
    app = routes(FastAPI(), jobs)
    asked: list[Any] = []

    class Told:
        async def result(self, timeout: float) -> str:
            return "as told"

    class Recorder:
        async def enqueue(self, task: Any, name: str) -> Told:
            asked.append((task, name))
            return Told()

    app.dependency_overrides[jobs.queue] = Recorder
    app.dependency_overrides[get_queue] = Recorder
    client = TestClient(app)
    for path in ("/queue", "/named"):
        assert client.post(path, params={"name": "ada"}).json() == "as told"
    assert asked == [(greet, "ada")] * 2


def test_job_as_a_response_model_shows_no_arguments(tmp_db: Path) -> None:
    jobs = a_runner(tmp_db)
    app = routes(FastAPI(lifespan=jobs.lifespan), jobs)
    with TestClient(app) as client:
        answer = client.post("/job", params={"name": "canary"}).json()
    assert set(answer) == {
        "id",
        "task",
        "queue",
        "state",
        "run_at",
        "created_at",
        "attempt",
        "created",
    }
    assert (answer["task"], answer["created"]) == ("greet", True)
    assert "canary" not in str(answer)
    document = app.openapi()
    content = document["paths"]["/job"]["post"]["responses"]["200"]["content"]
    name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert set(document["components"]["schemas"][name]["properties"]) == set(answer)


def test_two_apps_in_one_process_have_a_runner_each(tmp_path: Path) -> None:
    one, two = a_runner(tmp_path / "1.db"), a_runner(tmp_path / "2.db")
    first = routes(FastAPI(lifespan=one.lifespan), one)
    second = routes(FastAPI(lifespan=two.lifespan), two)
    with TestClient(first) as a, TestClient(second) as b:
        ids = {c.post("/job", params={"name": "x"}).json()["id"] for c in (a, b)}
        assert len(ids) == 2
        for client in (a, b):
            for path in PATHS:
                assert client.post(path, params={"name": "ada"}).json() == "hello ada"


def test_two_runners_on_one_app_are_refused_with_the_line_to_write(tmp_path: Path) -> None:
    one, two = a_runner(tmp_path / "1.db"), a_runner(tmp_path / "2.db")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with one.running(app), two.running(app):
            yield

    with (
        pytest.raises(AlreadyRunning, match=r"inject it by name: Depends\(jobs\.queue\)"),
        TestClient(FastAPI(lifespan=lifespan)),
    ):
        pass


def test_two_runners_in_one_app_the_second_by_name(tmp_path: Path) -> None:
    one, two = a_runner(tmp_path / "1.db"), a_runner(tmp_path / "2.db")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with one.running(app), two.running():
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/both")
    async def both(
        queue: Queue, other: Annotated[JobQueue, Depends(two.queue)]
    ) -> tuple[str, str, int]:
        mine = await queue.enqueue(greet, "one")
        theirs = await other.enqueue(greet, "two")
        # A bare call in a request is the app's runner's, also where two are open.
        await greet.enqueue("bare")
        count = len((await one.list()).items)
        return await mine.result(timeout=15), await theirs.result(timeout=15), count

    with TestClient(app) as client:
        assert client.post("/both").json() == ["hello one", "hello two", 2]


def test_D14_lifespan_that_fails_after_the_runner_opened_closes_it(tmp_db: Path) -> None:
    jobs = a_runner(tmp_db)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with jobs.running(app):
            raise LookupError("the mail server")
            yield  # type: ignore[unreachable]

    with pytest.raises(LookupError), TestClient(FastAPI(lifespan=lifespan)):
        pass
    with TestClient(routes(FastAPI(lifespan=jobs.lifespan), jobs)) as client:
        assert client.post("/queue", params={"name": "ada"}).json() == "hello ada"


def test_task_stays_callable_as_its_function(tmp_db: Path) -> None:
    import asyncio  # noqa: PLC0415 - of this test alone

    assert asyncio.run(greet("ada")) == "hello ada"
    assert greet.__name__ == "greet"
