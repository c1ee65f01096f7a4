"""Tests the pages: lists, filters, one job, schedules, queues, and empty states."""

import asyncio
import os
import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import pytest

from jobrunner import JobDead
from jobrunner.core.clock import now_us
from jobrunner.core.schedule import Fire, Tick
from jobrunner.store.round import Round
from tests.fastapi.dashboard.conftest import CANARY, MARKUP, NOBODY, Board, tags_of, text_of
from tests.support.engine import store_of, worker_of

PAGES = ["", "jobs", "dead", "schedules", "queues", "limits", "zone"]


@pytest.mark.parametrize("path", PAGES)
def test_page_of_an_empty_store_has_one_heading_and_says_what_will_come(
    board: Board, path: str
) -> None:
    answer = board.get(path)
    assert answer.status_code == 200
    assert [tag for tag, _ in tags_of(answer)].count("h1") == 1
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


def test_empty_states_name_the_next_step(board: Board) -> None:
    assert "as soon as the application enqueues one" in text_of(board.get("jobs"))
    assert "No dead letters" in text_of(board.get("dead"))
    assert "@jobs.cron" in text_of(board.get("schedules"))
    assert "All is well" in text_of(board.get(""))
    for state in ("queued", "running", "retrying", "scheduled", "blocked", "cancelled", "expired"):
        assert f"No {state} jobs" in text_of(board.get(f"jobs?state={state}"))


def test_root_without_its_slash_goes_to_the_overview(board: Board) -> None:
    answer = board.client.get("/jobs/ui")
    assert (answer.status_code, answer.headers["location"]) == (307, "ui/")


def test_list_of_jobs_counts_by_state_and_filters_by_the_address(board: Board) -> None:
    first = board.waiting(tag="red", key="k1")
    second = board.waiting(tag="blue")
    finished = board.finished()
    page = text_of(board.get("jobs"))
    assert "Scheduled 2" in page
    assert "Succeeded 1" in page
    shown = board.get("jobs").text
    assert all(id in shown for id in (first, second, finished))
    for query in ("tag=red", "key=k1", "tag=red&state=scheduled&task=greet&queue=default"):
        filtered = board.get(f"jobs?{query}").text
        assert f"jobs/{first}" in filtered
        assert f"jobs/{second}" not in filtered
    assert "No succeeded job matches" in text_of(board.get("jobs?tag=red&state=succeeded"))


def test_list_of_retrying_jobs_shows_their_last_error(board: Board) -> None:
    board.waiting()
    job = board.enqueue(board.try_again, "x")
    answer = board.get("jobs?state=retrying")
    while f"jobs/{job.id}" not in answer.text:
        answer = board.get("jobs?state=retrying")
    page = text_of(answer)
    assert "retrying" in page
    assert "1 of 3" in page
    assert [attrs for tag, attrs in tags_of(answer) if tag == "tr" and "data-row" in attrs] == [
        {"data-key": job.id, "data-row": None}
    ]


def test_lists_are_pages_with_a_cursor(board: Board) -> None:
    for _ in range(51):
        board.waiting()
    first = board.get("jobs")
    (address,) = [a["href"] for tag, a in tags_of(first) if tag == "a" and a.get("rel") == "next"]
    assert address is not None
    second = board.get(address.removeprefix("./"))
    assert second.text.count("data-row") == 1
    assert "First page" in text_of(second)


def test_a_cursor_of_nowhere_is_a_page_with_a_next_step(board: Board) -> None:
    answer = board.get("jobs?cursor=zzz")
    assert answer.status_code == 422
    assert "Begin again at the first page" in text_of(answer)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("greet", "jobs?task=greet"),
        ("gre", "jobs?task=greet"),
        ("red", "jobs?tag=red"),
        ("k1", "jobs?key=k1"),
        ("queue:mail tag:x", "jobs?queue=mail&tag=x"),
        ('state:dead task:"greet"', "jobs?task=greet&state=dead"),
        ("gone", "jobs?tag=gone&state=dead"),
    ],
)
def test_search_goes_to_what_is_meant(board: Board, query: str, expected: str) -> None:
    board.waiting(tag="red", key="k1")
    board.dead(tag="gone")
    answer = board.get("jobs", params={"q": query})
    assert answer.status_code == 303
    assert set(answer.headers["location"].removeprefix("./").replace("?", "&").split("&")) == set(
        expected.replace("?", "&").split("&")
    )


