"""Tests the filters of the list of jobs: since when, how many match, and the question that counts a part."""

import re
import sqlite3
from contextlib import closing

import pytest

from jobrunner.fastapi.dashboard import cancel_all, jobs, words
from jobrunner.store.sqlite import jobs as store_jobs
from jobrunner.store.sqlite.readers import Found
from jobrunner.store.sqlite.sql import queries, walks
from tests.fastapi.dashboard.conftest import Board, tags_of, text_of

HOUR_US = 3_600_000_000


def age(board: Board, id: str, hours: int) -> None:
    """Let a job be some hours old."""
    with closing(sqlite3.connect(board.database)) as conn, conn:
        for update in (
            "UPDATE jobrunner_jobs SET created_at = created_at - ? WHERE id = ?",
            "UPDATE jobrunner_dead_letters SET died_at = died_at - ? WHERE id = ?",
        ):
            conn.execute(update, (hours * HOUR_US, id))


def test_since_lists_what_was_created_in_that_time(board: Board) -> None:
    old, new = board.waiting("old"), board.waiting("new")
    age(board, old, 3)
    for since, expected in (
        ("1h", {new}),
        ("4h", {old, new}),
        ("2020-01-01T00:00:00Z", {old, new}),
    ):
        answer = board.get("jobs", params={"since": since})
        assert {id for id in (old, new) if f"jobs/{id}" in answer.text} == expected
        assert f"since {since}" in text_of(answer)
    assert "No job matches" not in text_of(board.get("jobs?since=1h"))
    answer = board.get("jobs", params={"q": "since:2h task:greet"})
    assert answer.headers["location"] == "./jobs?task=greet&since=2h"


def test_since_of_dead_letters_is_of_their_death(board: Board) -> None:
    old, new = board.dead(), board.dead()
    age(board, old, 3)
    page = board.get("jobs?state=dead&since=1h")
    assert f"jobs/{new}" in page.text
    assert f"jobs/{old}" not in page.text
    assert matches(board, "jobs?state=dead&since=1h") == ["1 matches"]


@pytest.mark.parametrize("since", ["soon", "1y", "2026-11-22", "99999999999w", "2026-11-22T08:00"])
def test_since_that_is_no_time_is_a_page_that_says_what_to_write(board: Board, since: str) -> None:
    for path in ("jobs", "jobs/cancel-all"):
        answer = board.get(path, params={"since": since})
        assert answer.status_code == 422
        assert "write since:1h" in text_of(answer)


def matches(board: Board, path: str) -> list[str]:
    """Return what a list says beside its filters."""
    return re.findall(r"([0-9,+]+ match(?:es)?) ", text_of(board.get(path)))


def test_matches_are_counted_beside_the_filters(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "COUNT_S", 30)
    board.waiting(tag="one")
    for _ in range(jobs.ROWS + 1):
        board.waiting(tag="many")
    assert matches(board, "jobs") == []
    assert matches(board, "jobs?tag=one") == ["1 matches"]
    assert matches(board, "jobs?tag=many") == ["51 match"]
    assert matches(board, "jobs?tag=many&cursor=9") == ["51 match"]
    assert matches(board, "jobs?tag=none") == ["0 match"]
    monkeypatch.setattr(words, "COUNT_CAP", 20)
    assert matches(board, "jobs?tag=many") == ["20+ match"]


def test_matches_are_a_lower_bound_if_counting_takes_too_long(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fill() -> None:
        later = board.greet.options(delay=3600)
        await board.jobs.enqueue_many(later.call("ada") for _ in range(walks.FIRST_WINDOW + 50))

    board.call(fill)
    monkeypatch.setattr(walks, "STEP_S", 0.0)
    monkeypatch.setattr(jobs, "COUNT_S", 0)
    assert matches(board, "jobs?queue=default") == [f"{walks.FIRST_WINDOW}+ match"]


def test_question_before_a_large_cancel_counts_a_part_and_the_act_is_of_all(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [board.waiting(tag="t") for _ in range(7)]
    age(board, ids[0], 3)
    monkeypatch.setattr(store_jobs, "PLANNED_ROWS", 2)
    monkeypatch.setattr(words, "COUNT_CAP", 3)
    monkeypatch.setattr(cancel_all, "COUNT_S", 30)
    page = board.get("jobs/cancel-all?tag=t&since=1h")
    assert "Cancel more than 3 jobs?" in text_of(page)
    fields = {
        str(a["name"]): str(a["value"])
        for tag, a in tags_of(page)
        if tag == "input"
        and a.get("type") == "hidden"
        and a.get("name") in {"tag", "since", "until"}
    }
    later = board.waiting(tag="t")
    answer = board.post("jobs/cancel-all", fields)
    assert "said=many&n=6" in answer.headers["location"]
    assert [board.state(id) for id in (ids[0], *ids[1:], later)] == [
        "scheduled",
        *["cancelled"] * 6,
        "scheduled",
    ]


def test_question_that_has_found_no_job_yet_is_asked_all_the_same(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = board.waiting(tag="rare")
    for _ in range(5):
        board.waiting()
    monkeypatch.setattr(queries, "FEW", 0)
    monkeypatch.setattr(store_jobs.SqliteJobs, "_unfinished", _nothing_yet)
    page = text_of(board.get("jobs/cancel-all?task=greet"))
    assert "Cancel all that match?" in page
    assert "Counting stopped early" in page
    assert board.state(id) == "scheduled"


async def _nothing_yet(*_: object) -> Found:
    """Stand for a search that has found nothing in its time, and could go on."""
    return Found([], 5, complete=False)
