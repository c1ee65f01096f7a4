"""The routes of jobs: query parameters reach the queue, and what it answers reaches the body."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.fastapi.conftest import NOBODY, Site

CANARY = "canary-7f3a"
"""An argument that must not show where arguments do not belong."""


def test_list_of_jobs_gives_newest_first_without_arguments(site: Site) -> None:
    first, second = site.waiting(CANARY), site.waiting(CANARY)
    answer = site.client.get("/jobs")
    assert answer.status_code == 200
    assert [item["id"] for item in answer.json()["items"]] == [second.id, first.id]
    assert answer.json()["next_cursor"] is None
    assert CANARY not in answer.text


def test_list_by_limit_and_cursor_gives_the_page_after(site: Site) -> None:
    first, second = site.waiting(), site.waiting()
    page = site.client.get("/jobs", params={"limit": 1}).json()
    assert ([item["id"] for item in page["items"]], page["complete"]) == ([second.id], True)
    page = site.client.get("/jobs", params={"limit": 1, "cursor": page["next_cursor"]}).json()
    assert [item["id"] for item in page["items"]] == [first.id]
    assert page["next_cursor"] is None


def test_list_by_each_filter_gives_what_fits(site: Site) -> None:
    wanted = site.waiting(key="k 1", tag="sign-up")
    done = site.finished()
    now = datetime(2100, 1, 1, tzinfo=UTC).isoformat()

    def ids(**params: str) -> set[str]:
        answer = site.client.get("/jobs", params=params)
        assert answer.status_code == 200, answer.text
        return {item["id"] for item in answer.json()["items"]}

    both = {wanted.id, done.id}
    assert ids(task="greet", queue="default") == both
    assert ids(task="write_letter") == set()
    assert ids(queue="mail") == set()
    assert ids(state="scheduled") == {wanted.id}
    assert ids(state="succeeded") == {done.id}
    assert ids(tag="sign-up") == {wanted.id}
    assert ids(key="k 1") == {wanted.id}
    assert ids(since=now) == set()
    assert ids(until=now) == both
    assert ids(since=wanted.created_at.isoformat(), until=now, tag="sign-up") == {wanted.id}


def test_list_of_retrying_jobs_leaves_out_those_that_have_never_run(site: Site) -> None:
    later, failed = site.waiting(), site.retrying()
    for state, ids in (("retrying", [failed.id]), ("scheduled", [failed.id, later.id])):
        items = site.client.get("/jobs", params={"state": state}).json()["items"]
        assert [item["id"] for item in items] == ids
        assert {item["state"] for item in items} == {"scheduled"}


def test_time_in_a_filter_is_compared_as_an_instant_whatever_its_offset(site: Site) -> None:
    job = site.waiting()
    moment = job.created_at + timedelta(seconds=1)
    for written in ("%Y-%m-%dT%H:%M:%S.%f+00:00", "%Y-%m-%dT%H:%M:%S.%fZ"):
        params = {"until": moment.strftime(written)}
        assert len(site.client.get("/jobs", params=params).json()["items"]) == 1


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=1000000000",
        f"limit={'9' * 5000}",
        "limit=true",
        "state=xyz",
        "since=2026-01-01T00:00:00",
        "since=2026-01-01",
        "since=20260101",
        "since=soon",
        "until=2026-13-01T00:00:00Z",
        "until=9999-12-31T23:59:59-23:59",
        "cursor=first",
        "cursor=-1",
        "cursor=%D9%A1",
        f"cursor={'9' * 400}",
        "cursor=",
        "sort=id;drop table jobrunner_jobs",
        "task=",
        "task=os.system('x')",
        "task=a%00b",
        f"queue={'q' * 201}",
        "tag=a%0Ab",
        "key=%FF%00",
    ],
)
def test_list_of_jobs_with_a_bad_query_is_refused(shared: Site, query: str) -> None:
    answer = shared.client.get(f"/jobs?{query}")
    assert answer.status_code == 422
    assert answer.json()["code"] in {"invalid-request", "invalid-cursor", "invalid-options"}


def test_T6_list_with_sql_in_a_filter_gives_nothing_and_changes_nothing(site: Site) -> None:
    job = site.waiting()
    for word in ("' OR 1=1 --", '"; DROP TABLE jobrunner_jobs; --', "%", "*", "\\"):
        for field in ("tag", "key"):
            answer = site.client.get("/jobs", params={field: word})
            assert (answer.status_code, answer.json()["items"]) == (200, [])
    assert [item["id"] for item in site.client.get("/jobs").json()["items"]] == [job.id]


def test_get_of_a_finished_job_gives_its_attempts_without_arguments(site: Site) -> None:
    job = site.finished()
    answer = site.client.get(f"/jobs/{job.id}")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["id"], body["state"], body["attempt"]) == (job.id, "succeeded", 1)
    (attempt,) = body["history"]
    assert (attempt["attempt"], attempt["outcome"], attempt["error"]) == (1, "succeeded", None)
    assert attempt["finished_at"] >= attempt["started_at"]
    assert attempt["worker"].isdigit()
    assert '"ada"' not in answer.text


def test_get_of_a_job_in_another_spelling_of_its_id_finds_it(site: Site) -> None:
    job = site.waiting()
    assert site.client.get(f"/jobs/{job.id.upper()}").json()["id"] == job.id


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/jobs/{id}"),
        ("POST", "/jobs/{id}/cancel"),
        ("GET", "/jobs/dead-letters/{id}"),
        ("POST", "/jobs/dead-letters/{id}/replay"),
        ("DELETE", "/jobs/dead-letters/{id}"),
    ],
)
def test_ask_for_an_unknown_id_is_not_found(shared: Site, method: str, path: str) -> None:
    client = shared.client
    assert client.request(method, path.format(id=NOBODY)).json()["code"] == "not-found"
    assert client.request(method, path.format(id=NOBODY)).status_code == 404
    assert client.request(method, path.format(id="1")).status_code == 422


def test_cancel_of_a_waiting_job_cancels_it(site: Site) -> None:
    job = site.waiting()
    answer = site.client.post(f"/jobs/{job.id}/cancel")
    assert (answer.status_code, answer.json()) == (200, {"status": "cancelled"})
    assert site.client.get(f"/jobs/{job.id}").json()["state"] == "cancelled"


def test_cancel_by_filter_cancels_what_matches_and_says_how_many(site: Site) -> None:
    wanted = site.waiting(key="k", tag="sign-up")
    others = [site.waiting(), *site.chain()]
    where = {
        "task": "greet",
        "queue": "default",
        "state": "scheduled",
        "tag": "sign-up",
        "key": "k",
        "since": "2020-01-01T00:00:00+02:00",
        "until": "2100-01-01T00:00:00Z",
    }
    none = {"cancelled": 0, "requested": 0, "dry_run": False}
    different = {
        "task": "write_letter",
        "queue": "mail",
        "state": "queued",
        "tag": "other",
        "key": "other",
        "since": "2100-01-01T00:00:00Z",
        "until": "2020-01-01T00:00:00Z",
    }
    for name, value in different.items():
        answer = site.client.post("/jobs/cancel", json=where | {name: value})
        assert (answer.status_code, answer.json()) == (200, none), name
    answer = site.client.post("/jobs/cancel", json=where | {"dry_run": True})
    assert answer.json() == {"cancelled": 1, "requested": 0, "dry_run": True}
    assert site.client.get(f"/jobs/{wanted.id}").json()["state"] == "scheduled"
    assert site.client.post("/jobs/cancel", json=where).json() == none | {"cancelled": 1}
    assert site.client.get(f"/jobs/{wanted.id}").json()["state"] == "cancelled"
    assert site.client.post("/jobs/cancel", json={"all": True}).json()["cancelled"] == len(others)


def test_cancel_of_all_has_to_be_said(site: Site) -> None:
    job = site.waiting()
    for body in ({}, {"all": False}, {"dry_run": True}, {"task": None}):
        answer = site.client.post("/jobs/cancel", json=body)
        assert answer.status_code == 422
        assert '{"all": true}' in answer.json()["detail"]
    for bad in ({"all": True, "tag": "x"}, {"state": "succeeded"}, {"reason": "lost"}, {"all": 1}):
        answer = site.client.post("/jobs/cancel", json=bad)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")
    assert site.client.post("/jobs/cancel").status_code == 422
    assert site.client.get(f"/jobs/{job.id}").json()["state"] == "scheduled"


def test_reschedule_by_filter_moves_what_matches_and_dry_run_only_counts(site: Site) -> None:
    site.client.post("/jobs/queues/default/pause")
    wanted, other = site.waiting(tag="sign-up"), site.waiting(tag="other")
    body = {"tag": "sign-up", "state": "scheduled", "delay": 0}
    none = {"rescheduled": 0, "expiring": 0, "dry_run": False}
    for name, value in {"task": "write_letter", "state": "retrying", "key": "k"}.items():
        answer = site.client.post("/jobs/reschedule", json=body | {name: value})
        assert (answer.status_code, answer.json()) == (200, none), name
    answer = site.client.post("/jobs/reschedule", json=body | {"dry_run": True})
    assert answer.json() == {"rescheduled": 1, "expiring": 0, "dry_run": True}
    assert site.client.get(f"/jobs/{wanted.id}").json()["state"] == "scheduled"
    assert site.client.post("/jobs/reschedule", json=body).json() == none | {"rescheduled": 1}
    assert site.client.get(f"/jobs/{wanted.id}").json()["state"] == "queued"
    assert site.client.get(f"/jobs/{other.id}").json()["state"] == "scheduled"
    at = {"all": True, "run_at": "2100-01-01T01:00:00+01:00"}
    assert site.client.post("/jobs/reschedule", json=at).json()["rescheduled"] == 2
    assert site.client.get(f"/jobs/{other.id}").json()["run_at"] == "2100-01-01T00:00:00Z"


def test_reschedule_by_filter_needs_one_time_and_a_filter_or_all(site: Site) -> None:
    job = site.waiting()
    answer = site.client.post("/jobs/reschedule", json={"delay": 0})
    assert (answer.status_code, '{"all": true}' in answer.json()["detail"]) == (422, True)
    for bad in (
        {"all": True},
        {"all": True, "delay": 0, "run_at": "2100-01-01T00:00:00Z"},
        {"all": True, "delay": 0, "tag": "x"},
        {"state": "running", "delay": 0},
        {"all": True, "delay": -1},
    ):
        assert site.client.post("/jobs/reschedule", json=bad).status_code == 422, bad
    assert site.client.get(f"/jobs/{job.id}").json()["state"] == "scheduled"


def test_cancel_of_retrying_jobs_leaves_the_scheduled_ones(site: Site) -> None:
    job, failed = site.waiting(), site.retrying()
    body = {"state": "retrying"}
    assert site.client.post("/jobs/cancel", json=body).json()["cancelled"] == 1
    assert site.client.get(f"/jobs/{job.id}").json()["state"] == "scheduled"
    assert site.client.get(f"/jobs/{failed.id}").json()["state"] == "cancelled"


def test_reschedule_moves_a_waiting_job(site: Site) -> None:
    site.client.post("/jobs/queues/default/pause")
    job = site.waiting()
    path = f"/jobs/{job.id}/reschedule"
    answer = site.client.post(path, json={"run_at": "2100-01-01T01:00:00+01:00"})
    assert answer.status_code == 200
    assert (answer.json()["id"], answer.json()["state"]) == (job.id, "scheduled")
    assert answer.json()["run_at"] == "2100-01-01T00:00:00Z"
    for body in ({"delay": 0}, {"run_at": "2020-01-01T00:00:00Z"}):
        assert site.client.post(path, json=body).json()["state"] == "queued"
    assert site.client.post(path, json={"delay": 60.5}).json()["state"] == "scheduled"


def test_reschedule_of_what_does_not_wait_is_a_conflict(site: Site) -> None:
    blocked = site.chain()[1].id
    for id, said in (
        (site.finished().id, "it is succeeded"),
        (site.dead(), "dead_letters.replay"),
        (blocked, "it waits for job"),
    ):
        answer = site.client.post(f"/jobs/{id}/reschedule", json={"delay": 0})
        assert (answer.status_code, answer.json()["code"]) == (409, "not-waiting")
        assert said in answer.json()["detail"]
    answer = site.client.post(f"/jobs/{NOBODY}/reschedule", json={"delay": 0})
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"delay": 1, "run_at": "2100-01-01T00:00:00Z"},
        {"delay": -1},
        {"delay": "1"},
        {"delay": 1e300},
        {"run_at": "2100-01-01T00:00:00"},
        {"run_at": 7},
        {"at": "2100-01-01T00:00:00Z"},
    ],
)
def test_reschedule_with_a_bad_body_is_refused(site: Site, body: dict[str, object]) -> None:
    job = site.waiting()
    answer = site.client.post(f"/jobs/{job.id}/reschedule", json=body)
    assert answer.status_code == 422
    assert answer.json()["code"] in {"invalid-request", "invalid-options"}
    shown = site.client.get(f"/jobs/{job.id}").json()
    assert datetime.fromisoformat(shown["run_at"]) == job.run_at


def test_job_of_a_chain_shows_its_place_there(site: Site) -> None:
    chain = site.chain()
    first, second, third = (job.id for job in chain)

    def place(id: str) -> tuple[str, str | None, str | None]:
        body = site.client.get(f"/jobs/{id}").json()
        return body["state"], body["chain"], body["after"]

    assert [place(job.id) for job in chain] == [
        ("scheduled", first, None),
        ("blocked", first, first),
        ("blocked", first, second),
    ]
    listed = site.client.get("/jobs", params={"state": "blocked"}).json()["items"]
    assert [(item["id"], item["after"]) for item in listed] == [(third, second), (second, first)]


def test_cancel_of_a_finished_or_dead_job_says_that_nothing_was_cancelled(site: Site) -> None:
    for id in (site.finished().id, site.dead()):
        answer = site.client.post(f"/jobs/{id}/cancel")
        assert (answer.status_code, answer.json()) == (200, {"status": None})


def test_T8_an_argument_shows_in_dead_letters_alone(site: Site) -> None:
    site.waiting(CANARY)
    job = site.waiting(CANARY)
    for path in ("/jobs", f"/jobs/{job.id}", "/jobs/queues", "/jobs/health"):
        assert CANARY not in site.client.get(path).text
    assert CANARY not in site.client.post(f"/jobs/{job.id}/cancel").text


def test_list_of_dead_jobs_gives_them_as_jobs(site: Site) -> None:
    id = site.dead()
    (listed,) = site.client.get("/jobs", params={"state": "dead"}).json()["items"]
    assert (listed["id"], listed["state"]) == (id, "dead")


def test_progress_is_in_a_list_and_in_a_job(site: Site) -> None:
    async def render() -> str:
        job = await site.jobs.enqueue(site.render)
        await job.result(15)
        return job.id

    silent, id = site.finished().id, site.call(render)
    expected = {"done": 1240, "total": 5000, "message": "rendering"}
    assert site.client.get(f"/jobs/{id}").json()["progress"] == expected
    assert site.client.get(f"/jobs/{silent}").json()["progress"] is None
    items = site.client.get("/jobs").json()["items"]
    assert [item["progress"] for item in items] == [expected, None]
