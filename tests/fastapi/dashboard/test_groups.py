"""Tests the page of groups: what it shows, and the forms that act on a group."""

import itertools
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import httpx2
import pytest
from fastapi import Header, HTTPException

from jobrunner import Bury, JobDead
from jobrunner.core.clock import utcnow
from jobrunner.queue import dead_letters
from tests.fastapi.dashboard.conftest import (
    CANARY,
    MARKUP,
    PATIENCE_S,
    Board,
    tags_of,
    text_of,
)


class Shop(Board):
    """A dashboard whose viewer is called Ada, with a task that fails in several ways."""

    def __init__(self, database: Path) -> None:
        async def ada() -> str:
            return "ada"

        super().__init__(database, insecure=True, actor=ada)

        @self.jobs.task(max_attempts=1)
        async def sync(card: str, error: str) -> None:
            raise Bury(error)

        self.sync = sync

    def die(self, error: str = "the mail server is down", **options: object) -> str:
        """Return the id of a dead letter of ``sync``."""

        async def die() -> str:
            job = await self.jobs.enqueue(self.sync.options(**options), CANARY, error)  # type: ignore[arg-type]  # of these words
            with pytest.raises(JobDead):
                await job.result(PATIENCE_S)
            return job.id

        return self.call(die)

    def groups(self) -> list[tuple[str, int]]:
        """Return fingerprint and dead letters of each group, the most recent first."""

        async def found() -> list[tuple[str, int]]:
            items = (await self.jobs.dead_letters.groups()).items
            return [(one.fingerprint, one.count) for one in items if one.count]

        return self.call(found)

    def open(self, group: str) -> tuple[httpx2.Response, dict[str, str]]:
        """Return the page with a group open, and the hidden fields of its form."""
        page = self.get(f"dead?group={group}")
        return page, hidden_of(page)

    def due(self, ids: list[str]) -> list[datetime]:
        """Return when jobs are due."""

        async def found() -> list[datetime]:
            return [(await self.jobs.get(id)).run_at for id in ids]

        return self.call(found)

    def entries(self) -> list[dict[str, object]]:
        """Return the entries of the audit log, oldest first."""

        async def found() -> list[dict[str, object]]:
            return [
                {
                    "actor": one.actor,
                    "action": one.action,
                    "target": one.target,
                    "filter": one.filter,
                    "count": one.count,
                    "reason": one.reason,
                }
                for one in reversed((await self.jobs.audit.list()).items)
            ]

        return self.call(found)


def hidden_of(page: httpx2.Response) -> dict[str, str]:
    """Return the hidden fields of a page's form, without that of the choice of a zone."""
    return {
        str(attrs["name"]): str(attrs["value"])
        for tag, attrs in tags_of(page)
        if tag == "input" and attrs.get("type") == "hidden" and attrs["name"] != "back"
    }


@cache
def common_shop() -> Shop:
    """Return the shop that these tests share, since it takes long to make."""
    return Shop(Path("never-opened.db"))


@pytest.fixture
def shop(tmp_db: Path) -> Iterator[Shop]:
    """Open a shop whose replayed jobs wait: their queue is paused."""
    shop = common_shop().on(tmp_db)
    with shop.client:
        yield shop


def held(shop: Shop) -> None:
    """Pause the queue, so that replayed jobs stay as they were stored."""
    shop.post("queues/default/pause")


