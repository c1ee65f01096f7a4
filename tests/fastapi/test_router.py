"""What the routes of ``jobs.router()`` do, over HTTP, to real jobs."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from fastapi import Depends, FastAPI
from jobrunner import ConfigurationError, Job, JobRunner, NotRunning
from jobrunner.fastapi import JobQueue, Queue, SyncQueue, bearer, get_queue
from jobrunner.store.sqlite import readers
from jobrunner.store.sqlite.sql import queries, walks
from tests.fastapi.conftest import NOBODY, PATIENCE_S, TOKEN, Site
from tests.support.engine import worker_of

CANARY = "canary-7f3a"
"""An argument that must not show where arguments do not belong."""


# -- jobs -----------------------------------------------------------------------------------------------


def test_list_of_jobs_gives_newest_first_without_arguments(site: Site) -> None:
    first, second = site.waiting(CANARY), site.waiting(CANARY)
    answer = site.client.get("/jobs")
    assert answer.status_code == 200
    assert [item["id"] for item in answer.json()["items"]] == [second.id, first.id]
    assert answer.json()["next_cursor"] is None
    assert CANARY not in answer.text


def test_list_by_pages_gives_every_job_once(site: Site) -> None:
    stored = [site.waiting().id for _ in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = site.client.get(
            "/jobs", params={"limit": 2} | ({"cursor": cursor} if cursor else {})
        )
        seen += [item["id"] for item in page.json()["items"]]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            break
    assert seen == stored[::-1]


def test_list_that_stops_early_says_so_and_its_cursor_goes_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    rare = site.waiting()
    later = site.jobs.tasks["greet"].options(delay=3600, tag="many")

    async def fill() -> None:
        await site.jobs.enqueue_many([later.call("ada") for _ in range(walks.FIRST_WINDOW + 100)])

    site.call(fill)
    monkeypatch.setattr(walks, "STEP_S", 0.0)
    monkeypatch.setattr(readers, "PAGE_S", 0.0)
    monkeypatch.setattr(queries, "COUNT_S", -1.0)
    until = (rare.created_at + timedelta(microseconds=1)).isoformat()
    first = site.client.get("/jobs", params={"until": until}).json()
    assert (first["items"], first["complete"]) == ([], False)
    cursor = first["next_cursor"]
    rest = site.client.get("/jobs", params={"until": until, "cursor": cursor}).json()
    assert [item["id"] for item in rest["items"]] == [rare.id]
    assert (rest["next_cursor"], rest["complete"]) == (None, True)
    (default,) = (
        one
        for one in site.client.get("/jobs/queues").json()["items"]
        if one["name"] == rare.queue and one["complete"] is False
    )
    assert default["scheduled"] == 100


def test_page_of_heavy_dead_letters_ends_early_and_its_cursor_goes_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = site.dead(), site.dead()
    monkeypatch.setattr(queries, "PAGE_ROOM", 1)
    page = site.client.get("/jobs/dead-letters").json()
    assert ([item["id"] for item in page["items"]], page["complete"]) == ([second], False)
    page = site.client.get("/jobs/dead-letters", params={"cursor": page["next_cursor"]}).json()
    assert [item["id"] for item in page["items"]] == [first]


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
def test_list_of_jobs_with_a_bad_query_is_refused(client: TestClient, query: str) -> None:
    answer = client.get(f"/jobs?{query}")
    assert answer.status_code == 422
    assert answer.json()["code"] in {"invalid-request", "invalid-cursor", "invalid-options"}


@pytest.mark.parametrize(
    "word", ["' OR 1=1 --", '"; DROP TABLE jobrunner_jobs; --', "%", "*", "\\"]
)
def test_T6_list_with_sql_in_a_filter_gives_nothing_and_changes_nothing(
    site: Site, word: str
) -> None:
    job = site.waiting()
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


def test_get_of_a_dead_job_finds_it(site: Site) -> None:
    id = site.dead()
    assert site.client.get(f"/jobs/{id}").json()["state"] == "dead"
    (listed,) = site.client.get("/jobs", params={"state": "dead"}).json()["items"]
    assert (listed["id"], listed["state"]) == (id, "dead")


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
def test_ask_for_an_unknown_id_is_not_found(client: TestClient, method: str, path: str) -> None:
    assert client.request(method, path.format(id=NOBODY)).json()["code"] == "not-found"
    assert client.request(method, path.format(id=NOBODY)).status_code == 404
    assert client.request(method, path.format(id="1")).status_code == 422


def test_cancel_of_a_waiting_job_cancels_it(site: Site) -> None:
    job = site.waiting()
    answer = site.client.post(f"/jobs/{job.id}/cancel")
    assert (answer.status_code, answer.json()) == (200, {"status": "cancelled"})
    assert site.client.get(f"/jobs/{job.id}").json()["state"] == "cancelled"


def test_chain_shows_its_order_and_is_cancelled_from_a_place_on(site: Site) -> None:
    chain = site.chain()
    first, second, third = (job.id for job in chain)

    def place(id: str) -> tuple[str, str | None, str | None]:
        body = site.client.get(f"/jobs/{id}").json()
        return body["state"], body["chain"], body["after"]

    def blocked() -> list[int]:
        queues = site.client.get("/jobs/queues").json()["items"]
        return [queue["blocked"] for queue in queues if queue["name"] == "default"]

    assert [place(job.id) for job in chain] == [
        ("scheduled", first, None),
        ("blocked", first, first),
        ("blocked", first, second),
    ]
    listed = site.client.get("/jobs", params={"state": "blocked"}).json()["items"]
    assert [(item["id"], item["after"]) for item in listed] == [(third, second), (second, first)]
    assert blocked() == [2]
    answer = site.client.post(f"/jobs/{second}/cancel")
    assert (answer.status_code, answer.json()) == (200, {"status": "cancelled"})
    assert [place(job.id)[0] for job in chain] == ["scheduled", "cancelled", "cancelled"]
    assert blocked() == [0]


def test_dead_letter_of_a_chain_shows_its_place_there(site: Site) -> None:
    async def write() -> list[str]:
        bad = site.write_letter.call("nowhere")
        chain = await site.jobs.enqueue_chain([bad, site.greet.call("ada")])
        await chain[1].result(PATIENCE_S)
        return [job.id for job in chain]

    first, _ = site.call(write)
    (letter,) = site.client.get("/jobs/dead-letters").json()["items"]
    assert (letter["id"], letter["chain"], letter["after"]) == (first, first, None)
    assert site.client.get(f"/jobs/dead-letters/{first}").json()["chain"] == first


def test_cancel_of_a_finished_or_dead_job_says_that_nothing_was_cancelled(site: Site) -> None:
    for id in (site.finished().id, site.dead()):
        answer = site.client.post(f"/jobs/{id}/cancel")
        assert (answer.status_code, answer.json()) == (200, {"status": None})


# -- dead letters -----------------------------------------------------------------------------------------


def test_list_of_dead_letters_gives_arguments_and_reason(site: Site) -> None:
    id = site.dead(CANARY, key="k", tag="t")
    answer = site.client.get("/jobs/dead-letters")
    assert answer.status_code == 200
    (letter,) = answer.json()["items"]
    assert letter["id"] == id
    assert letter["task"] == "write_letter"
    assert letter["args"] == {"email": CANARY}
    assert letter["reason"] == "buried"
    assert letter["error"] == f"{CANARY} is no address"
    assert "traceback" not in letter


def test_list_of_dead_letters_by_filter_and_page_gives_what_fits(site: Site) -> None:
    first, second = site.dead(tag="a"), site.dead(tag="b")

    def ids(**params: str) -> list[str]:
        return [
            item["id"]
            for item in site.client.get("/jobs/dead-letters", params=params).json()["items"]
        ]

    assert ids(tag="a") == [first]
    assert ids(reason="exhausted", task="write_letter") == []
    assert ids(reason="buried", queue="mail", since="2020-01-01T00:00:00+02:00") == [second, first]
    assert ids(until="2020-01-01T00:00:00Z") == []
    page = site.client.get("/jobs/dead-letters", params={"limit": 1}).json()
    assert [item["id"] for item in page["items"]] == [second]
    assert ids(limit="1", cursor=page["next_cursor"]) == [first]


def test_get_of_a_dead_letter_gives_it_whole(site: Site) -> None:
    id = site.dead()
    letter = site.client.get(f"/jobs/dead-letters/{id}").json()
    assert letter["args"] == {"email": "ada"}
    assert letter["attempt"] == 1
    assert [attempt["outcome"] for attempt in letter["history"]] == ["failed"]


def test_replay_of_a_dead_letter_as_it_was_keeps_the_id(site: Site) -> None:
    id = site.dead()
    site.client.post("/jobs/queues/mail/pause")
    answer = site.client.post(f"/jobs/dead-letters/{id}/replay")
    assert answer.status_code == 202
    assert (answer.json()["id"], answer.json()["state"]) == (id, "queued")
    assert answer.json()["created"] is False
    assert site.client.get(f"/jobs/{id}").json()["replays"] == 1
    assert site.client.get(f"/jobs/dead-letters/{id}").status_code == 404


@pytest.mark.parametrize("body", [None, {}, {"args": None}, {"args": {}}])
def test_replay_without_a_change_is_a_replay_as_it_was(
    site: Site, body: dict[str, Any] | None
) -> None:
    id = site.dead()
    answer = site.client.post(f"/jobs/dead-letters/{id}/replay", json=body)
    assert (answer.status_code, answer.json()["id"]) == (202, id)


def test_replay_with_changed_arguments_runs_a_new_job_linked_to_the_letter(site: Site) -> None:
    id = site.dead()
    answer = site.client.post(
        f"/jobs/dead-letters/{id}/replay", json={"args": {"email": "ada@example.org"}}
    )
    assert answer.status_code == 202
    new = answer.json()["id"]
    assert new != id
    assert answer.json()["created"] is True
    assert site.client.get(f"/jobs/{new}").json()["replay_of"] == id

    async def finished() -> None:
        await (await site.jobs.get(new)).result(10)

    site.call(finished)
    again = site.client.post(f"/jobs/dead-letters/{id}/replay")
    assert (again.status_code, again.json()["code"]) == (409, "already-replayed")
    assert new in again.json()["detail"]


@pytest.mark.parametrize(
    "args",
    [
        '{"email": 5}',
        '{"emial": "a@b"}',
        '{"copies": "many"}',
        '{"email": "\\ud800"}',
        '{"copies": NaN}',
        '{"copies": 1e400}',
        '{"email": ["a@b"]}',
        '{"email": null}',
    ],
)
def test_replay_with_arguments_that_do_not_fit_is_refused_and_changes_nothing(
    site: Site, args: str
) -> None:
    id = site.dead()
    answer = site.client.post(
        f"/jobs/dead-letters/{id}/replay",
        content=f'{{"args": {args}}}',
        headers={"content-type": "application/json"},
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-arguments")
    assert site.client.get(f"/jobs/dead-letters/{id}").json()["args"] == {"email": "ada"}


@pytest.mark.parametrize(
    "body",
    [
        {"args": []},
        {"args": "email"},
        {"arguments": {}},
        {"state": "queued"},
        {"args": {}, "attempt": 0},
        {"fence": 1},
        [],
        "replay",
        0,
    ],
)
def test_T15_replay_with_a_body_of_another_shape_is_refused(site: Site, body: object) -> None:
    id = site.dead()
    answer = site.client.post(f"/jobs/dead-letters/{id}/replay", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")
    assert site.client.get(f"/jobs/dead-letters/{id}").status_code == 200


def test_replay_while_the_key_is_taken_is_a_conflict(site: Site) -> None:
    id = site.dead(key="letter")

    async def another() -> None:
        await site.jobs.enqueue(site.write_letter.options(delay=3600, key="letter"), "a@b")

    site.call(another)
    answer = site.client.post(f"/jobs/dead-letters/{id}/replay")
    assert (answer.status_code, answer.json()["code"]) == (409, "key-taken")
    assert site.client.get(f"/jobs/dead-letters/{id}").status_code == 200


def test_H7_replay_by_double_click_replays_once(site: Site) -> None:
    id = site.dead()
    site.client.post("/jobs/queues/mail/pause")
    with ThreadPoolExecutor(4) as threads:
        answers = list(
            threads.map(
                lambda _: site.client.post(f"/jobs/dead-letters/{id}/replay").status_code, range(4)
            )
        )
    assert sorted(answers) == [202, 409, 409, 409]
    assert site.client.get(f"/jobs/{id}").json()["replays"] == 1


def test_H8_replay_of_a_task_that_is_gone_is_a_conflict(tmp_db: Path) -> None:
    site = Site(tmp_db)
    with site.client:
        id = site.dead()
    later = JobRunner(f"sqlite:///{tmp_db}")
    app = FastAPI(lifespan=later.lifespan)
    app.include_router(later.router(insecure=True), prefix="/jobs")
    with TestClient(app) as client:
        answer = client.post(f"/jobs/dead-letters/{id}/replay")
        assert (answer.status_code, answer.json()["code"]) == (409, "no-handler")
        assert "write_letter" in answer.json()["detail"]
        assert client.get(f"/jobs/dead-letters/{id}").status_code == 200


def test_replay_by_filter_replays_what_fits(site: Site) -> None:
    first, second = site.dead(tag="a"), site.dead(tag="b")
    site.client.post("/jobs/queues/mail/pause")
    answer = site.client.post("/jobs/dead-letters/replay", json={"tag": "a", "reason": "buried"})
    assert answer.status_code == 200
    assert answer.json() == {"matched": 1, "replayed": 1, "dry_run": False}
    assert site.client.get(f"/jobs/{first}").json()["state"] == "queued"
    assert site.client.get(f"/jobs/{second}").json()["state"] == "dead"


def test_replay_by_filter_leaves_letters_whose_key_is_taken(site: Site) -> None:
    site.dead(key="letter")

    async def another() -> None:
        await site.jobs.enqueue(site.write_letter.options(delay=3600, key="letter"), "a@b")

    site.call(another)
    answer = site.client.post("/jobs/dead-letters/replay", json={"queue": "mail"})
    assert answer.json() == {"matched": 1, "replayed": 0, "dry_run": False}


def test_replay_by_filter_as_a_dry_run_only_counts(site: Site) -> None:
    id = site.dead()
    answer = site.client.post(
        "/jobs/dead-letters/replay", json={"task": "write_letter", "dry_run": True}
    )
    assert answer.json() == {"matched": 1, "replayed": 0, "dry_run": True}
    assert site.client.get(f"/jobs/{id}").json()["state"] == "dead"


def test_replay_of_all_has_to_be_said(site: Site) -> None:
    site.dead()
    for body in ({}, {"all": False}, {"dry_run": True}, {"task": None}):
        answer = site.client.post("/jobs/dead-letters/replay", json=body)
        assert answer.status_code == 422
        assert '{"all": true}' in answer.json()["detail"]
    assert site.client.post("/jobs/dead-letters/replay").status_code == 422
    answer = site.client.post("/jobs/dead-letters/replay", json={"all": True})
    assert answer.json() == {"matched": 1, "replayed": 1, "dry_run": False}


@pytest.mark.parametrize(
    "body",
    [
        {"all": True, "task": "write_letter"},
        {"all": 1},
        {"all": "true"},
        {"all": None},
        {"task": "write_letter", "dry_run": 0},
        {"task": "write_letter", "dry_run": "no"},
        {"task": False},
        {"task": ["write_letter"]},
        {"task": "write letter"},
        {"reason": "bad luck"},
        {"since": 0},
        {"since": False},
        {"since": "2026-01-01T00:00:00"},
        {"since": 1767225600},
        {"per_minute": 5, "all": True},
        {"state": "dead"},
    ],
)
def test_replay_by_filter_with_a_bad_body_is_refused_and_replays_nothing(
    site: Site, body: dict[str, Any]
) -> None:
    id = site.dead()
    answer = site.client.post("/jobs/dead-letters/replay", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")
    assert site.client.get(f"/jobs/{id}").json()["state"] == "dead"


def test_delete_of_a_dead_letter_removes_it(site: Site) -> None:
    id = site.dead()
    answer = site.client.delete(f"/jobs/dead-letters/{id}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert site.client.get(f"/jobs/{id}").status_code == 404
    assert site.client.delete(f"/jobs/dead-letters/{id}").status_code == 404


def test_delete_of_a_job_that_is_not_dead_is_not_found(site: Site) -> None:
    job = site.waiting()
    assert site.client.delete(f"/jobs/dead-letters/{job.id}").status_code == 404
    assert site.client.get(f"/jobs/{job.id}").status_code == 200


# -- queues and health ------------------------------------------------------------------------------------


def test_pause_and_resume_of_a_queue_show_in_the_list(site: Site) -> None:
    def mail() -> dict[str, Any]:
        queues: list[dict[str, Any]] = site.client.get("/jobs/queues").json()["items"]
        (queue,) = [queue for queue in queues if queue["name"] == "mail"]
        return queue

    assert (mail()["paused"], mail()["slots"]) == (False, 5)
    answer = site.client.post("/jobs/queues/mail/pause")
    assert (answer.status_code, answer.json()) == (200, {"name": "mail", "paused": True})
    assert mail()["paused"] is True
    answer = site.client.post("/jobs/queues/mail/resume")
    assert answer.json() == {"name": "mail", "paused": False}
    assert mail()["paused"] is False


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_F17_pause_of_a_queue_that_cannot_be_is_refused(client: TestClient, verb: str) -> None:
    unknown = client.post(f"/jobs/queues/mial/{verb}")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown-queue")
    for name in ("a%00b", "%0a", "m%C3%A4il", "a b", "q" * 201, "%ff"):
        assert client.post(f"/jobs/queues/{name}/{verb}").status_code == 422


def test_health_of_a_working_site_is_ok(client: TestClient) -> None:
    answer = client.get("/jobs/health")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["status"], body["problems"], body["working"]) == ("ok", [], True)
    assert all(worker["id"].isdigit() for worker in body["workers"])


def test_health_of_a_stopping_site_is_unavailable_and_says_so(site: Site) -> None:
    async def stop() -> None:
        worker_of(site.jobs).begin_stop()

    site.call(stop)
    answer = site.client.get("/jobs/health")
    assert (answer.status_code, answer.json()["status"]) == (503, "stopping")
    assert answer.headers["content-type"] == "application/json"


# -- locks ------------------------------------------------------------------------------------------------

READS = [
    "/jobs",
    "/jobs/dead-letters",
    f"/jobs/dead-letters/{NOBODY}",
    "/jobs/queues",
    "/jobs/health",
]
READS += ["/jobs/schedules", "/jobs/schedules/greet", "/jobs/schedules/greet/ticks"]
READS += [f"/jobs/{NOBODY}"]
ACTS = [
    ("POST", f"/jobs/{NOBODY}/cancel"),
    ("POST", f"/jobs/dead-letters/{NOBODY}/replay"),
    ("POST", "/jobs/dead-letters/replay"),
    ("DELETE", f"/jobs/dead-letters/{NOBODY}"),
    ("POST", "/jobs/queues/mail/pause"),
    ("POST", "/jobs/queues/mail/resume"),
    ("PUT", "/jobs/schedules/greet"),
    ("DELETE", "/jobs/schedules/greet"),
    ("POST", "/jobs/schedules/greet/run"),
    ("POST", "/jobs/schedules/greet/pause"),
    ("POST", "/jobs/schedules/greet/resume"),
]
ALL = [("GET", path) for path in READS] + ACTS


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


def test_router_without_a_lock_is_refused_with_the_line_to_write(tmp_db: Path) -> None:
    jobs = JobRunner(f"sqlite:///{tmp_db}")
    with pytest.raises(ConfigurationError, match=r"jobs\.router\(read=bearer\(TOKEN\)\)"):
        jobs.router()
    with pytest.raises(ConfigurationError, match=r"insecure=True"):
        jobs.router()
    with pytest.raises(ConfigurationError, match=r"jobs\.router\(read=\.\.\., act=\.\.\.\)"):
        jobs.router(act=bearer(TOKEN))


@pytest.mark.parametrize("lock", ["secret", Depends(), 5, [bearer("x")]])
def test_router_with_a_lock_that_is_no_dependency_is_refused(tmp_db: Path, lock: Any) -> None:
    jobs = JobRunner(f"sqlite:///{tmp_db}")
    with pytest.raises(ConfigurationError, match="takes a dependency"):
        jobs.router(read=lock)
    with pytest.raises(ConfigurationError, match="takes a dependency"):
        jobs.router(read=bearer(TOKEN), act=lock)


def statuses(app: FastAPI, headers: dict[str, str]) -> tuple[set[int], set[int]]:
    """Return what the reading and the acting routes answer."""
    with TestClient(app, headers=headers) as client:
        return (
            {client.get(path).status_code for path in READS},
            {client.request(method, path).status_code for method, path in ACTS},
        )


def test_T17_each_lock_guards_its_own_routes(tmp_db: Path) -> None:
    jobs = JobRunner(f"sqlite:///{tmp_db}", queues={"default": 1, "mail": 1})
    app = FastAPI(lifespan=jobs.lifespan)
    reader, actor = bearer("reader", scheme_name="reader"), bearer("actor", scheme_name="actor")
    app.include_router(jobs.router(read=Depends(reader), act=actor), prefix="/jobs")
    assert statuses(app, {}) == ({401}, {401})
    assert statuses(app, {"Authorization": "Bearer reader"}) == ({200, 404}, {401})
    assert statuses(app, {"Authorization": "Bearer actor"}) == ({401}, {200, 404, 422})


def test_router_with_insecure_leaves_open_what_has_no_lock(tmp_db: Path) -> None:
    jobs = JobRunner(f"sqlite:///{tmp_db}", queues={"default": 1, "mail": 1})
    for locks, expected in (
        ({}, ({200, 404}, {200, 404, 422})),
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


def test_T8_an_argument_shows_in_dead_letters_alone(site: Site) -> None:
    site.waiting(CANARY)
    job = site.waiting(CANARY)
    for path in ("/jobs", f"/jobs/{job.id}", "/jobs/queues", "/jobs/health"):
        assert CANARY not in site.client.get(path).text
    assert CANARY not in site.client.post(f"/jobs/{job.id}/cancel").text


# -- where the queue comes from ---------------------------------------------------------------------------


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


# -- every answer -----------------------------------------------------------------------------------------


def test_T24_every_answer_is_not_to_be_kept_sniffed_or_framed(site: Site) -> None:
    answers = [site.client.request(method, path) for method, path in ALL]
    answers += [site.client.put("/jobs"), site.client.get("/jobs", headers={"Authorization": ""})]
    for answer in answers:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


JUNK = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"x"',
    b"0",
    b"\xff\xfe",
    b'{"args": ' + b"[" * 100_000,
    b'{"args": {"email": ' + b"9" * 5_000 + b"}}",
    b'{"task": "\\ud800"}',
    b'{"\\u0000": NaN}',
    b'{"all": false, "all": {}}',
    b'{"since": "9999-12-31T23:59:59-23:59"}',
    b'{"since": "0001-01-01T00:00:00+23:59", "dry_run": true}',
]


@pytest.mark.parametrize("body", JUNK, ids=[str(number) for number in range(len(JUNK))])
def test_I3_junk_in_a_body_is_never_a_server_error(site: Site, body: bytes) -> None:
    id = site.dead()
    for method, path in [*ACTS, ("POST", f"/jobs/dead-letters/{id}/replay")]:
        for media_type in (
            "application/json",
            "text/plain",
            "",
            "application/x-www-form-urlencoded",
        ):
            answer = site.client.request(
                method, path, content=body, headers={"content-type": media_type}
            )
            assert answer.status_code < 500, (method, path, answer.text)


@pytest.mark.parametrize(
    "word", ["%00", "%ff", "..%2f..", "🙂", "9" * 5000, "0", "null", "%0d%0aX: y"]
)
def test_I3_junk_in_a_path_or_query_is_never_a_server_error(site: Site, word: str) -> None:
    for method, path in ALL:
        junked = path.replace(NOBODY, word).replace("mail", word)
        for query in (
            "",
            *(f"?{name}={word}" for name in ("task", "key", "since", "limit", "cursor")),
        ):
            answer = site.client.request(method, junked + query)
            assert answer.status_code < 500, (method, junked, query, answer.text)


def test_ask_with_a_large_traceback_or_argument_answers(site: Site) -> None:
    id = site.dead("x" * 500_000)
    assert len(site.client.get(f"/jobs/dead-letters/{id}").json()["args"]["email"]) == 500_000


def test_time_in_a_filter_is_compared_as_an_instant_whatever_its_offset(site: Site) -> None:
    job = site.waiting()
    moment = job.created_at + timedelta(seconds=1)
    for written in ("%Y-%m-%dT%H:%M:%S.%f+00:00", "%Y-%m-%dT%H:%M:%S.%fZ"):
        params = {"until": moment.strftime(written)}
        assert len(site.client.get("/jobs", params=params).json()["items"]) == 1
