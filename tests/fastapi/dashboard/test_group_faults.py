"""Tests the page of groups and its forms, and what the pages say when there is nothing to show or the store is busy."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from jobrunner import JobRunner
from jobrunner.store.sqlite import connection
from tests.fastapi.dashboard.conftest import NOBODY, ROOT, SAME, Board, tags_of, text_of

UNKNOWN = "0123456789abcdef"
PAGES = ["", "jobs", "dead", "dead?view=letters", "schedules", "queues", "audit"]


def opened(board: Board) -> tuple[str, dict[str, str]]:
    """Return the fingerprint of the only group, and the hidden fields of its form."""
    (group,) = set(re.findall(r"dead\?group=([0-9a-f]{16})", board.get("dead").text))
    fields = {
        str(attrs["name"]): str(attrs["value"])
        for tag, attrs in tags_of(board.get(f"dead?group={group}"))
        if tag == "input" and attrs.get("type") == "hidden" and attrs.get("name") == "until"
    }
    return group, fields


def letters(board: Board) -> int:
    """Count the dead letters."""

    async def count() -> int:
        return await board.jobs.dead_letters.count()

    return board.call(count)


def test_plan_leaves_out_the_letters_whose_key_is_held(board: Board) -> None:
    board.dead(key="k")
    for _ in range(2):
        board.dead()
    board.enqueue(board.write_letter.options(key="k", delay=3600), "a@b")
    group, fields = opened(board)

    page = board.get(f"dead?group={group}")
    sums = re.findall(r"<dd[^>]*>(.*?)</dd>", page.text.partition('<dl class="sums">')[2])
    assert sums[:3] == ["3", "\N{MINUS SIGN} 1", "2"]
    assert "Replay 2" in text_of(page)
    # What is replayed would be dead again at once.
    board.post("queues/mail/pause")
    answer = board.post(f"dead/{group}/replay", fields | {"rate": "60", "reason": "why"})
    assert answer.headers["location"].endswith(f"dead?group={group}&said=many-replayed&n=2")
    assert letters(board) == 1
    assert board.audited()[-1] == ("unknown", "dead_letters.replay_all", None, 2)
    again = board.post(f"dead/{group}/test", fields)
    assert again.headers["location"].endswith("said=nothing-to-test")
    asked = board.get(f"dead/{group}/delete")
    assert "Delete 1 dead letter of write_letter?" in text_of(asked)
    assert board.post(f"dead/{group}/delete", fields).headers["location"].endswith("n=1")
    assert letters(board) == 0


def test_letters_that_die_after_the_page_was_loaded_stay(board: Board) -> None:
    first = board.dead()
    group, fields = opened(board)
    second = board.dead()

    board.post(f"dead/{group}/delete", fields)

    assert board.get(f"jobs/{first}").status_code == 404
    assert board.state(second) == "dead"


@pytest.mark.parametrize(
    "fields",
    [{}, {"until": ""}, {"until": "yesterday"}, {"until": "2026-01-01T00:00:00"}],
)
@pytest.mark.parametrize("act", ["test", "replay", "delete"])
def test_form_without_its_time_changes_nothing_and_says_what_to_do(
    board: Board, act: str, fields: dict[str, str]
) -> None:
    board.dead()
    group, _ = opened(board)

    answer = board.post(f"dead/{group}/{act}", fields)

    assert answer.status_code == 422
    assert "open the page again" in text_of(answer)
    assert letters(board) == 1


@pytest.mark.parametrize("rate", ["-1", "7", "many", "1e3", " 60"])
def test_rate_that_the_form_does_not_offer_is_refused(board: Board, rate: str) -> None:
    board.dead()
    group, fields = opened(board)

    assert board.post(f"dead/{group}/replay", fields | {"rate": rate}).status_code == 422
    assert letters(board) == 1


@pytest.mark.parametrize("group", [UNKNOWN, "x", "%3Cb%3E", "é", "a" * 300])
def test_unknown_group_is_a_page_with_a_next_step(board: Board, group: str) -> None:
    page = board.get(f"dead?group={group}")
    assert page.status_code == 200
    assert "This group has no dead letters any more" in text_of(page)
    assert "Show all groups" in text_of(page)
    fields = {"until": "2026-01-01T00:00:00+00:00"}
    for act in ("test", "replay", "delete"):
        assert board.post(f"dead/{group}/{act}", fields).status_code in {303, 422}
    asked = board.get(f"dead/{group}/delete")
    assert (asked.status_code, asked.headers["location"]) == (303, "../../dead")


@pytest.mark.parametrize("id", [NOBODY, "x", "<b>", "a" * 300])
def test_unknown_test_is_left_out(board: Board, id: str) -> None:
    answer = board.get(f"dead?group={UNKNOWN}", params={"group": UNKNOWN, "test": id})

    assert answer.status_code == 200
    assert "canary" not in answer.text


@pytest.mark.parametrize("query", ["action=steal", "cursor=zzz", "actor=%00"])
def test_wrong_filters_of_the_audit_log_are_pages(board: Board, query: str) -> None:
    answer = board.get(f"audit?{query}")

    assert answer.status_code in {200, 422}
    assert [tag for tag, _ in tags_of(answer)].count("h1") == 1


def test_process_without_a_worker_says_how_to_start_one(tmp_db: Path) -> None:
    jobs = JobRunner(f"sqlite:///{tmp_db}", work=False)

    @jobs.task
    async def greet() -> None: ...

    app = FastAPI(lifespan=jobs.lifespan)
    app.include_router(jobs.dashboard(insecure=True), prefix=ROOT)
    with TestClient(app, headers=SAME) as client:
        for path in PAGES:
            assert client.get(f"{ROOT}/{path}").status_code == 200, path
        assert "No worker runs" in text_of(client.get(f"{ROOT}/"))
        assert "work=True" in text_of(client.get(f"{ROOT}/"))
        assert "jobrunner worker" in text_of(client.get(f"{ROOT}/queues"))


@contextmanager
def write_lock(database: Path) -> Iterator[None]:
    """Hold the write lock of a store from another connection."""
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def test_busy_store_can_be_read_and_refuses_a_change_with_a_next_step(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BUSY_TIMEOUT_S", 0.2)
    board = Board(tmp_db)
    with board.client:
        letter = board.dead()
        group, fields = opened(board)
        with write_lock(tmp_db):
            for path in [*PAGES, f"dead?group={group}", f"jobs/{letter}", f"dead/{group}/delete"]:
                assert board.get(path).status_code == 200, path
            for act in ("test", "replay", "delete"):
                answer = board.post(f"dead/{group}/{act}", fields)
                assert answer.status_code == 503, act
                assert "Nothing was changed: try again" in text_of(answer)
        assert board.state(letter) == "dead"
        assert board.post(f"dead/{group}/replay", fields).status_code == 303
