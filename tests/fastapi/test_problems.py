"""Errors of the jobs router as problem documents, whatever raised them."""

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from pydantic import BaseModel

from jobrunner.core import errors
from jobrunner.fastapi.api.problems import MAX_BODY_BYTES, JobProblem
from jobrunner.fastapi.api.route import ProblemRoute
from tests.fastapi.conftest import NOBODY, Site
from tests.fastapi.routes import ACTS

EXPECTED = {
    errors.ConfigurationError: (500, "internal"),
    errors.AmbiguousRunner: (500, "internal"),
    errors.AlreadyRunning: (500, "internal"),
    errors.WrongThread: (500, "internal"),
    errors.ResultError: (500, "internal"),
    errors.NotAwaited: (500, "internal"),
    errors.TimedOut: (500, "internal"),
    errors.ProcessLost: (500, "internal"),
    errors.UnknownQueue: (404, "unknown-queue"),
    errors.NotRunning: (503, "not-running"),
    errors.UnknownTask: (422, "unknown-task"),
    errors.InvalidArguments: (422, "invalid-arguments"),
    errors.InvalidOptions: (422, "invalid-options"),
    errors.InvalidCursor: (422, "invalid-cursor"),
    errors.JobNotFound: (404, "not-found"),
    errors.Conflict: (409, "conflict"),
    errors.KeyTaken: (409, "key-taken"),
    errors.AlreadyReplayed: (409, "already-replayed"),
    errors.JobNotWaiting: (409, "not-waiting"),
    errors.StoreBusy: (503, "store-busy"),
    errors.StoreFull: (507, "store-full"),
    errors.StoreUnavailable: (503, "store-unavailable"),
    errors.StoreOutcomeUnknown: (503, "outcome-unknown"),
    errors.StoreFailed: (503, "store-unusable"),
    errors.StoreCorrupt: (503, "store-unusable"),
}


def descendants(cls: type[Exception]) -> Iterator[type[Exception]]:
    """Yield a class's children and theirs."""
    for child in cls.__subclasses__():
        yield child
        yield from descendants(child)


def raising(error: BaseException) -> TestClient:
    """Return a client whose one route, at /, raises the error."""
    router = APIRouter(route_class=ProblemRoute)

    @router.get("")
    async def fail() -> None:
        raise error

    app = FastAPI()
    app.include_router(router, prefix="/jobs")
    return TestClient(app)


@pytest.mark.parametrize(
    ("error", "status", "code"), [(error, *expected) for error, expected in EXPECTED.items()]
)
def test_answer_to_each_error_has_its_status_and_code(
    error: type[errors.JobRunnerError], status: int, code: str
) -> None:
    answer = raising(error("the cat sat on it")).get("/jobs")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    JobProblem.model_validate(body)
    assert (body["type"], body["status"], body["code"]) == (f"urn:jobrunner:{code}", status, code)
    assert body["detail"]


def test_every_error_of_the_library_has_an_answer() -> None:
    for error in descendants(errors.JobRunnerError):
        answer = raising(error("why")).get("/jobs")
        assert answer.headers["content-type"] == "application/problem+json", error


def test_answer_to_a_mistake_in_the_app_is_logged_and_not_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR, "jobrunner"):
        answer = raising(errors.AmbiguousRunner("two runners at /srv/secret")).get("/jobs")
    assert "secret" not in answer.text
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], errors.AmbiguousRunner)


def test_answer_to_an_expected_error_says_what_happened() -> None:
    answer = raising(errors.KeyTaken("job 5 holds it")).get("/jobs")
    assert answer.json()["detail"] == "job 5 holds it"


def test_answer_to_a_busy_store_says_when_to_come_back() -> None:
    assert raising(errors.StoreBusy("held")).get("/jobs").headers["retry-after"] == "1"
    assert "retry-after" not in raising(errors.StoreOutcomeUnknown("?")).get("/jobs").headers


def test_answer_to_a_message_that_is_no_utf8_is_still_json() -> None:
    assert raising(errors.InvalidArguments("name: \ud800")).get("/jobs").json()["code"] == (
        "invalid-arguments"
    )