def test_plan_counts_letters_whose_arguments_do_not_fit_and_leaves_them(
    shop: Shop, tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = [shop.die() for _ in range(4)]
    held(shop)
    with closing(sqlite3.connect(tmp_db)) as conn:
        conn.execute(
            "UPDATE jobrunner_dead_letters SET args = '{\"old\": 1}' WHERE id = ?", (letters[3],)
        )
        conn.commit()
    ((group, _),) = shop.groups()
    page = text_of(shop.get(f"dead?group={group}"))
    assert "Dead letters4" in page
    assert "Arguments do not fit the task: stay\N{MINUS SIGN} 1Will run3" in page
    monkeypatch.setattr(dead_letters, "CHECKED_BY_PLAN", 2)
    page = text_of(shop.get(f"dead?group={group}"))
    assert "Arguments do not fit the task, of the first 2: stay\N{MINUS SIGN} 1Will run3" in page
    answer = shop.post(f"dead/{group}/replay", {**shop.open(group)[1], "rate": "0"})
    assert answer.headers["location"].endswith("said=many-replayed&n=3")
    assert [shop.state(id) for id in letters] == ["queued", "queued", "queued", "dead"]


# -- what it shows -------------------------------------------------------------------------------------------


def test_letters_are_grouped_by_task_and_error(shop: Shop) -> None:
    for _ in range(3):
        shop.die("the mail server is down")
    shop.die("no such customer")
    shop.dead()
    page = text_of(shop.get("dead"))
    assert "5 dead letters in 3 groups" in page
    assert re.search(r"3\s*sync\s*Bury: the mail server is down", page)
    assert "write_letter" in page


def test_open_group_says_what_its_letters_share_and_shows_the_newest(shop: Shop) -> None:
    ids = [shop.die(tag="red") for _ in range(8)]
    ids.append(shop.die())
    ((group, count),) = shop.groups()
    page, fields = shop.open(group)
    text = text_of(page)
    assert count == 9
    assert "from the newest 9" in text
    assert "Queue default" in text.replace("Queuedefault", "Queue default")
    assert "red 89 %, none 11 %" in text
    assert "All 9" in text
    shown = [id for id in reversed(ids) if f"jobs/{id}" in page.text]
    assert shown == list(reversed(ids))[:6]
    assert f":{os.getpid()}" in text.partition("Worker")[2]
    assert set(fields) == {"once", "until"}
    assert datetime.fromisoformat(fields["until"]).tzinfo is not None


def test_share_of_a_worker_that_has_left_names_it_by_its_number(shop: Shop) -> None:
    for _ in range(4):
        shop.die()
    with closing(sqlite3.connect(shop.database)) as conn, conn:
        conn.execute("UPDATE jobrunner_attempts SET worker = 255 WHERE job % 4 = 0")
    ((group, _),) = shop.groups()
    assert re.search(
        rf"Worker\S+:{os.getpid()} 75 %, ff \(left\) 25 %", text_of(shop.open(group)[0])
    )


def listed(shop: Shop, **query: str) -> list[str]:
    """Return the fingerprints of the groups on a page."""
    page = shop.get("dead", params=query)
    return [
        str(a["data-key"]) for tag, a in tags_of(page) if "group" in (a.get("class") or "").split()
    ]


def test_groups_are_filtered_by_task_and_by_words_of_the_error(shop: Shop) -> None:
    shop.dead()
    shop.die("no such customer")
    shop.die("the mail server is down")
    (down, _), (customer, _), (letter, _) = shop.groups()
    assert listed(shop) == [down, customer, letter]
    assert listed(shop, task="sync") == [down, customer]
    assert listed(shop, words="SERVER mail") == [down]
    assert listed(shop, words="bury sync") == [down, customer]
    assert listed(shop, words="write_letter", task="sync") == []
    page = shop.get("dead", params={"words": "nothing like it"})
    assert "No group matches" in text_of(page)
    assert "3 dead letters in 3 groups" in text_of(page)
    # The open group stays, and what is opened keeps the filter.
    assert listed(shop, task="sync", words="server", group=letter) == [down, letter]
    links = [a.get("href") or "" for tag, a in tags_of(shop.get("dead?task=sync")) if tag == "a"]
    assert f"./dead?task=sync&group={down}" in links or f"dead?task=sync&group={down}" in links


def test_open_group_names_the_worker_that_had_started_before(shop: Shop) -> None:
    shop.die()
    ((group, _),) = shop.groups()
    page = text_of(shop.get(f"dead?group={group}"))
    assert re.search(rf"Began\d\d:\d\d:\d\d, .{{1,8}} after worker \S+:{os.getpid()} started", page)


def test_plan_counts_those_whose_key_is_held(shop: Shop) -> None:
    shop.die(key="k1")
    shop.die(key="k2")
    shop.die()
    held(shop)
    holder = shop.enqueue(shop.sync.options(key="k1"), "x", "other").id
    ((group, _),) = shop.groups()
    page, fields = shop.open(group)
    text = text_of(page)
    assert "\N{MINUS SIGN} 1" in text
    assert re.search(r"Dead letters\s*3", text)
    assert re.search(r"Will run\s*2", text)
    assert "Replay 2" in text
    answer = shop.post(f"dead/{group}/replay", {**fields, "rate": "0"})
    assert answer.headers["location"].endswith("&said=many-replayed&n=2")
    assert shop.groups() == [(group, 1)]
    assert shop.state(holder) == "queued"


def test_group_that_is_gone_says_so_and_offers_the_others(shop: Shop) -> None:
    shop.die()
    for group in ("0123456789abcdef", "no group", MARKUP):
        page = shop.get("dead", params={"group": group})
        assert page.status_code == 200
        assert "This group has no dead letters any more" in text_of(page)
        assert "1 dead letter in 1 group" in text_of(page)
        assert MARKUP not in page.text


def test_letters_are_listed_by_their_group(shop: Shop) -> None:
    first, other = shop.die("one kind"), shop.die("another kind of it")
    (_, (group, _)) = shop.groups()
    page = shop.get(f"dead?view=letters&group={group}")
    assert f"jobs/{first}" in page.text
    assert f"jobs/{other}" not in page.text
    assert "group" in hidden_of(page) or f"group={group}" in page.text
    assert "No dead letter" in text_of(shop.get("dead?view=letters&group=0123456789abcdef"))


# -- test one ------------------------------------------------------------------------------------------------


def test_newest_letter_is_tested_and_the_others_stay(shop: Shop) -> None:
    shop.die()
    newest = shop.die()
    ((group, _),) = shop.groups()
    _, fields = shop.open(group)
    held(shop)
    answer = shop.post(f"dead/{group}/test", {**fields, "reason": "new deploy"})
    address = answer.headers["location"]
    assert (answer.status_code, address) == (303, f"../../dead?group={group}&test={newest}")
    page = text_of(shop.get(address.removeprefix("../../")))
    assert "The test is under way: the job is queued." in page
    assert shop.groups() == [(group, 1)]
    assert shop.entries()[-1] == {
        "actor": "ada",
        "action": "dead_letters.replay",
        "target": newest,
        "filter": None,
        "count": 1,
        "reason": "new deploy",
    }


def test_test_that_fails_again_says_so(shop: Shop) -> None:
    id = shop.die()
    ((group, _),) = shop.groups()
    answer = shop.post(f"dead/{group}/test", shop.open(group)[1])
    address = answer.headers["location"].removeprefix("../../")
    page = text_of(shop.get(address))
    while "under way" in page:
        page = text_of(shop.get(address))
    assert "Test failed: the job is a dead letter again." in page
    assert shop.state(id) == "dead"


def test_test_that_succeeds_says_so(shop: Shop) -> None:
    id = shop.finished()
    page = text_of(shop.get(f"dead?group=x&test={id}"))
    assert "Test passed: the job succeeded." in page
    assert "Test" not in text_of(shop.get("dead?test=nope"))


def test_test_passes_over_a_letter_whose_key_is_held(shop: Shop) -> None:
    older = shop.die()
    shop.die(key="k")
    held(shop)
    shop.enqueue(shop.sync.options(key="k"), "x", "y")
    ((group, _),) = shop.groups()
    _, fields = shop.open(group)
    answer = shop.post(f"dead/{group}/test", fields)
    assert answer.headers["location"].endswith(f"&test={older}")
    assert shop.post(f"dead/{group}/test", fields).headers["location"].endswith(f"&test={older}")
    answer = shop.post(f"dead/{group}/test", shop.open(group)[1])
    assert answer.headers["location"].endswith("said=nothing-to-test")
    assert "No dead letter of the group can be replayed" in text_of(
        shop.get(f"dead?group={group}&said=nothing-to-test")
    )


# -- replay --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "gap_s"), [("60", 1), ("300", 0.2), ("1000", 0.06), ("0", 0)])
def test_replay_spreads_the_jobs_by_the_rate_and_the_first_is_due_now(
    shop: Shop, rate: str, gap_s: float
) -> None:
    ids = [shop.die() for _ in range(4)]
    ((group, _),) = shop.groups()
    _, fields = shop.open(group)
    held(shop)
    before = utcnow()
    answer = shop.post(f"dead/{group}/replay", {**fields, "rate": rate, "reason": "repaired"})
    after = utcnow()
    assert answer.status_code == 303
    due = sorted(shop.due(ids))
    assert before - timedelta(milliseconds=1) <= due[0] <= after
    gaps = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(due)]
    assert gaps == pytest.approx([gap_s] * 3, abs=0.001)
    assert shop.groups() == []
    assert shop.entries()[-1] == {
        "actor": "ada",
        "action": "dead_letters.replay_all",
        "target": None,
        "filter": {"group": group, "until": fields["until"]}
        | ({} if rate == "0" else {"per_minute": int(rate)}),
        "count": 4,
        "reason": "repaired",
    }
    page = text_of(shop.get(answer.headers["location"].removeprefix("../../")))
    assert "4 dead letters replayed." in page


