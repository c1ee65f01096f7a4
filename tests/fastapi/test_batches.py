"""The routes of batches, and what an application's users see of them."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from jobrunner import Batch, Job, JobRunner
from tests.fastapi.conftest import NOBODY, PATIENCE_S, Documented, Site


def a_batch(
    site: Site, *, waits: bool = False, broken: bool = False, name: str = "b"
) -> Batch[Any]:
    """Return a batch of two greetings and a letter, with `then` and `at_end`; ended unless it waits."""

    async def store() -> Batch[Any]:
        greet = site.greet.options(delay=3600) if waits else site.greet
        first = greet.call("ada")
        letter = site.write_letter.call("nowhere" if broken else "a@b").after(first)
        batch: Batch[Any] = await site.jobs.enqueue_batch(
            [first, greet.call("bob"), letter],
            then=site.greet.call("then"),
            at_end=site.greet.call("at_end"),
            name=name,
        )
        if not waits:
            await batch.wait(PATIENCE_S)
            assert batch.at_end is not None
            await batch.at_end.result(PATIENCE_S)
        return batch

    return site.call(store)


def test_batch_is_shown_with_its_numbers_and_callbacks(site: Site) -> None:
    batch = a_batch(site, broken=True)
    body = site.client.get(f"/jobs/batches/{batch.id}").json()
    assert batch.then is not None
    assert batch.at_end is not None
    greet = site.greet.name
    assert body["then"] == {"id": batch.then.id, "task": greet, "state": "blocked"}
    assert body["at_end"] == {"id": batch.at_end.id, "task": greet, "state": "succeeded"}
    assert body["otherwise"] is None
    assert {key: body[key] for key in ("id", "name", "state", "total", "succeeded", "dead")} == {
        "id": batch.id,
        "name": "b",
        "state": "failed",
        "total": 3,
        "succeeded": 2,
        "dead": 1,
    }
    assert body["ended_at"] is not None
    assert (body["cancel_requested"], body["parent"]) == (False, None)


def test_batches_are_listed_page_by_page_and_by_state_and_name(site: Site) -> None:
    made = [a_batch(site, waits=n == 1, name=f"b{n}") for n in range(3)]
    first = site.client.get("/jobs/batches?limit=2").json()
    rest = site.client.get(f"/jobs/batches?cursor={first['next_cursor']}").json()
    assert [one["id"] for one in first["items"] + rest["items"]] == [one.id for one in made[::-1]]
    assert rest["next_cursor"] is None
    for query, found in (("state=running", made[1]), ("name=b2", made[2])):
        (one,) = site.client.get(f"/jobs/batches?{query}").json()["items"]
        assert one["id"] == found.id
    for query in ("state=dead", "name=", "limit=0", "colour=red", "cursor=x"):
        assert site.client.get(f"/jobs/batches?{query}").status_code == 422, query


def test_members_are_listed_by_batch(site: Site) -> None:
    batch = a_batch(site, broken=True)
    jobs = site.client.get(f"/jobs?batch={batch.id}").json()["items"]
    assert [one["id"] for one in jobs] == [batch.jobs[1].id, batch.jobs[0].id]
    assert {one["batch"] for one in jobs} == {batch.id}
    (letter,) = site.client.get(f"/jobs/dead-letters?batch={batch.id}").json()["items"]
    assert (letter["id"], letter["batch"]) == (batch.jobs[2].id, batch.id)
    assert site.client.get("/jobs?batch=no%20id").status_code == 422


def test_graph_has_the_jobs_and_what_each_waits_for(site: Site) -> None:
    batch = a_batch(site, broken=True)
    graph = site.client.get(f"/jobs/batches/{batch.id}/graph").json()
    assert graph["complete"] is True
    assert [one["role"] for one in graph["jobs"]] == ["member"] * 3 + ["then", "at_end"]
    assert [one["state"] for one in graph["jobs"]][:4] == ["succeeded"] * 2 + ["dead", "blocked"]
    assert batch.then is not None
    edges = {(one["job"], one["needs"]): (one["need"], one["state"]) for one in graph["edges"]}
    assert edges[batch.jobs[2].id, batch.jobs[0].id] == ("success", "met")
    assert edges[batch.then.id, batch.id][0] == "success"
    short = site.client.get(f"/jobs/batches/{batch.id}/graph?limit=1").json()
    assert short["complete"] is False
    assert [one["role"] for one in short["jobs"]] == ["member", "then", "at_end"]


def test_batch_is_retried_over_http(site: Site) -> None:
    batch = a_batch(site, broken=True)
    answer = site.client.post(f"/jobs/batches/{batch.id}/retry?audit_reason=again")
    assert (answer.status_code, answer.json()) == (
        200,
        {"replayed": 1, "conflicts": 0, "invalid": 0},
    )
    site.call(lambda: batch.wait(PATIENCE_S))
    entry = site.client.get("/jobs/audit").json()["items"][0]
    assert (entry["action"], entry["target"], entry["count"], entry["reason"]) == (
        "batches.retry",
        batch.id,
        1,
        "again",
    )


def test_batch_is_cancelled_once(site: Site) -> None:
    batch = a_batch(site, waits=True)
    for cancelled in (True, False):
        answer = site.client.post(f"/jobs/batches/{batch.id}/cancel")
        assert (answer.status_code, answer.json()) == (200, {"cancelled": cancelled})
        entry = site.client.get("/jobs/audit").json()["items"][0]
        assert (entry["action"], entry["target"]) == ("batches.cancel", batch.id)
        assert entry["count"] == int(cancelled)
    ended = site.call(lambda: batch.wait(PATIENCE_S))
    assert (ended.state, ended.cancelled) == ("cancelled", 3)


@pytest.mark.parametrize("way", ["", "/graph"])
def test_unknown_batch_is_a_problem_of_its_own(site: Site, way: str) -> None:
    answer = site.client.get(f"/jobs/batches/{NOBODY}{way}")
    assert (answer.status_code, answer.json()["code"]) == (404, "batch-not-found")
    for verb in ("cancel", "retry"):
        answer = site.client.post(f"/jobs/batches/{NOBODY}/{verb}")
        assert (answer.status_code, answer.json()["code"]) == (404, "batch-not-found")
    assert site.client.get(f"/jobs/batches/7{way}").status_code == 422


# -- a route of the application, and its users --------------------------------------------------------


@pytest.fixture
def shop(tmp_db: Path) -> FastAPI:
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def make_page(n: int) -> int:
        return n

    @jobs.task
    async def announce() -> None: ...

    @jobs.task
    async def private() -> None: ...

    app = FastAPI(lifespan=jobs.lifespan)
    app.include_router(jobs.status_router(lambda: None, public=[make_page]), prefix="/status")

    @app.post("/books")
    async def start(kind: str) -> Batch[int]:
        page, secret = make_page.call(1), private.call()
        match kind:
            case "member":
                return await jobs.enqueue_batch([page, make_page.call(2)])
            case "callback":
                batch: Any = await jobs.enqueue_batch([secret], then=page)
            case _:
                batch = await jobs.enqueue_batch([secret], then=announce.call())
        await batch.wait(PATIENCE_S)
        same: Batch[int] = batch
        return same

    return app


def test_route_may_return_a_batch(shop: FastAPI) -> None:
    with TestClient(shop) as client:
        body = client.post("/books?kind=member").json()
        assert (body["total"], body["state"]) == (2, "running")
        assert "jobs" not in body
        assert "then" not in body
        schema = client.get("/openapi.json").json()["components"]["schemas"]["BatchBody"]
        assert {"id", "succeeded", "waiting"} <= schema["properties"].keys()


@pytest.mark.parametrize("kind", ["member", "callback"])
def test_users_see_the_numbers_of_a_batch_with_a_public_job(shop: FastAPI, kind: str) -> None:
    with TestClient(shop) as client:
        client.event_hooks = {"response": [Documented(shop.openapi()["paths"])]}
        id = client.post(f"/books?kind={kind}").json()["id"]
        body = client.get(f"/status/batches/{id}").json()
        assert body.keys() == {
            *("id", "state", "done", "total", "succeeded", "failed", "cancelled", "running"),
            "waiting",
        }
        assert body["total"] == (2 if kind == "member" else 1)
        assert (body["state"], body["done"]) in (("running", False), ("succeeded", True))


def test_users_do_not_find_a_batch_without_a_public_job(shop: FastAPI) -> None:
    with TestClient(shop) as client:
        id = client.post("/books?kind=private").json()["id"]
        missing = client.get(f"/status/batches/{NOBODY}").json()
        found = client.get(f"/status/batches/{id}").json()
        assert found["code"] == missing["code"] == "batch-not-found"
        assert found["detail"].replace(id, "") == missing["detail"].replace(NOBODY, "")


def test_job_shows_its_batch(site: Site) -> None:
    batch = a_batch(site)
    job: Job[Any] = batch.jobs[0]
    assert site.client.get(f"/jobs/{job.id}").json()["batch"] == batch.id
