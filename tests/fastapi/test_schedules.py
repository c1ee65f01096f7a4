"""The routes of schedules of ``jobs.router()``, over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fastapi.conftest import Site

CANARY = "canary-7f3a"


@pytest.fixture
def site(tmp_db: Path) -> Iterator[Site]:
    """Open a site that has a schedule in its code."""
    site = Site(tmp_db)
    site.jobs.cron("0 8 * * *", timezone="Europe/Berlin", args=[CANARY])(site.greet)
    with site.client:
        yield site


def put(site: Site, id: str, **body: object) -> dict[str, object]:
    answer = site.client.put(f"/jobs/schedules/{id}", json={"task": "greet"} | body)
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def test_list_shows_both_kinds_without_arguments_and_one_schedule_shows_them(site: Site) -> None:
    put(site, "hourly", every=3600, args=[CANARY])
    answer = site.client.get("/jobs/schedules")
    code, stored = answer.json()["items"]
    assert (code["id"], code["source"]) == ("greet", "code")
    assert code["description"] == "At 08:00 every day (Europe/Berlin)"
    assert code["next_at"].endswith(("06:00:00Z", "07:00:00Z"))
    assert (stored["id"], stored["source"], stored["every"]) == ("hourly", "stored", 3600)
    assert CANARY not in answer.text
    assert site.client.get("/jobs/schedules/greet").json()["args"] == {"name": CANARY}


def test_list_by_limit_cursor_and_task_gives_what_fits(site: Site) -> None:
    put(site, "hourly", every=3600, args=["ada"])

    def page(**params: str | int) -> tuple[list[str], str | None]:
        body = site.client.get("/jobs/schedules", params=params).json()
        return [item["id"] for item in body["items"]], body["next_cursor"]

    assert page() == (["greet", "hourly"], None)
    assert page(limit=1) == (["greet"], "greet")
    assert page(limit=1, cursor="greet") == (["hourly"], None)
    assert page(task="greet", limit=2) == (["greet", "hourly"], None)
    assert page(task="write_letter") == ([], None)


def test_put_stores_changes_and_takes_every_word(site: Site) -> None:
    first = put(
        site,
        "a@b:c",
        cron="*/5 * * * *",
        args={"name": "ada"},
        misfire="all",
        grace=60.5,
        cap=3,
        overlap="skip",
        jitter=10,
        start="2026-01-01T00:00:00Z",
        end="2100-01-01T00:00:00+01:00",
    )
    assert (first["timezone"], first["grace"], first["cap"], first["jitter"]) == (
        "UTC",
        60.5,
        3,
        10,
    )
    assert first["end"] == "2099-12-31T23:00:00Z"
    again = put(site, "a@b:c", every=90, args=["ada"])
    assert (again["cron"], again["every"], again["overlap"]) == (None, 90, "allow")
    once = put(site, "once", run_at="2100-01-01T00:00:00Z", args=["ada"])
    assert once["next_at"] == once["run_at"] == "2100-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"cron": "0 0 31 2 *"}, "invalid-schedule"),
        ({"cron": "@daily", "timezone": "Mars"}, "invalid-schedule"),
        ({"cron": "1," * 250 + "1 * * * *"}, "invalid-request"),
        ({"cron": "1," * 100_000 + "1 * * * *"}, "invalid-request"),
        ({"cron": "@daily", "timezone": "Europe/" + "B" * 100}, "invalid-request"),
        ({}, "invalid-schedule"),
        ({"cron": "@daily", "every": 5}, "invalid-schedule"),
        ({"every": 0.5}, "invalid-schedule"),
        ({"every": 1e300}, "invalid-schedule"),
        ({"every": -1}, "invalid-request"),
        ({"every": "60"}, "invalid-request"),
        ({"every": True}, "invalid-request"),
        ({"every": 60, "misfire": "never"}, "invalid-request"),
        ({"every": 60, "cap": 401}, "invalid-request"),
        ({"every": 60, "colour": "red"}, "invalid-request"),
        ({"run_at": "2100-01-01T00:00:00"}, "invalid-request"),
        ({"run_at": 4102444800}, "invalid-request"),
        ({"run_at": "0001-01-01T00:00:00+23:59"}, "invalid-schedule"),
        ({"every": 60, "start": "0001-01-01T00:00:00+23:59"}, "invalid-schedule"),
        ({"cron": "@daily", "end": "0001-01-01T00:00:00+23:59"}, "invalid-schedule"),
        ({"every": 60, "args": [1]}, "invalid-arguments"),
        ({"every": 60, "args": []}, "invalid-arguments"),
        ({"every": 60, "task": "unheard_of"}, "unknown-task"),
        ({"every": 60, "task": "no name"}, "invalid-request"),
    ],
)
def test_put_of_what_cannot_be_is_refused_and_stores_nothing(
    shared: Site, body: dict[str, object], code: str
) -> None:
    whole = {"task": "greet", "args": ["ada"]} | body
    answer = shared.client.put("/jobs/schedules/a", json=whole)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert len(answer.content) < 1_000
    assert shared.client.get("/jobs/schedules/a").status_code == 404


@pytest.mark.parametrize("id", ["-a", "a b", "a%2Fb", "a" * 201, "%00"])
def test_id_that_no_schedule_can_have_is_refused(shared: Site, id: str) -> None:
    answer = shared.client.get(f"/jobs/schedules/{id}")
    assert answer.status_code in {404, 422}
    assert shared.client.put(f"/jobs/schedules/{id}", json={"task": "greet"}).status_code >= 400


def test_pause_and_resume_say_how_it_stands(site: Site) -> None:
    paused = site.client.post("/jobs/schedules/greet/pause").json()
    assert (paused["paused"], paused["next_at"]) == (True, None)
    resumed = site.client.post("/jobs/schedules/greet/resume").json()
    assert resumed["paused"] is False
    assert resumed["next_at"] is not None


def test_run_makes_a_job_that_knows_its_schedule(site: Site) -> None:
    answer = site.client.post("/jobs/schedules/greet/run")
    assert answer.status_code == 202
    job = site.client.get(f"/jobs/{answer.json()['id']}").json()
    assert (job["task"], job["schedule"]) == ("greet", "greet")
    assert job["scheduled_for"] == job["created_at"]
    assert site.client.get("/jobs/schedules/greet/ticks").json() == {"items": []}


def test_ticks_show_what_became_of_them(site: Site) -> None:
    put(site, "past", run_at="2020-01-01T00:00:00Z", args=["ada"])
    while (job := site.client.get("/jobs/schedules/past").json()["last_job"]) is None:
        pass
    (tick,) = site.client.get("/jobs/schedules/past/ticks").json()["items"]
    moment = "2020-01-01T00:00:00Z"
    assert tick == {"at": moment, "until": moment, "count": 1, "outcome": "fired", "job": job}
    path = "/jobs/schedules/past/ticks"
    assert site.client.get(path, params={"before": moment}).json() == {"items": []}
    later = {"before": "2020-01-01T00:00:01Z", "limit": "1"}
    assert site.client.get(path, params=later).json() == {"items": [tick]}
    assert site.client.get(path, params={"before": "2020-01-01"}).status_code == 422


def test_delete_removes_stored_ones_and_not_those_in_the_code(site: Site) -> None:
    put(site, "a", every=60, args=["ada"])
    assert site.client.delete("/jobs/schedules/a").status_code == 204
    for method, path in [
        ("GET", ""),
        ("GET", "/ticks"),
        ("DELETE", ""),
        ("POST", "/run"),
        ("POST", "/pause"),
        ("POST", "/resume"),
    ]:
        answer = site.client.request(method, f"/jobs/schedules/a{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "schedule-not-found")
    for answer in (
        site.client.delete("/jobs/schedules/greet"),
        site.client.put(
            "/jobs/schedules/greet", json={"task": "greet", "every": 60, "args": ["a"]}
        ),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "declared-in-code")


def test_run_of_a_task_that_is_no_more_is_a_conflict(tmp_db: Path) -> None:
    old = Site(tmp_db)
    old.jobs.every(3600)(old.jobs.task(name="gone")(_nothing))
    with old.client:
        pass
    new = Site(tmp_db)
    with new.client as client:
        assert client.get("/jobs/schedules/gone").json()["disabled"] is True
        answer = client.post("/jobs/schedules/gone/run")
        assert (answer.status_code, answer.json()["code"]) == (409, "no-handler")
        assert client.delete("/jobs/schedules/gone").status_code == 204


async def _nothing() -> None: ...