def test_default_rate_is_checked_in_the_form(shop: Shop) -> None:
    shop.die()
    ((group, _),) = shop.groups()
    radios = [attrs for _, attrs in tags_of(shop.open(group)[0]) if attrs.get("type") == "radio"]
    assert [(one["value"], "checked" in one) for one in radios] == [
        ("60", False),
        ("300", True),
        ("1000", False),
        ("0", False),
    ]


def test_replay_leaves_what_died_after_the_page_was_shown(shop: Shop) -> None:
    seen = shop.die()
    ((group, _),) = shop.groups()
    _, fields = shop.open(group)
    late = shop.die()
    held(shop)
    answer = shop.post(f"dead/{group}/replay", {**fields, "rate": "0"})
    assert answer.headers["location"].endswith("n=1")
    assert (shop.state(seen), shop.state(late)) == ("queued", "dead")


def test_second_click_replays_nothing(shop: Shop) -> None:
    ids = [shop.die(), shop.die()]
    ((group, _),) = shop.groups()
    _, fields = shop.open(group)
    held(shop)
    first = shop.post(f"dead/{group}/replay", {**fields, "rate": "60"})
    due = shop.due(ids)
    second = shop.post(f"dead/{group}/replay", {**fields, "rate": "60"})
    assert first.headers["location"].endswith("n=2")
    assert second.headers["location"] == first.headers["location"]
    # The same form from another opening of the page finds nothing.
    other = shop.post(f"dead/{group}/replay", {**fields, "once": "other", "rate": "60"})
    assert other.headers["location"].endswith("n=0")
    assert shop.due(ids) == due
    assert [one["count"] for one in shop.entries() if one["filter"]] == [2, 0]