def test_form_with_empty_fields_goes_to_the_short_address(board: Board) -> None:
    answer = board.get("jobs?state=queued&q=&task=greet&queue=")
    assert answer.headers["location"] == "./jobs?state=queued&task=greet"


def test_search_for_an_id_goes_to_its_page(board: Board) -> None:
    for id in (board.waiting(), board.dead()):
        assert board.get("jobs", params={"q": id}).headers["location"] == f"./jobs/{id}"
    assert "Nothing is called" in text_of(board.get("jobs", params={"q": NOBODY}))


def test_search_for_nothing_there_says_so_and_offers_names_alike(board: Board) -> None:
    page = text_of(board.get("jobs", params={"q": "e"}))
    assert "Nothing is called" in page
    assert "write_letter" in page


def test_page_of_a_job_shows_its_life_its_facts_and_its_command(board: Board) -> None:
    id = board.finished()
    page = text_of(board.get(f"jobs/{id}"))
    for part in (
        "greet",
        "succeeded",
        "1 of 5",
        "Succeeded in 1 attempt",
        f"jobrunner jobs show {id} --args",
    ):
        assert part in page
    assert '<svg class="life"' in board.get(f"jobs/{id}").text


def test_pages_show_the_progress_of_a_running_job_and_keep_it_as_a_fact(board: Board) -> None:
    async def begin() -> str:
        board.rendered = asyncio.Event()
        job = await board.jobs.enqueue(board.render, MARKUP)
        async with asyncio.timeout(15):
            while (await job.refresh()).progress is None:
                pass
        return job.id

    async def end(id: str) -> None:
        assert board.rendered is not None
        board.rendered.set()
        await (await board.jobs.get(id)).result(15)

    id = board.call(begin)
    for path in (f"jobs/{id}", "jobs"):
        answer = board.get(path)
        assert 'aria-label="25 per cent done"><rect width="25%"' in answer.text
        assert MARKUP not in answer.text
        assert f"25 % (1,240 of 5,000): {MARKUP}" in text_of(answer)
    board.call(end, id)
    answer = board.get(f"jobs/{id}")
    assert "per cent done" not in answer.text
    assert f"Progress25 % (1,240 of 5,000): {MARKUP}" in text_of(answer)
    assert "1,240" not in board.get("jobs").text


def test_page_of_a_dead_letter_has_its_traceback_with_own_frames_marked(board: Board) -> None:
    id = board.dead()
    answer = board.get(f"jobs/{id}")
    page = text_of(answer)
    assert "nobody is no address" in page
    assert f"jobrunner dead replay {id}" in page
    assert 'class="own"' in answer.text


def test_page_of_a_chain_shows_every_job_of_it(board: Board) -> None:
    async def chain() -> list[str]:
        calls = [board.greet.options(delay=60).call("a"), board.greet.call("b")]
        return [job.id for job in await board.jobs.enqueue_chain(calls)]

    first, second = board.call(chain)
    answer = board.get(f"jobs/{second}")
    assert f"../jobs/{first}" in answer.text
    assert "Waits until the job before it" in text_of(answer)


def test_unknown_id_is_a_page_with_a_next_step(board: Board) -> None:
    for id in (NOBODY, "nonsense", "%00", "é"):
        answer = board.get(f"jobs/{id}")
        assert answer.status_code == 404, id
        assert "Look for it by its key" in text_of(answer)
    assert "There is no page" in text_of(board.get("a/b/c"))
    assert board.get("a/b/c").status_code == 404
    assert 'href="../../static/style.' in board.get("a/b/c").text


def test_markup_in_every_field_is_text(board: Board) -> None:
    id = board.waiting(MARKUP, tag=MARKUP, key=MARKUP)
    letter = board.dead(MARKUP, tag=MARKUP, key=MARKUP)
    pages = [
        "",
        "jobs",
        f"jobs/{id}",
        f"jobs/{id}/arguments",
        f"jobs/{letter}",
        f"jobs/{letter}/edit",
    ]
    pages += [f"jobs/{letter}/arguments", f"jobs/{id}/cancel", "dead"]
    for path in pages:
        answer = board.get(path)
        assert answer.status_code == 200, path
        assert "<script>alert" not in answer.text
        assert [attrs["src"] for tag, attrs in tags_of(answer) if tag == "script"] != []
    for name in ("tag", "key", "q", "state", "task"):
        answer = board.get("jobs", params={name: MARKUP}, follow_redirects=True)
        assert "<script>alert" not in answer.text
    assert MARKUP in text_of(board.get(f"jobs/{id}/arguments")).replace('\\"', '"')


