"""The queue that a route gets by ``Queue``, ``SyncQueue`` and the jobs router."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from jobrunner import DeadLetter, Health, Job, JobRunner, NotRunning
from jobrunner.fastapi import JobQueue, Queue, SyncQueue, get_queue
from tests.fastapi.conftest import PATIENCE_S


def shop(database: Path) -> tuple[JobRunner, FastAPI]:
    """Return an app whose route enqueues through ``Queue``, and whose other one is a ``def``."""
    jobs = JobRunner(f"sqlite:///{database}")

    @jobs.task
    async def greet(name: str) -> str:
        return f"hello {name}"

    app = FastAPI(lifespan=jobs.lifespan)

    @app.post("/greet", status_code=201)
    async def enqueue(name: str, queue: Queue) -> Job[str]:
        return await queue.enqueue(greet, name)

    @app.post("/bare", status_code=201)
    async def enqueue_bare(name: str, queue: Queue) -> Job[str]:
        return await greet.enqueue(name)

    @app.post("/greet-in-thread", status_code=201)
    def enqueue_in_thread(name: str, queue: SyncQueue) -> Job[str]:
        return queue.enqueue(greet, name)

    app.include_router(jobs.router(insecure=True), prefix="/jobs")
    return jobs, app


@pytest.mark.parametrize("path", ["/greet", "/bare", "/greet-in-thread"])
def test_enqueue_in_a_route_stores_the_job(tmp_db: Path, path: str) -> None:
    _, app = shop(tmp_db)
    with TestClient(app) as client:
        answer = client.post(path, params={"name": "ada"})
        assert answer.status_code == 201
        assert answer.json()["created"] is True
        assert client.get(f"/jobs/{answer.json()['id']}").json()["task"] == "greet"


def test_return_a_job_without_an_annotation_answers_its_fields_and_not_its_store(
    tmp_db: Path,
) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def greet(name: str) -> str:
        return f"hello {name}"

    app = FastAPI(lifespan=jobs.lifespan)

    @app.post("/bare")
    async def bare(queue: Queue):  # type: ignore[no-untyped-def]
        return await queue.enqueue(greet, "ada")

    @app.post("/any")
    async def anything(queue: Queue) -> Any:
        return await queue.enqueue(greet, "ada")

    @app.post("/inside")
    async def inside(queue: Queue) -> dict[str, Any]:
        job = await queue.enqueue(greet, "ada")
        assert await job.result(PATIENCE_S) == "hello ada"
        return {"job": await queue.get(job.id), "page": await queue.list()}

    with TestClient(app) as client:
        for path in ("/bare", "/any"):
            answer = client.post(path)
            assert (answer.status_code, answer.json()["task"]) == (200, "greet")
            assert not [name for name in answer.json() if name.startswith("_")]
        answer = client.post("/inside").json()
        assert [one["outcome"] for one in answer["job"]["history"]] == ["succeeded"]
        assert answer["page"]["items"][0]["id"] == answer["job"]["id"]


def test_return_of_public_dataclasses_answers_their_fields(tmp_db: Path) -> None:
    _, app = shop(tmp_db)

    @app.get("/health")
    async def health(queue: Queue) -> Health:
        return await queue.health()

    @app.get("/letters")
    async def letters(queue: Queue) -> list[DeadLetter]:
        return (await queue.dead_letters.list()).items

    with TestClient(app) as client:
        assert client.get("/health").json()["status"] == "ok"
        assert client.get("/letters").json() == []
    described = app.openapi()["components"]["schemas"]["Health"]["properties"]["working"]
    assert described["description"] == "Whether this process runs jobs."


def test_enqueue_in_a_route_without_a_lifespan_says_what_to_write(tmp_db: Path) -> None:
    _, app = shop(tmp_db)
    client = TestClient(app)
    for path in ("/greet", "/greet-in-thread"):
        with pytest.raises(NotRunning, match=r"with TestClient\(app\) as client") as caught:
            client.post(path, params={"name": "ada"})
        assert "FastAPI(lifespan=jobs.lifespan)" in str(caught.value)
        assert "jobs.running(app)" in str(caught.value)
        assert "mounted" not in str(caught.value)


def test_ask_the_router_without_a_lifespan_is_told_so(tmp_db: Path) -> None:
    _, app = shop(tmp_db)
    answer = TestClient(app).get("/jobs")
    assert (answer.status_code, answer.json()["code"]) == (503, "not-running")


def test_enqueue_in_a_route_after_the_lifespan_says_that_nothing_runs(tmp_db: Path) -> None:
    _, app = shop(tmp_db)
    client = TestClient(app)
    with client:
        assert client.post("/greet", params={"name": "ada"}).status_code == 201
    with pytest.raises(NotRunning):
        client.post("/greet", params={"name": "ada"})


def test_queue_of_a_mounted_app_is_that_of_the_outer_one(tmp_db: Path) -> None:
    jobs, inner = shop(tmp_db)
    outer = FastAPI(lifespan=jobs.lifespan)
    outer.mount("/v1", inner)
    with TestClient(outer) as client:
        assert client.post("/v1/greet", params={"name": "ada"}).status_code == 201


def test_queue_of_a_mounted_app_without_a_runner_says_where_to_open_it(tmp_db: Path) -> None:
    _, inner = shop(tmp_db)
    outer = FastAPI()
    outer.mount("/v1", inner)
    with TestClient(outer) as client, pytest.raises(NotRunning, match="mounted inside another"):
        client.post("/v1/greet", params={"name": "ada"})


def test_queue_of_a_mounted_app_with_a_runner_of_its_own_is_its_own(tmp_path: Path) -> None:
    theirs, inner = shop(tmp_path / "inner.db")
    ours, _ = shop(tmp_path / "outer.db")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with ours.running(app), theirs.running(inner):
            yield

    outer = FastAPI(lifespan=lifespan)
    outer.mount("/v1", inner)
    outer.include_router(ours.router(insecure=True), prefix="/jobs")
    with TestClient(outer) as client:
        assert client.post("/v1/bare", params={"name": "ada"}).status_code == 201
        assert client.get("/jobs").json()["items"] == []
        assert len(client.get("/v1/jobs").json()["items"]) == 1


def test_override_of_the_queue_is_used_by_routes_and_router(tmp_path: Path) -> None:
    ours, app = shop(tmp_path / "ours.db")
    other, _ = shop(tmp_path / "other.db")

    async def other_queue() -> JobQueue:
        return await other.queue()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with ours.running(app), other.running():
            yield

    app.router.lifespan_context = lifespan
    with TestClient(app) as client:
        client.post("/greet", params={"name": "ada"})
        assert len(client.get("/jobs").json()["items"]) == 1

        app.dependency_overrides[ours.queue] = other_queue
        assert client.get("/jobs").json()["items"] == []

        app.dependency_overrides[get_queue] = other_queue
        with pytest.raises(Exception, match="not registered with this runner"):
            client.post("/greet", params={"name": "ada"})