# -- delete --------------------------------------------------------------------------------------------------


def test_delete_asks_first_and_leaves_what_died_since(shop: Shop) -> None:
    ids = [shop.die(), shop.die()]
    ((group, _),) = shop.groups()
    asked = shop.get(f"dead/{group}/delete")
    assert "Delete 2 dead letters of sync?" in text_of(asked)
    assert "data-polls" not in asked.text
    late = shop.die()
    assert [shop.state(id) for id in ids] == ["dead", "dead"]
    fields = hidden_of(asked)
    answer = shop.post(f"dead/{group}/delete", {**fields, "reason": "of a test"})
    assert answer.headers["location"] == "../../dead?said=many-deleted&n=2"
    assert [shop.get(f"jobs/{id}").status_code for id in (*ids, late)] == [404, 404, 200]
    assert shop.entries()[-1] == {
        "actor": "ada",
        "action": "dead_letters.delete_all",
        "target": None,
        "filter": {"group": group, "until": fields["until"]},
        "count": 2,
        "reason": "of a test",
    }
    assert shop.get("dead/0123456789abcdef/delete").headers["location"] == "../../dead"


# -- what a form may not send --------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["test", "replay", "delete"])
@pytest.mark.parametrize(
    "until", ["", "tomorrow", "2026-01-01T00:00:00", "9" * 40, "0001-01-01T00:00:00+14:00", MARKUP]
)
def test_changed_end_of_the_set_is_refused_with_a_page(shop: Shop, act: str, until: str) -> None:
    id = shop.die()
    ((group, _),) = shop.groups()
    answer = shop.post(f"dead/{group}/{act}", {"until": until, "rate": "60"})
    if "+14" in until:
        assert answer.status_code in {303, 422}
    else:
        assert answer.status_code == 422
        assert "open the page again" in text_of(answer)
        assert shop.entries() == []
    assert MARKUP not in answer.text
    assert shop.state(id) == "dead"


