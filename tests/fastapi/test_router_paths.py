"""The paths of the jobs router beside those of a router of the application under the same prefix."""

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient

from jobrunner import JobRunner
from tests.fastapi.conftest import NOBODY, Site


def pages() -> APIRouter:
    """Return a router of the application with pages at ``/`` and below."""
    router = APIRouter()

    @router.get("")
    @router.get("/")
    @router.get("/{id}")
    @router.post("/cancel")
    async def page(id: str = "index") -> str:
        return f"page {id}"

    return router


@pytest.mark.parametrize("first", ["jobs", "pages"])
def test_router_of_the_application_below_the_jobs_router_is_reached(site: Site, first: str) -> None:
    app = FastAPI()
    jobs = site.jobs.router(insecure=True)
    both = [(jobs, "/jobs"), (pages(), "/jobs/ui")]
    for router, prefix in both if first == "jobs" else reversed(both):
        app.include_router(router, prefix=prefix)
    client = TestClient(app, base_url="http://localhost")
    for path, said in (("", "index"), ("/", "index"), (f"/{NOBODY}", NOBODY), ("/dead", "dead")):
        answer = client.get(f"/jobs/ui{path}")
        assert (answer.status_code, answer.json()) == (200, f"page {said}")
    assert client.post("/jobs/ui/cancel").json() == "page index"
    assert client.get("/jobs/1").json()["code"] == "invalid-request"


def test_path_with_a_slash_at_its_end_is_still_redirected_to(site: Site) -> None:
    app = FastAPI()
    app.include_router(site.jobs.router(insecure=True), prefix="/jobs")
    router = APIRouter()

    @router.get("/")
    async def index() -> str:
        return "index"

    app.include_router(router, prefix="/jobs/ui")
    client = TestClient(app, base_url="http://localhost")
    assert client.get("/jobs/ui").json() == "index"


@pytest.mark.parametrize("id", ["1", "01936d2c", NOBODY[:-1], f"{NOBODY}0", "f" * 40 + "0"])
def test_id_that_is_cut_off_is_answered_with_a_problem(shared: Site, id: str) -> None:
    for method, path in (
        ("GET", f"/jobs/{id}"),
        ("POST", f"/jobs/{id}/cancel"),
        ("POST", f"/jobs/{id}/reschedule"),
    ):
        answer = shared.client.request(method, path, json=None if method == "GET" else {"delay": 0})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request"), path


@pytest.mark.parametrize("word", ["ui", "feed", "no-id", "-", "9" * 100 + "x"])
def test_word_that_is_no_id_is_left_to_other_routers(word: str) -> None:
    app = FastAPI()
    app.include_router(JobRunner("never-opened.db").router(insecure=True), prefix="/jobs")
    client = TestClient(app, base_url="http://localhost")
    assert client.get(f"/jobs/{word}").json() == {"detail": "Not Found"}