def test_no_page_has_inline_script_or_style(board: Board) -> None:
    id, letter = board.finished(), board.dead()
    for path in [*PAGES, f"jobs/{id}", f"jobs/{letter}", f"jobs/{letter}/edit", "nope"]:
        for tag, attrs in tags_of(board.get(path)):
            assert tag != "style"
            assert "style" not in attrs
            assert not [name for name in attrs if name.startswith("on")]
            assert tag != "script" or attrs["src"]


def test_values_are_absent_until_they_are_shown(board: Board) -> None:
    id = board.finished(CANARY)
    assert CANARY not in board.get(f"jobs/{id}").text
    assert '"name"' in text_of(board.get(f"jobs/{id}"))
    shown = text_of(board.get(f"jobs/{id}/arguments"))
    assert f'"{CANARY}"' in shown
    assert f'"hello {CANARY}"' in shown


def test_redacted_values_stay_hidden_and_survive_an_edit(board: Board) -> None:
    async def die() -> str:
        job = await board.jobs.enqueue(board.charge, CANARY, {"password": CANARY, "user": "ada"})
        with pytest.raises(JobDead):
            await job.result(30)
        return job.id

    id = board.call(die)
    for path in (f"jobs/{id}/arguments", f"jobs/{id}/edit"):
        answer = board.get(path)
        assert CANARY not in answer.text
        assert "[redacted]" in answer.text
    fields = {"arg.card": "[redacted]", "arg.login": '{"password": "[redacted]", "user": "eve"}'}
    new = board.post(f"jobs/{id}/edit", fields).headers["location"].split("/")[-1].split("?")[0]

    async def payload() -> dict[str, object]:
        return (await board.jobs.payload(new)).args

    assert board.call(payload) == {"card": CANARY, "login": {"password": CANARY, "user": "eve"}}


def test_schedules_are_shown_in_english_with_ticks_and_their_jobs(board: Board) -> None:
    async def store() -> None:
        await board.jobs.schedules.upsert(
            "report:acme", board.greet, cron="0 8 * * 1-5", timezone="Europe/Berlin", args=["acme"]
        )
        await board.jobs.schedules.upsert(
            "soon",
            board.greet,
            run_at=datetime(2099, 1, 1, tzinfo=UTC),
            args=["x"],
        )

    board.call(store)
    page = text_of(board.get("schedules"))
    assert "At 08:00 on Monday through Friday (Europe/Berlin)" in page
    assert "0 8 * * 1-5 Europe/Berlin" in page
    assert "Once, at" in page
    one = board.get("schedules/report:acme")
    assert one.text.count("<li>") >= 5
    assert "No tick yet" in text_of(one)
    assert board.get("schedules/nope").status_code == 404


def test_queues_show_workers_and_storage(board: Board) -> None:
    board.waiting()
    page = text_of(board.get("queues"))
    assert "revision 7" in page
    for part in ("default", "mail", "0 / 5", "alive", "0 / 10", "6 tasks", "jobs.db", "free"):
        assert part in page


def test_queues_show_the_lag_of_each_workers_loop(board: Board) -> None:
    """It was measured by the worker, which may be another process than the one that shows the page."""

    async def beat() -> None:
        heartbeat = worker_of(board.jobs).maintenance.heartbeat
        heartbeat.count_lag(0.002)
        heartbeat.count_lag(1.25)
        await heartbeat.beat()

    board.call(beat)
    page = board.get("queues")
    assert "Loop lag" in text_of(page)
    assert re.search(r'class="[^"]*bad strong[^"]*">1\.2 s<', page.text)


def test_queues_show_the_busy_slots_of_each_worker(board: Board) -> None:
    async def start() -> None:
        for _ in range(2):
            await board.jobs.enqueue(board.hold)
        while (await board.jobs.health()).workers[0].running < 2:
            await board.jobs.queues.list()  # a turn of the loop

    board.call(start)
    page = board.get("queues")
    assert "2 / 10" in text_of(page)
    assert "2 of 10 slots busy" in [attributes.get("aria-label") for _, attributes in tags_of(page)]
    board.call(release, board)


async def release(board: Board) -> None:
    """Let the jobs that wait for it end."""
    board.released.set()


