"""Tests that an open page costs no query while nothing has changed."""

import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import Header
from starlette.responses import Response

from jobrunner.fastapi import bearer
from jobrunner.fastapi.dashboard import polls
from jobrunner.fastapi.dashboard.polls import Polls
from jobrunner.fastapi.dashboard.visit import Visit
from jobrunner.store.sqlite.access import Access
from jobrunner.store.sqlite.store import SqliteStore
from tests.fastapi.dashboard.conftest import ACT_TOKEN, READ_TOKEN, Board
from tests.support.processes import CHECKOUT

COUNTER = "data_version"
_asks: ContextVar[bool] = ContextVar("asks", default=False)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the names of the functions with which pages read the file; the worker's are left out."""
    found: list[str] = []

    def spied(read: Callable[..., Any]) -> Callable[..., Any]:
        async def spy(self: Access, function: Callable[..., Any], *args: Any) -> Any:
            if _asks.get():
                found.append(function.__name__)
            return await read(self, function, *args)

        return spy

    answer = Polls.answer

    async def answering(
        self: Polls, visit: Visit, show: Callable[[Visit], Awaitable[Response]]
    ) -> Response:
        _asks.set(True)
        return await answer(self, visit, show)

    monkeypatch.setattr(Access, "read", spied(Access.read))
    monkeypatch.setattr(Access, "read_list", spied(Access.read_list))
    monkeypatch.setattr(Polls, "answer", answering)
    return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Set the clock of the polls by hand; the rest of the process keeps its own."""
    now = [1000.0]
    monkeypatch.setattr(polls, "now_s", lambda: now[0])
    return now


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    """Hold the store's counter still: the worker's own commits must not decide a test."""

    async def still(self: SqliteStore) -> int:
        return 1

    monkeypatch.setattr(SqliteStore, "change_counter", still)


def poll(board: Board, path: str, etag: str, **headers: str) -> httpx2.Response:
    """Ask for a page again as its script does."""
    return board.get(path, headers={"If-None-Match": etag, **headers})


def opened(board: Board, path: str, **headers: str) -> str:
    """Open a page and return the hash of its live parts."""
    return str(board.get(path, headers=headers).headers["etag"])


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("path", ["", "queues", "dead", "audit", "jobs?state=scheduled"])
def test_poll_of_an_unchanged_page_reads_the_counter_alone(
    board: Board, reads: list[str], path: str
) -> None:
    while True:
        etag = opened(board, path)
        reads.clear()
        answer = poll(board, path, etag)
        if reads == [COUNTER]:
            break  # else a commit of the worker came between

    assert (answer.status_code, answer.headers["etag"], answer.content) == (304, etag, b"")
    assert answer.headers["x-as-of"]
    assert answer.headers["content-security-policy"]


@pytest.mark.usefixtures("clock")
def test_commit_of_this_process_ends_it(board: Board) -> None:
    etag = opened(board, "queues")
    board.waiting()
    answer = poll(board, "queues", etag)

    assert answer.status_code == 200
    assert answer.headers["etag"] != etag


@pytest.mark.usefixtures("clock")
def test_commit_of_another_process_ends_it(board: Board, tmp_db: Path) -> None:
    etag = opened(board, "queues")
    command = ["-m", "jobrunner.cli", "queues", "pause", "mail", "--store", str(tmp_db)]
    subprocess.run([sys.executable, *command], cwd=CHECKOUT, check=True, capture_output=True)
    answer = poll(board, "queues", etag)

    assert answer.status_code == 200
    assert answer.headers["etag"] != etag


@pytest.mark.usefixtures("quiet")
def test_page_is_read_again_after_five_seconds(
    board: Board, reads: list[str], clock: list[float]
) -> None:
    etag = opened(board, "queues")
    reads.clear()
    clock[0] += 4.9
    assert poll(board, "queues", etag).status_code == 304
    assert reads == []
    clock[0] += 0.2
    etag = poll(board, "queues", etag).headers["etag"]  # the ages on the page may have changed
    assert reads != []
    reads.clear()
    clock[0] += 4.9
    assert poll(board, "queues", etag).status_code == 304
    assert reads == []


@pytest.mark.usefixtures("quiet")
def test_hash_of_an_older_page_gets_the_page(board: Board) -> None:
    opened(board, "queues")
    answer = poll(board, "queues", 'W/"of-yesterday"')

    assert answer.status_code == 200
    assert "<h1" in answer.text


@pytest.mark.usefixtures("quiet")
def test_viewers_with_different_rights_share_no_page(locked: Board, reads: list[str]) -> None:
    locked.sign_in(READ_TOKEN)
    etag = opened(locked, "queues")
    locked.sign_in(ACT_TOKEN)
    reads.clear()
    poll(locked, "queues", etag)
    assert reads != []
    reads.clear()
    locked.client.cookies.clear()
    assert poll(locked, "queues", etag).status_code == 401
    locked.sign_in(READ_TOKEN)
    assert poll(locked, "queues", etag).status_code == 304
    assert reads == []


@pytest.mark.usefixtures("quiet")
def test_viewers_share_a_page_only_with_the_same_name_and_zone(
    tmp_db: Path, reads: list[str]
) -> None:
    async def name(x_user: str = Header()) -> str:
        return x_user

    board = Board(tmp_db, read=bearer(READ_TOKEN), actor=name)
    ada = {"Authorization": f"Bearer {READ_TOKEN}", "X-User": "ada"}
    with board.client:
        etag = opened(board, "queues", **ada)
        others = [{"X-User": "grace"}, {"Cookie": "jobrunner_zone=Europe/Berlin"}]
        for other in others:
            reads.clear()
            poll(board, "queues", etag, **(ada | other))
            assert reads != [], other
        reads.clear()
        poll(board, "queues", etag, **ada)
        assert reads == []


@pytest.mark.usefixtures("quiet")
def test_oldest_page_is_forgotten_first(
    board: Board, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polls, "MOST_KEPT", 2)
    etags = {path: opened(board, path) for path in ("queues", "schedules", "audit")}
    reads.clear()
    assert poll(board, "audit", etags["audit"]).status_code == 304
    assert poll(board, "schedules", etags["schedules"]).status_code == 304
    assert reads == []
    poll(board, "queues", etags["queues"])
    assert reads != []


@pytest.mark.usefixtures("quiet")
def test_page_with_arguments_is_audited_each_time_and_never_polled(board: Board) -> None:
    id = board.waiting()
    first = board.get(f"jobs/{id}/arguments")
    assert "etag" not in first.headers
    assert "data-polls" not in first.text
    assert board.get(f"jobs/{id}/arguments", headers={"If-None-Match": "*"}).status_code == 200
    assert board.audited() == [("unknown", "arguments.show", id, 1)] * 2
