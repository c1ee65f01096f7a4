"""The routes of dead letters: what reaches the queue, and what its answers and errors become."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from jobrunner import JobRunner
from jobrunner.store.sqlite.sql import queries
from tests.fastapi.conftest import Site

CANARY = "canary-7f3a"
"""An argument that must not show where arguments do not belong."""


@pytest.fixture
def keyed(site: Site) -> str:
    """Return the id of a dead letter whose key an unfinished job holds."""
    id = site.dead(key="letter")

    async def take_key() -> None:
        await site.jobs.enqueue(site.write_letter.options(delay=3600, key="letter"), "a@b")

    site.call(take_key)
    return id


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


def test_page_of_heavy_dead_letters_ends_early_and_its_cursor_goes_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = site.dead(), site.dead()
    monkeypatch.setattr(queries, "PAGE_ROOM", 1)
    page = site.client.get("/jobs/dead-letters").json()
    assert ([item["id"] for item in page["items"]], page["complete"]) == ([second], False)
    page = site.client.get("/jobs/dead-letters", params={"cursor": page["next_cursor"]}).json()
    assert [item["id"] for item in page["items"]] == [first]


def test_groups_have_counts_and_the_newest_dead_letter(site: Site) -> None:
    site.dead("ada")
    other, newest = site.dead("bob"), site.dead("ada")
    answer = site.client.get("/jobs/dead-letters/groups")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["ungrouped"], body["complete"]) == (0, True)
    ada, bob = body["items"]
    assert (ada["count"], ada["newest_id"], bob["newest_id"]) == (2, newest, other)
    assert (ada["task"], ada["error"], ada["retrying"]) == ("write_letter", "ada is no address", 0)
    assert (len(ada["deaths_per_hour"]), sum(ada["deaths_per_hour"])) == (24, 2)
    letter = site.client.get(f"/jobs/dead-letters/{newest}").json()
    assert (letter["group"], letter["died_at"]) == (ada["fingerprint"], ada["last_died_at"])


def test_list_and_replay_by_group_take_its_dead_letters(site: Site) -> None:
    first, other = site.dead("ada"), site.dead("bob")
    group = site.client.get(f"/jobs/dead-letters/{first}").json()["group"]
    items = site.client.get("/jobs/dead-letters", params={"group": group}).json()["items"]
    assert [item["id"] for item in items] == [first]
    for dry_run in (True, False):
        body = {"group": group, "dry_run": dry_run}
        answer = site.client.post("/jobs/dead-letters/replay", json=body).json()
        assert answer == counts(matched=1, replayed=1, dry_run=dry_run)
    assert site.client.get(f"/jobs/dead-letters/{other}").status_code == 200
    assert site.client.get("/jobs/dead-letters?group=no%20hex").status_code == 422


def test_get_of_a_dead_letter_gives_it_whole(site: Site) -> None:
    id = site.dead()
    letter = site.client.get(f"/jobs/dead-letters/{id}").json()
    assert letter["args"] == {"email": "ada"}
    assert letter["attempt"] == 1
    assert [attempt["outcome"] for attempt in letter["history"]] == ["failed"]


def test_ask_with_a_large_traceback_or_argument_answers(site: Site) -> None:
    id = site.dead("x" * 500_000)
    assert len(site.client.get(f"/jobs/dead-letters/{id}").json()["args"]["email"]) == 500_000


def test_replay_without_a_change_is_a_replay_as_it_was(site: Site) -> None:
    bodies: tuple[dict[str, Any] | None, ...] = (None, {}, {"args": None}, {"args": {}})
    letters = [(site.dead(), body) for body in bodies]
    site.client.post("/jobs/queues/mail/pause")
    for id, body in letters:
        answer = site.client.post(f"/jobs/dead-letters/{id}/replay", json=body)
        assert answer.status_code == 202
        told = answer.json()
        assert (told["id"], told["state"], told["created"]) == (id, "queued", False)


def test_replay_with_changed_arguments_answers_the_new_job(site: Site) -> None:
    id = site.dead()
    path = f"/jobs/dead-letters/{id}/replay"
    answer = site.client.post(path, json={"args": {"email": "ada@example.org"}})
    assert answer.status_code == 202
    new = answer.json()["id"]
    assert answer.json()["created"] is True
    assert site.client.get(f"/jobs/{new}").json()["replay_of"] == id
    again = site.client.post(path)
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
    shared: Site, letter: str, args: str
) -> None:
    answer = shared.client.post(
        f"/jobs/dead-letters/{letter}/replay",
        content=f'{{"args": {args}}}',
        headers={"content-type": "application/json"},
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-arguments")
    assert shared.client.get(f"/jobs/dead-letters/{letter}").json()["args"] == {"email": "ada"}


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
def test_T15_replay_with_a_body_of_another_shape_is_refused(
    shared: Site, letter: str, body: object
) -> None:
    answer = shared.client.post(f"/jobs/dead-letters/{letter}/replay", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")
    assert shared.client.get(f"/jobs/dead-letters/{letter}").status_code == 200


def test_replay_while_the_key_is_taken_is_a_conflict(site: Site, keyed: str) -> None:
    answer = site.client.post(f"/jobs/dead-letters/{keyed}/replay")
    assert (answer.status_code, answer.json()["code"]) == (409, "key-taken")


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


def counts(
    *, matched: int, replayed: int, conflicts: int = 0, invalid: int = 0, dry_run: bool = False
) -> dict[str, int]:
    """Return the body of an answer to a replay by filter."""
    return {
        "matched": matched,
        "replayed": replayed,
        "conflicts": conflicts,
        "invalid": invalid,
        "checked": matched,
        "dry_run": dry_run,
    }


def test_replay_by_filter_passes_each_filter_on(site: Site) -> None:
    first, second = site.dead(tag="a"), site.dead(tag="b")
    site.client.post("/jobs/queues/mail/pause")
    where = {
        "task": "write_letter",
        "queue": "mail",
        "reason": "buried",
        "tag": "a",
        "since": "2020-01-01T00:00:00+02:00",
        "until": "2100-01-01T00:00:00Z",
    }
    others = {
        "task": "greet",
        "queue": "default",
        "reason": "exhausted",
        "tag": "c",
        "since": "2100-01-01T00:00:00Z",
        "until": "2020-01-01T00:00:00Z",
    }
    for name, value in others.items():
        answer = site.client.post("/jobs/dead-letters/replay", json=where | {name: value})
        assert answer.json() == counts(matched=0, replayed=0), name
    answer = site.client.post("/jobs/dead-letters/replay", json=where)
    assert answer.status_code == 200
    assert answer.json() == counts(matched=1, replayed=1)
    assert site.client.get(f"/jobs/{first}").json()["state"] == "queued"
    assert site.client.get(f"/jobs/{second}").json()["state"] == "dead"


@pytest.mark.usefixtures("keyed")
@pytest.mark.parametrize("dry_run", [True, False])
def test_replay_by_filter_counts_letters_whose_key_is_taken_as_conflicts(
    site: Site, dry_run: bool
) -> None:
    body = {"queue": "mail", "dry_run": dry_run}
    answer = site.client.post("/jobs/dead-letters/replay", json=body)
    assert answer.json() == counts(matched=1, replayed=0, conflicts=1, dry_run=dry_run)


def test_replay_by_filter_as_a_dry_run_only_counts(site: Site) -> None:
    id = site.dead()
    answer = site.client.post(
        "/jobs/dead-letters/replay", json={"task": "write_letter", "dry_run": True}
    )
    assert answer.json() == counts(matched=1, replayed=1, dry_run=True)
    assert site.client.get(f"/jobs/{id}").json()["state"] == "dead"


def test_replay_of_all_has_to_be_said(site: Site) -> None:
    site.dead()
    for body in ({}, {"all": False}, {"dry_run": True}, {"task": None}):
        answer = site.client.post("/jobs/dead-letters/replay", json=body)
        assert answer.status_code == 422
        assert '{"all": true}' in answer.json()["detail"]
    assert site.client.post("/jobs/dead-letters/replay").status_code == 422
    answer = site.client.post("/jobs/dead-letters/replay", json={"all": True})
    assert answer.json() == counts(matched=1, replayed=1)


def test_replay_by_filter_with_a_pace_spreads_the_due_times(site: Site) -> None:
    ids = [site.dead(), site.dead(), site.dead()]
    site.client.post("/jobs/queues/mail/pause")
    body = {"task": "write_letter", "per_minute": 2}
    answer = site.client.post("/jobs/dead-letters/replay", json=body)
    assert answer.json() == counts(matched=3, replayed=3)
    jobs = [site.client.get(f"/jobs/{id}").json() for id in reversed(ids)]
    assert [job["state"] for job in jobs] == ["queued", "scheduled", "scheduled"]
    first, second, third = (datetime.fromisoformat(job["run_at"]) for job in jobs)
    assert (second - first, third - second) == (timedelta(seconds=30), timedelta(seconds=30))


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
        {"per_minute": 5},
        {"per_minute": 0, "all": True},
        {"per_minute": 1.5, "all": True},
        {"per_minute": True, "all": True},
        {"state": "dead"},
    ],
)
def test_replay_by_filter_with_a_bad_body_is_refused_and_replays_nothing(
    shared: Site, letter: str, body: dict[str, Any]
) -> None:
    answer = shared.client.post("/jobs/dead-letters/replay", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")
    assert shared.client.get(f"/jobs/{letter}").json()["state"] == "dead"


def test_delete_of_a_dead_letter_removes_it(site: Site) -> None:
    id = site.dead()
    answer = site.client.delete(f"/jobs/dead-letters/{id}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert site.client.get(f"/jobs/{id}").status_code == 404
    assert site.client.delete(f"/jobs/dead-letters/{id}").status_code == 404
