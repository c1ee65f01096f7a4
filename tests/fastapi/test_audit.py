"""The audit log over HTTP: each act of each route, under the name that the application gives."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.testclient import TestClient

from jobrunner import ConfigurationError, JobRunner
from jobrunner.core.audit import ACTIONS
from jobrunner.fastapi import bearer
from tests.fastapi.conftest import NOBODY, TOKEN, Site
from tests.fastapi.routes import ACTS


def log(client: TestClient, **query: str) -> list[dict[str, Any]]:
    """Return the entries of the log, newest first."""
    answer = client.get("/jobs/audit", params=query)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def act_on_everything(site: Site) -> Iterator[tuple[str, str, Any, str, str | None, int]]:
    """Yield a request of each acting route, with its action, its target and its count."""
    waiting, done = site.waiting().id, site.finished().id
    yield "POST", f"/jobs/{waiting}/reschedule", {"delay": 7200}, "reschedule", waiting, 1
    yield "POST", f"/jobs/{done}/reschedule", {"delay": 0}, "reschedule", done, 0
    yield "POST", f"/jobs/{waiting}/cancel", None, "cancel", waiting, 1
    yield "POST", f"/jobs/{done}/cancel", None, "cancel", done, 0
    plain, edited, gone = site.dead(), site.dead(), site.dead()
    at = f"/jobs/dead-letters/{plain}"
    yield "POST", f"{at}/replay", None, "dead_letters.replay", plain, 1
    at = f"/jobs/dead-letters/{edited}"
    args = {"args": {"email": "a@b"}}
    yield "POST", f"{at}/replay", args, "dead_letters.replay_edited", edited, 1
    yield "POST", f"{at}/replay", args, "dead_letters.replay_edited", edited, 0
    yield "DELETE", f"/jobs/dead-letters/{gone}", None, "dead_letters.delete", gone, 1
    yield "DELETE", f"/jobs/dead-letters/{gone}", None, "dead_letters.delete", gone, 0
    for verb in ("pause", "resume"):
        yield "POST", f"/jobs/queues/mail/{verb}", None, f"queues.{verb}", "mail", 1
        yield "POST", f"/jobs/queues/mial/{verb}", None, f"queues.{verb}", "mial", 0
    at, unknown = "/jobs/limits?scope=queue&name=mail", "/jobs/limits?scope=lane&name=no[1]"
    yield "PUT", at, {"concurrency": 4}, "limits.set", "queue mail", 1
    yield "PUT", unknown, {"concurrency": 4}, "limits.set", "lane no[1]", 0
    yield "DELETE", at, None, "limits.reset", "queue mail", 1
    yield "DELETE", at, None, "limits.reset", "queue mail", 0
    stored = {"task": site.greet.name, "every": 3600, "args": ["ada"]}
    yield "PUT", "/jobs/schedules/s", stored, "schedules.upsert", "s", 1
    yield "PUT", "/jobs/schedules/s", stored | {"task": "no"}, "schedules.upsert", "s", 0
    yield "POST", "/jobs/schedules/s/run", None, "schedules.run_now", "s", 1
    yield "POST", "/jobs/schedules/s/pause", None, "schedules.pause", "s", 1
    yield "POST", "/jobs/schedules/s/resume", None, "schedules.resume", "s", 1
    yield "DELETE", "/jobs/schedules/s", None, "schedules.remove", "s", 1
    yield "DELETE", "/jobs/schedules/s", None, "schedules.remove", "s", 0


def test_every_act_of_every_route_has_an_entry_with_its_target_and_count(site: Site) -> None:
    for method, path, body, action, target, count in act_on_everything(site):
        query = {"audit_reason": f"{method} {path}"}
        address = httpx2.URL(path).copy_merge_params(query)
        site.client.request(method, address, json=body)
        newest = log(site.client)[0]
        assert newest["reason"] == query["audit_reason"]
        assert (newest["action"], newest["target"], newest["count"]) == (action, target, count)
        assert (newest["actor"], newest["filter"]) == ("unknown", None)


def test_no_acting_route_is_without_an_entry(site: Site) -> None:
    """A new route is in the list of the routes, or its test fails; and then its entry is missed here."""
    bodies = {
        f"/jobs/{NOBODY}/reschedule": {"delay": 0},
        "/jobs/cancel": {"all": True},
        "/jobs/reschedule": {"all": True, "delay": 0},
        "/jobs/dead-letters/replay": {"all": True},
        "/jobs/limits?scope=queue&name=mail": {"concurrency": 4},
        "/jobs/schedules/greet": {"task": site.greet.name, "every": 3600, "args": ["ada"]},
    }
    for number, (method, path) in enumerate(ACTS, 1):
        site.client.request(method, path, json=bodies.get(path))
        assert len(log(site.client)) == number, f"{method} {path}"


def test_a_replay_by_filter_has_its_filter_and_the_number_of_dead_letters(site: Site) -> None:
    task = site.write_letter.name
    for _ in range(3):
        site.dead(tag="t")
    replay = "/jobs/dead-letters/replay"
    assert site.client.post(replay, json={"all": True, "dry_run": True}).json()["matched"] == 3
    assert log(site.client) == []
    since = "2020-01-01T00:00:00Z"
    body = {"task": task, "tag": "t", "reason": "buried", "since": since}
    assert site.client.post(replay, json=body).json()["replayed"] == 3
    site.client.post(replay, json={"all": True})
    everything, some = log(site.client)
    assert (everything["filter"], everything["target"]) == ({}, None)
    assert some["filter"] == body | {"since": "2020-01-01T00:00:00+00:00"}
    assert (some["count"], some["reason"]) == (3, None)


def test_a_cancel_by_filter_has_its_filter_and_the_number_of_jobs(site: Site) -> None:
    for _ in range(3):
        site.waiting(tag="t")
    body = {"tag": "t", "state": "scheduled"}
    assert site.client.post("/jobs/cancel", json=body | {"dry_run": True}).status_code == 200
    assert log(site.client) == []
    assert site.client.post("/jobs/cancel", json=body).json()["cancelled"] == 3
    (entry,) = log(site.client)
    assert (entry["action"], entry["filter"], entry["count"]) == ("cancel_all", body, 3)


def test_a_reschedule_by_filter_has_its_filter_and_the_number_of_jobs(site: Site) -> None:
    for _ in range(3):
        site.waiting(tag="t")
    body = {"tag": "t", "state": "scheduled"}
    asked = body | {"delay": 7200}
    assert site.client.post("/jobs/reschedule", json=asked | {"dry_run": True}).status_code == 200
    assert log(site.client) == []
    assert site.client.post("/jobs/reschedule", json=asked).json()["rescheduled"] == 3
    (entry,) = log(site.client)
    assert (entry["action"], entry["filter"], entry["count"]) == ("reschedule_all", body, 3)


def test_a_run_that_meets_the_key_of_another_job_did_nothing(site: Site) -> None:
    async def store() -> None:
        await site.jobs.schedules.upsert(
            "keyed", site.greet.options(key="k"), every=3600, args=["ada"]
        )

    site.call(store)
    site.waiting(key="k")
    site.client.post("/jobs/schedules/keyed/run")
    assert log(site.client)[0]["count"] == 0


def test_requests_that_do_not_fit_are_no_acts(site: Site) -> None:
    client = site.client
    for reason in ("", "r" * 501):
        answer = client.post(f"/jobs/{NOBODY}/cancel", params={"audit_reason": reason})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")
        assert answer.json()["errors"][0]["loc"] == ["query", "audit_reason"]
    assert client.post("/jobs/dead-letters/replay", json={}).status_code == 422
    stranger = TestClient(site.app)
    assert stranger.post("/jobs/queues/mail/pause").status_code == 401
    assert log(client) == []
    long = {"audit_reason": "ü" * 500}
    assert client.post("/jobs/queues/mail/pause", params=long).status_code == 200
    assert log(client)[0]["reason"] == "ü" * 500


def test_the_log_is_paged_and_filtered(site: Site) -> None:
    for name in ("mail", "default", "mail"):
        site.client.post(f"/jobs/queues/{name}/pause")
    site.client.post("/jobs/queues/mail/resume")
    first = site.client.get("/jobs/audit", params={"limit": 3}).json()
    second = site.client.get("/jobs/audit", params={"cursor": first["next_cursor"]}).json()
    targets = [one["target"] for one in first["items"] + second["items"]]
    assert targets == ["mail", "mail", "default", "mail"]
    assert (first["complete"], second["next_cursor"]) == (True, None)
    assert [one["id"] for one in log(site.client, action="queues.resume")] == [4]
    assert log(site.client, actor="ada") == []
    for query in ({"action": "steal"}, {"cursor": "x"}, {"limit": "0"}, {"who": "ada"}):
        assert site.client.get("/jobs/audit", params=query).status_code == 422


def test_the_page_has_the_reason_on_the_acting_routes_alone(site: Site) -> None:
    for path, operations in site.app.openapi()["paths"].items():
        for method, operation in operations.items():
            named = {one["name"]: one for one in operation.get("parameters", ())}
            assert ("audit_reason" in named) == (method != "get"), f"{method} {path}"
            if method != "get":
                assert '"maxLength": 500' in str(named["audit_reason"]).replace("'", '"')


def test_actions_are_the_names_of_methods() -> None:
    """A program reads the names in the log that it calls."""
    for action in set(ACTIONS) - {"dead_letters.replay_edited", "arguments.show"}:
        thing: Any = JobRunner
        *nouns, verb = action.split(".")
        for noun in nouns:
            thing = getattr(thing, noun).fget.__annotations__["return"]
        assert callable(getattr(thing, verb)), action


# -- actor= ------------------------------------------------------------------------------------------------


async def current_user(x_user: Annotated[str | None, Header()] = None) -> str:
    """Return the user of the request, as an application would find it in its session."""
    if x_user is None:
        raise HTTPException(401, "sign in")
    return x_user


def only_ada(user: Annotated[str, Depends(current_user)]) -> None:
    """Let one user act."""
    if user != "ada":
        raise HTTPException(403, "not you")


def site_of(file: Path, **router: Any) -> TestClient:
    """Return a client of an app whose router has these arguments."""
    jobs = JobRunner(file)
    app = FastAPI(lifespan=jobs.lifespan)
    app.include_router(jobs.router(**router), prefix="/jobs")
    return TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"})


@pytest.mark.parametrize(
    "actor", [current_user, Depends(current_user)], ids=["function", "Depends"]
)
def test_the_actor_is_who_the_application_s_dependency_says(tmp_db: Path, actor: Any) -> None:
    with site_of(tmp_db, read=bearer(TOKEN), act=only_ada, actor=actor) as client:
        pause = "/jobs/queues/default/pause"
        assert client.post(pause, headers={"x-user": "ada"}).status_code == 200
        assert client.post(pause, headers={"x-user": "eve"}).status_code == 403
        assert client.post(pause).status_code == 401
        assert [one["actor"] for one in log(client)] == ["ada"]


def test_the_guard_comes_before_the_actor(tmp_db: Path) -> None:
    asked: list[str] = []

    def actor() -> str:
        asked.append("actor")
        return "ada"

    with site_of(tmp_db, read=bearer(TOKEN), act=bearer("other"), actor=actor) as client:
        assert client.post("/jobs/queues/default/pause").status_code == 401
        assert client.get("/jobs/queues").status_code == 200
    assert asked == []


@pytest.mark.parametrize("name", [None, "", 7])
def test_an_actor_without_a_name_is_a_fault_of_the_application_and_acts_not(
    tmp_db: Path, name: object, caplog: pytest.LogCaptureFixture
) -> None:
    with site_of(tmp_db, read=bearer(TOKEN), actor=lambda: name) as client:
        answer = client.post("/jobs/queues/default/pause")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert log(client) == []
        (queue,) = client.get("/jobs/queues").json()["items"]
        assert queue["paused"] is False
    assert "jobs.router(actor=...) returned" in caplog.text


def test_an_actor_that_is_no_dependency_is_refused(tmp_db: Path) -> None:
    wrong: list[Callable[..., object] | str] = ["ada"]
    with pytest.raises(ConfigurationError, match=r"jobs\.router\(actor=\.\.\.\) takes a dep"):
        JobRunner(tmp_db).router(insecure=True, actor=wrong[0])  # type: ignore[arg-type]
