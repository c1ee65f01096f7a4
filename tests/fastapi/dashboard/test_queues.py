"""Tests the page of queues: waits, rates and courses, who has paused a queue, and the storage."""

import re
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from html import unescape
from pathlib import Path

import pytest

from jobrunner.core.clock import utcnow
from jobrunner.fastapi.dashboard import queues, words
from jobrunner.fastapi.dashboard.queues import storage_of
from jobrunner.queue.stats import Stats
from tests.fastapi.dashboard.conftest import MARKUP, Board, text_of


def row_of(board: Board, queue: str) -> str:
    """Return the row of a queue, as markup."""
    page = board.get("queues").text
    return unescape(page.partition(f'<tr data-key="{queue}"')[2].partition("</tr>")[0])


def paths(row: str) -> str:
    """Return the line of the sparkline."""
    found = re.search(r'<path d="([^"]+)"', row)
    assert found is not None
    return found[1]


def test_queues_show_waits_rates_and_their_course(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.finished()

    async def read() -> Stats:
        return await board.jobs.stats(by="queue")

    # Statistics are stored about once a second.
    while not (found := board.call(read)).buckets:
        pass
    (one,) = found.buckets
    busy, idle = row_of(board, "default"), row_of(board, "mail")
    monkeypatch.setattr(queues, "MOST_LINES", 0)
    assert "<path" not in row_of(board, "default")
    assert words.pair(one.wait_p50, one.wait_p95) in busy
    assert "default: succeeded in each minute of the last hour" in busy
    assert paths(busy).count("L") == 59
    assert paths(idle) == "M0.0 23.0L100.0 23.0"
    assert '<td class="n wide gone nowrap">–</td><td class="n wide gone">0</td>' in idle
    assert '<td class="n wide gone">0</td>' not in busy.partition("ms</td>")[2]


def test_paused_queue_says_since_when_and_by_whom(board: Board) -> None:
    board.post("queues/mail/pause")
    page = text_of(board.get("queues"))
    assert re.search(r"paused \d\d:\d\d:\d\d by unknown", page)
    with closing(sqlite3.connect(board.database)) as conn, conn:
        conn.execute("UPDATE jobrunner_audit SET actor = ?", (MARKUP,))
    answer = board.get("queues")
    assert f"by {MARKUP}" in text_of(answer)
    assert MARKUP not in answer.text


def test_pause_by_the_application_names_nobody(board: Board) -> None:
    board.post("queues/mail/pause")
    board.post("queues/mail/resume")
    with closing(sqlite3.connect(board.database)) as conn, conn:
        # The audited pause was long ago.
        conn.execute("UPDATE jobrunner_audit SET at = at - 3600000000")

    async def pause() -> None:
        await board.jobs.queues.pause("mail")

    board.call(pause)
    page = text_of(board.get("queues"))
    assert re.search(r"paused \d\d:\d\d:\d\d", page)
    assert not re.search(r"paused \d\d:\d\d:\d\d by", page)


def test_storage_says_what_is_kept_and_when_the_log_was_emptied(board: Board) -> None:
    page = text_of(board.get("queues"))
    assert "finished jobs 7 d, at most 1,000,000 jobs; dead letters 90 d" in page
    assert re.search(r"last checkpoint \d+ s ago", page)


def test_checkpoint_that_ends_while_the_page_is_read_is_not_in_the_future(tmp_path: Path) -> None:
    file = tmp_path / "jobs.db"
    file.touch()
    before = utcnow() - timedelta(minutes=1)
    storage = storage_of(file, before)
    assert storage is not None
    assert storage.checkpoint_at == before


def test_pause_time_is_told_over_python_too(board: Board) -> None:
    before = utcnow()
    board.post("queues/mail/pause")

    async def read() -> dict[str, datetime | None]:
        return {one.name: one.paused_at for one in (await board.jobs.queues.list()).items}

    found = board.call(read)
    assert found["default"] is None
    assert found["mail"] is not None
    assert before <= found["mail"] <= utcnow()


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [
        (4_000, 41_000, "4 / 41 ms"),
        (400_000, 2_000_000, "400 ms / 2.0 s"),
        (100_000_000, 160_000_000, "1 min 40 s / 2 min 40 s"),
        (0, 0, "< 1 ms / < 1 ms"),
    ],
)
def test_two_durations_have_their_unit_once(first: int, second: int, shown: str) -> None:
    pair = words.pair(timedelta(microseconds=first), timedelta(microseconds=second))
    assert pair == shown