def test_error_of_nobody_is_left_to_the_app() -> None:
    with pytest.raises(ZeroDivisionError):
        raising(ZeroDivisionError()).get("/jobs")


def test_http_exception_keeps_detail_and_headers() -> None:
    answer = raising(HTTPException(403, "not for you", {"X-Why": "role"})).get("/jobs")
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-why"] == "role"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Forbidden",
        "status": 403,
        "detail": "not for you",
        "code": "forbidden",
    }


def test_http_exception_with_a_structured_detail_or_odd_status_is_told_as_it_is() -> None:
    assert raising(HTTPException(400, {"field": "x"})).get("/jobs").json()["detail"] == {
        "field": "x"
    }
    answer = raising(HTTPException(499, "gone")).get("/jobs")
    assert (answer.status_code, answer.json()["title"]) == (499, "Error")


def test_http_exception_that_redirects_is_no_problem() -> None:
    client = raising(HTTPException(303, headers={"Location": "/login"}))
    answer = client.get("/jobs", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"], answer.content) == (303, "/login", b"")


def test_invalid_request_names_each_mistake_without_repeating_the_input(client: TestClient) -> None:
    answer = client.get("/jobs", params={"limit": "s3cret", "colour": "blue"})
    body = answer.json()
    assert answer.status_code == 422
    assert {tuple(error["loc"]) for error in body["errors"]} == {
        ("query", "limit"),
        ("query", "colour"),
    }
    assert "query.limit: " in body["detail"]
    assert "s3cret" not in answer.text
    JobProblem.model_validate(body)


def test_invalid_request_with_a_thousand_mistakes_names_the_first(client: TestClient) -> None:
    answer = client.post(
        "/jobs/dead-letters/replay", json={f"field{number}": 1 for number in range(1000)}
    )
    assert len(answer.json()["errors"]) == 20
    assert answer.json()["detail"].endswith("and 980 more")


def test_wrong_method_is_a_problem_that_names_the_right_one(client: TestClient) -> None:
    answer = client.put("/jobs")
    assert answer.status_code == 405
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["allow"] == "GET"
    assert answer.json()["code"] == "method-not-allowed"


@pytest.mark.parametrize("length", ["announced", "chunked"])
def test_F1_body_that_is_too_large_is_refused_before_it_is_read_whole(
    shared: Site, length: str
) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        while sent < 64 << 20:
            sent += 1 << 20
            yield b" " * (1 << 20)

    content = chunks() if length == "chunked" else b" " * (MAX_BODY_BYTES + 1)
    answer = shared.client.post(
        "/jobs/dead-letters/replay", content=content, headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "too-large")


def test_F6_body_that_is_nested_too_deep_is_refused(client: TestClient) -> None:
    answer = client.post(
        f"/jobs/dead-letters/{NOBODY}/replay",
        content=b'{"args": ' + b"[" * 100_000,
        headers={"content-type": "application/json"},
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "bad-request")


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_T3_body_in_a_type_that_forms_can_send_is_refused(
    shared: Site, letter: str, media_type: str
) -> None:
    for path in ("/jobs/dead-letters/replay", f"/jobs/dead-letters/{letter}/replay"):
        answer = shared.client.post(
            path, content=b'{"all": true}', headers={"content-type": media_type}
        )
        assert (answer.status_code, answer.json()["code"]) == (415, "not-json")
    assert shared.client.get(f"/jobs/{letter}").json()["state"] == "dead"


def test_body_in_another_json_type_is_read(site: Site) -> None:
    answer = site.client.post(
        "/jobs/dead-letters/replay",
        content=b'{"all": true}',
        headers={"content-type": "application/vnd.shop+json; charset=utf-8"},
    )
    assert answer.status_code == 200


FOREIGN = [
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "cross-site", "origin": "http://testserver"},
    {"origin": "https://evil.example"},
    {"origin": "http://testserver:81"},
    {"origin": "null"},
    {"origin": ""},
    {"origin": "http://["},
]
OWN: list[dict[str, str]] = [
    {},
    {"sec-fetch-site": "same-origin", "origin": "https://behind-a-proxy.example"},
    {"sec-fetch-site": "none"},
    {"origin": "http://testserver"},
]


