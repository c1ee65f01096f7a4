"""Tests the page of limits and its forms."""

import pytest

from jobrunner.queue.limits import LimitInfo
from jobrunner.tasks.limits import Rate
from tests.fastapi.dashboard.conftest import Board, text_of


def listed(board: Board) -> list[LimitInfo]:
    async def read() -> list[LimitInfo]:
        return list((await board.jobs.limits.list()).items)

    return board.call(read)


def test_a_limit_is_set_changed_and_reset(board: Board) -> None:
    assert "No limits" in text_of(board.get("limits"))
    fields = {"scope": "queue", "name": "mail", "concurrency": "4", "starts": "100", "per": "60"}
    answer = board.post("limits/set", fields | {"burst": "5", "reason": "their API is slow"})
    assert answer.headers["location"] == "../limits?said=limit-set"
    (limit,) = listed(board)
    assert (limit.concurrency, limit.rate_limit) == (4, Rate(100, 60.0, burst=5))
    shown = text_of(board.get("limits?scope=queue&name=mail"))
    assert "100 in 60 s" in shown
    assert "burst 5" in shown
    board.post("limits/set", {"scope": "queue", "name": "mail", "max_waiting": "9"})
    (limit,) = listed(board)
    assert (limit.concurrency, limit.max_waiting) == (4, 9)
    answer = board.post("limits/reset", {"scope": "queue", "name": "mail"})
    assert answer.headers["location"] == "../limits?said=limit-reset"
    assert listed(board) == []
    assert [entry[1:] for entry in board.audited()] == [
        ("limits.set", "queue mail", 1),
        ("limits.set", "queue mail", 1),
        ("limits.reset", "queue mail", 1),
    ]
    assert "Set limit" in text_of(board.get("audit"))


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"name": "mial"}, 404),
        ({"name": "sinc", "scope": "task"}, 422),
        ({"scope": "tenant"}, 422),
        ({"concurrency": "0"}, 422),
        ({"concurrency": "four"}, 422),
        ({"concurrency": "-1"}, 422),
        ({"concurrency": ""}, 422),
        ({"starts": "5", "per": "soon"}, 422),
        ({"starts": "5", "per": "nan"}, 422),
        ({"starts": "5", "per": "0"}, 422),
    ],
)
def test_a_wrong_form_is_refused_and_changes_nothing(
    board: Board, fields: dict[str, str], status: int
) -> None:
    form = {"scope": "queue", "name": "mail", "concurrency": "4"} | fields
    assert board.post("limits/set", form).status_code == status
    assert listed(board) == []