def test_schedule_pages_through_all_of_its_ticks(board: Board) -> None:
    number = 120
    begin = now_us() - 600_000_000  # older than their retention, they would be deleted

    async def store() -> None:
        await board.jobs.schedules.upsert("s", board.greet, every=3600, args=["x"])
        store = store_of(board.jobs)
        row = await store.schedules.get("s")
        assert row is not None
        assert row.next is not None
        missed = [Tick(begin + n * 1_000_000, "late") for n in range(number)]
        await store.write(Round(begin, fires=[Fire(row, row.next, missed)]))

    board.call(store)
    seen: list[str] = []
    pages, address = 0, "schedules/s"
    page = board.get(address)
    while address:
        page = board.get(address)
        seen += re.findall(r'<tr data-key="([^"]+)"', page.text)
        pages += 1
        more = [a["href"] for tag, a in tags_of(page) if tag == "a" and a.get("rel") == "next"]
        address = (more[0] or "").removeprefix("../") if more else ""
    assert pages == 3
    assert seen == sorted(set(seen), reverse=True)
    assert len(seen) == number
    assert "Earlier ticks" in text_of(page)
    assert "No older tick" in text_of(board.get("schedules/s?cursor=1"))
    assert board.get("schedules/s?cursor=x").status_code == 422


def test_times_are_in_the_viewers_zone_on_both_sides_of_a_change(board: Board) -> None:
    async def store() -> None:
        for name, month in (("winter", 1), ("summer", 7)):
            await board.jobs.schedules.upsert(
                name, board.greet, run_at=datetime(2099, month, 5, 12, tzinfo=UTC), args=["x"]
            )

    board.call(store)
    assert "5 Jan 2099 12:00" in text_of(board.get("schedules"))
    answer = board.post("zone", {"zone": "Europe/Berlin", "back": "schedules"})
    assert (answer.status_code, answer.headers["location"]) == (303, "./schedules")
    assert "HttpOnly" in answer.headers["set-cookie"]
    shown = board.get("schedules")
    assert "5 Jan 2099 13:00" in text_of(shown)
    assert "5 Jul 2099 14:00" in text_of(shown)
    assert 'datetime="2099-07-05T12:00:00.000Z"' in shown.text
    assert "Berlin" in text_of(shown)


def test_unknown_zone_is_refused_beside_its_field(board: Board) -> None:
    answer = board.post("zone", {"zone": "Mars/Olympus"})
    assert answer.status_code == 422
    assert "does not know this time zone" in text_of(answer)
    board.client.cookies["jobrunner_zone"] = "../../etc/passwd"
    assert board.get("jobs").status_code == 200


def test_page_that_has_not_changed_is_an_empty_304(board: Board) -> None:
    id = board.waiting()
    first = board.get("jobs?state=blocked")
    again = board.get("jobs?state=blocked", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["x-as-of"]

    async def cancel() -> None:
        await board.jobs.cancel(id)

    board.call(cancel)
    changed = board.get("jobs?state=blocked", headers={"If-None-Match": first.headers["etag"]})
    assert changed.status_code == 200


def test_closed_runner_and_unusable_store_are_pages(board: Board, tmp_db: object) -> None:
    closed = Board(board.database)
    answer = closed.get("")
    assert answer.status_code == 503
    assert "FastAPI(lifespan=jobs.lifespan)" in text_of(answer)
    assert "Try again" in text_of(answer)


def test_footer_says_how_long_reading_took(board: Board) -> None:
    page = board.get("jobs")
    assert re.search(r"Read in (< 1|\d+) ms", text_of(page))
    again = board.get("jobs", headers={"If-None-Match": page.headers["etag"]})
    assert again.status_code == 304
    assert re.fullmatch(r"(< 1|\d+) ms", again.headers["x-took"])
    assert "Read in" not in text_of(board.get("nowhere"))


def test_job_names_the_worker_of_its_last_attempt_while_it_is_there(board: Board) -> None:
    job = board.finished()
    page = text_of(board.get(f"jobs/{job}"))
    assert re.search(rf"Worker\s*\S+:{os.getpid()} · revision 7 · of the last attempt", page)

    async def worker() -> int:
        (own,) = await store_of(board.jobs).workers.list()
        return own.worker

    id = board.call(worker)
    with closing(sqlite3.connect(board.database)) as conn, conn:
        conn.execute("UPDATE jobrunner_attempts SET worker = ?", (id ^ 1,))
    page = text_of(board.get(f"jobs/{job}"))
    assert f"Worker{id ^ 1:x} · of the last attempt; it has left" in page
