"""The guards of the jobs router: each stands before its own routes, and before the queue."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from jobrunner import ConfigurationError, JobRunner
from jobrunner.fastapi import bearer
from tests.fastapi.conftest import NOBODY, TOKEN, Site
from tests.fastapi.routes import ALL, statuses


def test_T1_every_route_without_the_token_is_unauthorized_and_says_nothing(site: Site) -> None:
    for method, path in ALL:
        answer = site.client.request(method, path, headers={"Authorization": ""})
        assert answer.status_code == 401, (method, path)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["detail"] == "Not authenticated"


def test_T1_the_lists_of_these_tests_hold_every_route(site: Site) -> None:
    documented = [
        (method.upper(), path)
        for path, operations in site.app.openapi()["paths"].items()
        for method in operations
    ]
    assert len(documented) == len(ALL)


def test_T1_a_closed_site_tells_strangers_nothing_but_that_they_are_strangers(tmp_db: Path) -> None:
    client = TestClient(Site(tmp_db).app)
    for method, path in ALL:
        assert client.request(method, path).status_code == 401


def test_router_without_a_guard_is_refused_with_the_line_to_write(tmp_db: Path) -> None:
    jobs = JobRunner(f"sqlite:///{tmp_db}")
    with pytest.raises(ConfigurationError, match=r"jobs\.router\(read=bearer\(TOKEN\)\)"):
        jobs.router()
    with pytest.raises(ConfigurationError, match=r"insecure=True"):
        jobs.router()
    with pytest.raises(ConfigurationError, match=r"jobs\.router\(read=\.\.\., act=\.\.\.\)"):
        jobs.router(act=bearer(TOKEN))


@pytest.mark.parametrize("guard", ["secret", Depends(), 5, [bearer("x")]])
def test_router_with_a_guard_that_is_no_dependency_is_refused(tmp_db: Path, guard: Any) -> None:
    jobs = JobRunner(f"sqlite:///{tmp_db}")
    with pytest.raises(ConfigurationError, match="takes a dependency"):
        jobs.router(read=guard)
    with pytest.raises(ConfigurationError, match="takes a dependency"):
        jobs.router(read=bearer(TOKEN), act=guard)


def test_T17_each_guard_protects_its_own_routes(tmp_db: Path) -> None:
    jobs = JobRunner(f"sqlite:///{tmp_db}", queues={"default": 1, "mail": 1})
    app = FastAPI(lifespan=jobs.lifespan)
    reader, actor = bearer("reader", scheme_name="reader"), bearer("actor", scheme_name="actor")
    app.include_router(jobs.router(read=Depends(reader), act=actor), prefix="/jobs")
    assert statuses(app, {}) == ({401}, {401})
    assert statuses(app, {"Authorization": "Bearer reader"}) == ({200, 404}, {401})
    assert statuses(app, {"Authorization": "Bearer actor"}) == ({401}, {200, 204, 404, 422})


def test_router_with_insecure_leaves_open_what_has_no_lock(tmp_db: Path) -> None:
    jobs = JobRunner(f"sqlite:///{tmp_db}", queues={"default": 1, "mail": 1})
    for locks, expected in (
        ({}, ({200, 404}, {200, 204, 404, 422})),
        ({"act": bearer("x")}, ({200, 404}, {401})),
        ({"read": bearer("x")}, ({401}, {401})),
    ):
        app = FastAPI(lifespan=jobs.lifespan)
        app.include_router(jobs.router(**locks, insecure=True), prefix="/jobs")
        assert statuses(app, {}) == expected


def test_router_with_a_plain_function_as_lock_asks_it(tmp_db: Path) -> None:
    asked: list[str] = []

    def admin(who: str = "nobody") -> None:
        asked.append(who)

    jobs = JobRunner(f"sqlite:///{tmp_db}")
    app = FastAPI(lifespan=jobs.lifespan)
    app.include_router(jobs.router(read=admin), prefix="/jobs")
    with TestClient(app) as client:
        assert client.get("/jobs/queues", params={"who": "ada"}).status_code == 200
        assert client.post(f"/jobs/{NOBODY}/cancel", params={"who": "bob"}).status_code == 404
    assert asked == ["ada", "bob"]
