"""Tests the page of the audit log."""

from typing import Any

import pytest

from jobrunner.core.audit import ACTIONS
from jobrunner.core.errors import StoreBusy
from jobrunner.queue.audit import audited
from tests.fastapi.dashboard.conftest import CANARY, MARKUP, NOBODY, Board, tags_of, text_of

SENTENCES = {
    "cancel": "Cancelled job",
    "cancel_all": "Cancelled 1 job",
    "reschedule": "Rescheduled job",
    "reschedule_all": "Rescheduled 1 job",
    "signal": "Signalled job",
    "arguments.show": "Saw the arguments of job",
    "dead_letters.replay": "Replayed dead letter",
    "dead_letters.replay_edited": "Replayed with other arguments dead letter",
    "dead_letters.replay_all": "Replayed 1 dead letter",
    "dead_letters.delete": "Deleted dead letter",
    "dead_letters.delete_all": "Deleted 1 dead letter",
    "batches.cancel": "Cancelled batch",
    "batches.retry": "Retried batch",
    "queues.pause": "Paused queue",
    "queues.resume": "Resumed queue",
    "limits.set": "Set limit",
    "limits.reset": "Reset limit",
    "schedules.upsert": "Stored schedule",
    "schedules.remove": "Removed schedule",
    "schedules.run_now": "Ran now schedule",
    "schedules.pause": "Paused schedule",
    "schedules.resume": "Resumed schedule",
}


def record(
    board: Board, action: Any, *, actor: str = "ada", count: int = 1, number: int = 1, **more: Any
) -> None:
    """Store entries of acts that have ended."""

    async def store() -> None:
        for _ in range(number):
            async with audited(board.jobs.audit, actor, action, **{"reason": None, **more}) as act:
                act.count = count

    board.call(store)


def rows_of(board: Board, path: str) -> list[str]:
    """Return the keys of the rows of a page, in its order."""
    return [
        str(attrs["data-key"])
        for tag, attrs in tags_of(board.get(path))
        if tag == "tr" and "data-key" in attrs
    ]


def test_sentences_of_these_tests_are_of_every_action() -> None:
    assert set(SENTENCES) == set(ACTIONS)


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_has_a_sentence_and_its_target_a_page(board: Board, action: str) -> None:
    noun = action.partition(".")[0]
    target = {"queues": "mail", "limits": "task sync", "schedules": "s:1"}.get(noun, NOBODY)
    many = action.endswith("_all")
    record(board, action, **({"filter": {"task": "greet"}} if many else {"target": target}))
    page = board.get("audit")
    assert SENTENCES[action] in text_of(page)
    main = page.text.partition("<tbody>")[2].partition("</tbody>")[0]
    if many:
        assert "task greet" in main
    else:
        addresses = {
            "batches": f"batches/{NOBODY}",
            "queues": "queues",
            "limits": "limits",
            "schedules": "schedules/s%3A1",
        }
        address = addresses.get(noun, f"jobs/{NOBODY}")
        assert f'href="./{address}"' in main
        assert f">{target}</a>" in main


def test_many_are_counted_and_all_of_them_named(board: Board) -> None:
    record(board, "dead_letters.replay_all", filter={}, count=12_000)
    page = text_of(board.get("audit"))
    assert "Replayed 12,000 dead letters" in page
    assert "all" in page


def test_filters_by_actor_and_action_are_in_the_address(board: Board) -> None:
    record(board, "queues.pause", target="mail")
    record(board, "queues.pause", target="mail", actor="eve")
    record(board, "queues.resume", target="mail", actor="eve")
    assert len(rows_of(board, "audit")) == 3
    assert len(rows_of(board, "audit?actor=eve")) == 2
    assert len(rows_of(board, "audit?action=queues.pause")) == 2
    assert len(rows_of(board, "audit?actor=eve&action=queues.pause")) == 1
    page = board.get("audit?actor=eve&action=queues.pause")
    chosen = [a["value"] for tag, a in tags_of(page) if tag == "option" and "selected" in a]
    assert chosen == ["queues.pause"]
    assert [a["value"] for _, a in tags_of(page) if a.get("name") == "actor"] == ["eve"]
    none = text_of(board.get("audit?actor=nobody"))
    assert "No change matches" in none
    assert "Clear the filters" in none


def test_unknown_action_is_a_page_and_no_bug(board: Board) -> None:
    answer = board.get("audit", params={"action": MARKUP})
    assert answer.status_code in {200, 422}
    assert MARKUP not in answer.text


def test_entries_are_pages_with_a_cursor(board: Board) -> None:
    record(board, "queues.pause", target="mail", number=120, actor="eve")
    record(board, "queues.resume", target="mail")
    seen: list[str] = []
    path = "audit?actor=eve"
    while path:
        rows = rows_of(board, path)
        seen += rows
        following = [a["href"] for _, a in tags_of(board.get(path)) if a.get("rel") == "next"]
        path = str(following[0]).removeprefix("./") if following else ""
        assert not path or len(rows) == 50
        assert not path or "actor=eve" in path
    assert len(seen) == len(set(seen)) == 120
    assert sorted(seen, key=int, reverse=True) == seen
    assert "First page" in text_of(board.get(f"audit?actor=eve&cursor={seen[49]}"))
    assert board.get("audit?cursor=zzz").status_code == 422


def test_entry_without_an_end_and_one_without_effect_are_marked(board: Board) -> None:
    async def begin() -> None:
        with pytest.raises(StoreBusy):
            async with audited(board.jobs.audit, "ada", "cancel_all", filter={"task": "greet"}):
                raise StoreBusy("the write lock is held")

    board.call(begin)
    unfinished = text_of(board.get("audit?actor=ada"))
    assert "Cancelled jobs" in unfinished
    assert "end unknown" in unfinished
    assert board.post("queues/nope/pause").status_code == 404
    refused = text_of(board.get("audit?action=queues.pause"))
    assert "no effect" in refused
    assert "end unknown" not in refused
    overview = text_of(board.get(""))
    assert "Paused queue (no effect)" in overview
    assert "Cancelled jobs (end unknown)" in overview


def test_empty_log_says_what_will_come(board: Board) -> None:
    page = text_of(board.get("audit"))
    assert "Nobody has changed anything" in page
    assert "jobs.dashboard(actor=...)" in page


def test_arguments_that_were_shown_are_in_the_log_and_not_on_its_page(board: Board) -> None:
    id = board.waiting(CANARY)
    shown = board.get(f"jobs/{id}/arguments")
    assert CANARY in shown.text
    assert "data-polls" not in shown.text
    assert "data-polls" in board.get(f"jobs/{id}").text
    assert board.audited() == [("unknown", "arguments.show", id, 1)]
    page = board.get("audit")
    assert "Saw the arguments of job" in text_of(page)
    assert CANARY not in page.text


def test_markup_in_actors_targets_filters_and_reasons_is_text(board: Board) -> None:
    record(board, "queues.pause", target=MARKUP, actor=MARKUP, reason=MARKUP)
    record(board, "cancel_all", filter={"tag": MARKUP}, reason=MARKUP)
    for path in ("audit", "", "audit?actor=" + "%3Cscript%3E"):
        page = board.get(path)
        assert page.status_code == 200
        assert MARKUP not in page.text, path
        assert "<script>alert" not in page.text, path
    assert text_of(board.get("audit")).count("<script>alert('x')</script>") == 5
