"""Tests the replay of dead letters whose arguments no longer fit their task."""

import re
import sqlite3
from contextlib import closing

from tests.fastapi.dashboard.conftest import Board, tags_of, text_of

STALE = '{"address": "ada"}'


def outdate(board: Board, *ids: str) -> None:
    """Let the arguments of dead letters be those of an older version of the task."""
    with closing(sqlite3.connect(board.database)) as conn, conn:
        conn.executemany(
            "UPDATE jobrunner_dead_letters SET args = ? WHERE id = ?", [(STALE, id) for id in ids]
        )


def opened(board: Board) -> tuple[str, dict[str, str]]:
    """Return the fingerprint of the only group, and the field of its form that names the set."""
    (group,) = set(re.findall(r"dead\?group=([0-9a-f]{16})", board.get("dead").text))
    page = board.get(f"dead?group={group}")
    (until,) = [a["value"] for tag, a in tags_of(page) if tag == "input" and a["name"] == "until"]
    return group, {"until": until or ""}


def test_replay_of_one_leaves_it_and_leads_to_its_edit(board: Board) -> None:
    id = board.dead()
    outdate(board, id)
    answer = board.post(f"jobs/{id}/replay")
    assert answer.headers["location"] == f"../../jobs/{id}?said=does-not-fit"
    page = board.get(f"jobs/{id}?said=does-not-fit")
    assert "its arguments no longer fit the task" in text_of(page)
    assert f"../jobs/{id}/edit" in [a.get("href") for tag, a in tags_of(page) if tag == "a"]
    assert board.state(id) == "dead"
    assert board.audited()[-1] == ("unknown", "dead_letters.replay", id, 0)


def test_test_with_one_takes_the_newest_that_fits(board: Board) -> None:
    older, stale = board.dead(), board.dead()
    outdate(board, stale)
    group, fields = opened(board)
    board.post("queues/mail/pause")
    answer = board.post(f"dead/{group}/test", fields)
    assert answer.headers["location"] == f"../../dead?group={group}&test={older}"
    assert (board.state(older), board.state(stale)) == ("queued", "dead")
    assert board.audited()[-1] == ("unknown", "dead_letters.replay", older, 1)


def test_test_with_one_says_that_none_fits(board: Board) -> None:
    letters = [board.dead(), board.dead()]
    outdate(board, *letters)
    group, fields = opened(board)
    answer = board.post(f"dead/{group}/test", fields)
    assert answer.headers["location"] == f"../../dead?group={group}&said=none-fits"
    page = text_of(board.get(f"dead?group={group}&said=none-fits"))
    assert "Edit and replay" in page
    assert [board.state(id) for id in letters] == ["dead", "dead"]
    assert board.audited() == []
