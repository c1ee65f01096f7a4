"""Tests the first page: verdict, figures, chart, groups, changes, and what stands in none of them."""

import re
import sqlite3
from contextlib import closing

import httpx2
import pytest

from jobrunner.core.clock import SECOND_US, now_us
from tests.fastapi.dashboard.conftest import CANARY, MARKUP, Board, tags_of, text_of
from tests.support.engine import store_of


def part_of(answer: httpx2.Response, name: str) -> str:
    """Return the text of a live part of the page."""
    found = re.search(
        rf'<div data-live id="live-{name}".*?(?=<div data-live|</main>)', answer.text, re.DOTALL
    )
    assert found is not None, name
    return text_of(httpx2.Response(200, text=found[0]))


def icon_of(answer: httpx2.Response) -> str | None:
    """Return the address of the tab's icon."""
    (icon,) = [a["href"] for tag, a in tags_of(answer) if tag == "link" and a.get("rel") == "icon"]
    return icon


def shown_after(board: Board, name: str, text: str) -> httpx2.Response:
    """Return the overview when a part shows a text: statistics are stored within a second."""
    page = board.get("")
    while text not in part_of(page, name):
        page = board.get("")
    return page


def test_overview_of_a_quiet_store_says_that_all_is_well(board: Board) -> None:
    page = board.get("")
    assert "All is well" in part_of(page, "verdict")
    assert "Nothing fails" in part_of(page, "groups")
    assert "No attempt has ended in the last hour" in part_of(page, "chart")
    assert "Nobody has replayed, cancelled or paused anything." in part_of(page, "changes")
    assert "No attempt runs at this moment." in part_of(page, "running")


def test_chart_marks_the_start_of_a_worker_that_has_left(board: Board) -> None:
    started = now_us() - 20 * 60 * SECOND_US

    async def come_and_go() -> None:
        store = store_of(board.jobs)
        (own,) = await store.workers.list()
        gone = own._replace(worker=own.worker ^ 1, started_at=started, revision=6)
        await store.workers.join(gone, lambda: None)
        await store.workers.leave(gone.worker, now=started)

    board.finished()
    board.call(come_and_go)
    page = shown_after(board, "chart", "rev 6 started")
    assert "rev 7 started" in part_of(page, "chart")
    assert [one.revision for one in board.call(board.jobs.health).workers] == [7]


def test_failures_name_the_worker_that_had_started_although_it_has_left(board: Board) -> None:
    async def move(us: int) -> None:
        store = store_of(board.jobs)
        (own,) = await store.workers.list()
        gone = own._replace(worker=own.worker ^ 1, started_at=now_us() + us, revision=6)
        await store.workers.join(gone, lambda: None)
        await store.workers.leave(gone.worker, now=now_us())

    board.call(move, -60 * SECOND_US)
    with closing(sqlite3.connect(board.database)) as conn, conn:
        # The worker that runs here started long before.
        conn.execute("UPDATE jobrunner_workers SET started_at = started_at - 86400000000")
        conn.execute(
            "UPDATE jobrunner_meta SET value = json_array(json_extract(value, '$[0]'))"
            " WHERE name = 'worker_starts'"
        )
    for _ in range(5):
        board.dead()
    page = shown_after(board, "verdict", "has been failing")
    assert "after a worker started revision 6 that has left since" in part_of(page, "verdict")


def test_failures_are_the_verdict_with_a_link_to_their_group(board: Board) -> None:
    quiet = board.get("")
    for _ in range(5):
        board.dead()
    page = shown_after(board, "verdict", "write_letter")
    assert 'class="verdict is-bad"' in page.text
    assert icon_of(page) != icon_of(quiet)
    title = page.text.partition("<title>")[2].partition("</title>")[0]
    assert "write_letter has been failing" in title

    async def fingerprint() -> str:
        return (await board.jobs.dead_letters.groups()).items[0].fingerprint

    address = f"./dead?group={board.call(fingerprint)}"
    assert address in [a.get("href") for tag, a in tags_of(page) if tag == "a"]
    assert "What they share" in text_of(board.get(address.removeprefix("./")))
    assert "No job is lost" in part_of(page, "verdict")


def test_figures_and_chart_show_what_has_ended(board: Board) -> None:
    board.finished()
    board.finished()
    board.dead()
    page = shown_after(board, "tiles", "33.3 %")
    assert "none in the hour before" in part_of(page, "tiles")
    chart = [a for tag, a in tags_of(page) if tag == "svg" and a.get("role") == "img"]
    assert any("p95" in (a.get("aria-label") or "") or a.get("aria-label") for a in chart)
    assert 'class="a"' in page.text
    assert 'class="b"' in page.text
    assert "rev 7 started" in page.text


def test_groups_count_their_dead_and_retrying_jobs(board: Board) -> None:
    board.dead()
    board.dead()
    page = board.get("")
    groups = part_of(page, "groups")
    assert re.search(r"write_letter\s*Bury: nobody is no address\s*2\s*0", groups)


def test_jobs_that_wait_for_a_retry_have_a_group_that_leads_to_their_list(board: Board) -> None:
    board.enqueue(board.try_again, "x")
    page = shown_after(board, "groups", "try_again")
    assert "./jobs?state=retrying&task=try_again" in [
        a.get("href") for tag, a in tags_of(page) if tag == "a"
    ]


def test_last_changes_name_who_and_why(board: Board) -> None:
    for _ in range(6):
        board.post("queues/mail/pause")
    board.post("queues/mail/resume")
    changes = part_of(board.get(""), "changes")
    assert changes.count("queue") == 5
    assert changes.index("Resumed queue") < changes.index("Paused queue")
    assert "unknown" in changes


def test_paused_queue_is_marked(board: Board) -> None:
    board.post("queues/mail/pause")
    assert "paused" in part_of(board.get(""), "queues")


def test_next_ticks_are_shown_soonest_first(board: Board) -> None:
    async def store() -> None:
        await board.jobs.schedules.upsert("later", board.greet, every=7200, args=["x"])
        await board.jobs.schedules.upsert("sooner", board.greet, every=600, args=[CANARY])

    board.call(store)
    page = board.get("")
    coming = part_of(page, "coming")
    assert coming.index("sooner") < coming.index("later")
    assert CANARY not in page.text


def test_markup_in_errors_and_ids_is_text(board: Board) -> None:
    for _ in range(5):
        board.dead(MARKUP)
    page = shown_after(board, "verdict", "write_letter")
    assert MARKUP not in page.text
    assert "<script>alert" not in page.text
    assert "<script>alert('x')</script>" in part_of(page, "groups")


@pytest.mark.parametrize("path", ["", "dead", "audit"])
def test_arguments_and_secrets_are_not_shown(board: Board, path: str) -> None:
    board.enqueue(board.charge, CANARY, {"password": CANARY})
    board.waiting(CANARY)
    shown_after(board, "groups", "charge")
    assert CANARY not in board.get(path).text