@pytest.fixture(scope="module")
def unguarded(shared: Site) -> Site:
    """Return the shared site with a second router, without a guard, at /open."""
    shared.app.include_router(shared.jobs.router(insecure=True), prefix="/open")
    return shared


@pytest.mark.parametrize("headers", FOREIGN)
def test_T3_change_that_another_site_sends_is_refused(
    unguarded: Site, headers: dict[str, str]
) -> None:
    job = unguarded.waiting()
    path = f"/open/{job.id}/cancel"
    foreign = headers | {"authorization": "Basic YTpi"}
    answer = unguarded.client.post(path, headers=foreign)
    assert (answer.status_code, answer.json()["code"]) == (403, "cross-origin")
    assert unguarded.client.get(f"/open/{job.id}", headers=foreign).json()["state"] == "scheduled"


def test_T3_every_change_that_another_site_sends_is_refused(unguarded: Site) -> None:
    foreign = {"sec-fetch-site": "cross-site", "authorization": "Basic YTpi"}
    for method, path in ACTS:
        # A browser sends DELETE to another site only after it has asked for leave.
        if method != "DELETE":
            answer = unguarded.client.request(
                method, path.replace("/jobs", "/open"), headers=foreign
            )
            assert (answer.status_code, answer.json()["code"]) == (403, "cross-origin"), path


@pytest.mark.parametrize("headers", OWN)
def test_change_from_the_same_site_or_no_browser_is_made(
    unguarded: Site, headers: dict[str, str]
) -> None:
    job = unguarded.waiting()
    answer = unguarded.client.post(
        f"/open/{job.id}/cancel", headers=headers | {"authorization": ""}
    )
    assert answer.json() == {"status": "cancelled"}


@pytest.mark.parametrize(
    "leave", [{"authorization": "Bearer x"}, {"content-type": "application/json"}]
)
def test_change_for_which_a_browser_must_ask_cors_is_left_to_cors(
    unguarded: Site, leave: dict[str, str]
) -> None:
    job = unguarded.waiting()
    headers = {"sec-fetch-site": "cross-site", "authorization": ""} | leave
    assert unguarded.client.post(f"/open/{job.id}/cancel", headers=headers).json() == {
        "status": "cancelled"
    }


def test_dependency_with_yield_sees_the_error_that_passed_it() -> None:
    seen: list[BaseException] = []

    async def session() -> AsyncIterator[None]:
        try:
            yield
        except BaseException as error:
            seen.append(error)
            raise

    router = APIRouter(route_class=ProblemRoute)

    @router.get("", dependencies=[Depends(session)])
    async def fail() -> None:
        raise errors.KeyTaken("taken")

    app = FastAPI()
    app.include_router(router, prefix="/jobs")
    assert TestClient(app).get("/jobs").status_code == 409
    assert [type(error) for error in seen] == [errors.KeyTaken]


def test_handlers_of_the_app_answer_its_own_errors_and_its_own_routes() -> None:
    class Locked(Exception):
        pass

    app = FastAPI()

    @app.exception_handler(Locked)
    async def locked(request: Request, error: Locked) -> JSONResponse:
        return JSONResponse({"locked": True}, 423)

    @app.exception_handler(404)
    async def nothing_here(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"page": "404"}, 404)

    class Order(BaseModel):
        number: int

    @app.post("/orders")
    async def order(order: Annotated[Order, Body()]) -> None: ...

    router = APIRouter(route_class=ProblemRoute)

    @router.get("/locked")
    async def fail_locked() -> None:
        raise Locked

    @router.get("/gone")
    async def fail_gone() -> None:
        raise errors.JobNotFound("gone")

    @router.get("/gone-by-status")
    async def fail_gone_by_status() -> None:
        raise HTTPException(404)

    app.include_router(router, prefix="/jobs")
    client = TestClient(app)
    assert client.get("/jobs/locked").json() == {"locked": True}
    assert client.get("/jobs/gone").json()["code"] == "not-found"
    assert client.get("/jobs/gone-by-status").json()["code"] == "not-found"
    # FastAPI's own shapes stay as they are elsewhere.
    assert client.get("/elsewhere").json() == {"page": "404"}
    assert isinstance(client.post("/orders", json={}).json()["detail"], list)