@pytest.mark.parametrize("rate", ["1", "-60", "1e9", "²", "060", MARKUP])
def test_changed_rate_is_refused_with_a_page(shop: Shop, rate: str) -> None:
    id = shop.die()
    ((group, _),) = shop.groups()
    answer = shop.post(f"dead/{group}/replay", {**shop.open(group)[1], "rate": rate})
    assert answer.status_code == 422
    assert "open the group again" in text_of(answer)
    assert MARKUP not in answer.text
    assert shop.state(id) == "dead"
    assert shop.entries() == []


@pytest.mark.parametrize("act", ["test", "replay", "delete"])
def test_reason_that_is_too_long_is_refused_with_a_page(shop: Shop, act: str) -> None:
    id = shop.die()
    ((group, _),) = shop.groups()
    fields = {**shop.open(group)[1], "rate": "60", "reason": "r" * 501}
    answer = shop.post(f"dead/{group}/{act}", fields)
    assert answer.status_code == 422
    assert shop.state(id) == "dead"


@pytest.mark.parametrize("act", ["test", "replay", "delete"])
@pytest.mark.parametrize("group", ["0123456789abcdef", "nope", "%3Cb%3E", "a" * 300])
def test_form_of_a_group_that_is_gone_changes_nothing(shop: Shop, act: str, group: str) -> None:
    id = shop.die()
    fields = {"until": "2100-01-01T00:00:00+00:00", "rate": "60"}
    answer = shop.post(f"dead/{group}/{act}", fields)
    assert answer.status_code in {303, 422}
    assert shop.state(id) == "dead"


# -- who may -------------------------------------------------------------------------------------------------


def test_reader_sees_no_buttons_of_a_group_and_is_refused(tmp_db: Path) -> None:
    async def anybody() -> None:
        """Let everybody in."""

    async def operator(x_role: str = Header("")) -> None:
        if x_role != "operator":
            raise HTTPException(403, "operators only")

    board = Board(tmp_db, read=anybody, act=operator)
    with board.client:
        id = board.dead()
        group = fingerprint_of(board)
        page = board.get(f"dead?group={group}")
        fields = {**hidden_of(page), "rate": "0"}
        assert "You may read, and not act." in text_of(page)
        assert "Will run" in text_of(page)
        names = {attrs.get("name") for tag, attrs in tags_of(page) if tag in {"input", "button"}}
        assert not names & {"rate", "reason"}
        assert not [tag for tag, attrs in tags_of(page) if attrs.get("formaction")]
        assert "Replay 1" not in text_of(page)
        assert f"dead/{group}/delete" not in page.text
        for act in ("test", "replay", "delete"):
            assert board.post(f"dead/{group}/{act}", fields).status_code == 403
        assert board.get(f"dead/{group}/delete").status_code == 403
        assert board.state(id) == "dead"
        assert board.audited() == []
        role = {"X-Role": "operator"}
        assert "Test with one" in text_of(board.get(f"dead?group={group}", headers=role))
        board.post("queues/mail/pause", headers=role)
        assert board.post(f"dead/{group}/replay", fields, headers=role).status_code == 303
        assert board.state(id) == "queued"


def fingerprint_of(board: Board) -> str:
    """Return the fingerprint of the only group."""

    async def found() -> str:
        (group,) = (await board.jobs.dead_letters.groups()).items
        return group.fingerprint

    return board.call(found)


# -- markup and secrets --------------------------------------------------------------------------------------


def test_markup_in_errors_tags_and_reasons_is_text(shop: Shop) -> None:
    shop.die(f"{MARKUP} is no address", tag=MARKUP)
    ((group, _),) = shop.groups()
    for path in ("", "dead", f"dead?group={group}", f"dead?view=letters&group={group}"):
        page = shop.get(path)
        assert MARKUP not in page.text, path
        assert "<script>alert" not in page.text, path
        assert "<script>alert('x')</script>" in text_of(page), path


def test_arguments_are_not_on_the_pages_of_groups(shop: Shop) -> None:
    shop.die()
    ((group, _),) = shop.groups()
    pages = (
        "",
        "dead",
        f"dead?group={group}",
        "dead?view=letters",
        f"dead/{group}/delete",
        "audit",
    )
    for path in pages:
        assert CANARY not in shop.get(path).text, path
