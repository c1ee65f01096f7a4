"""Tests the forms: each is answered by 303, or by a page with the reason."""

import asyncio
import re
import tracemalloc
from collections.abc import Callable, Coroutine
from typing import Any

import httpx2
import pytest
from starlette.responses import Response

from jobrunner.core.audit import AuditEntry
from jobrunner.core.errors import StoreBusy
from jobrunner.core.model import JobRow
from jobrunner.fastapi.dashboard import run_all, sent_forms, words
from jobrunner.fastapi.dashboard.forms import Form
from jobrunner.fastapi.dashboard.sent_forms import SentForms, name_of
from jobrunner.store.sqlite.jobs import SqliteJobs
from tests.fastapi.dashboard.conftest import CANARY, NOBODY, ROOT, SAME, Board, tags_of, text_of
from tests.support.engine import next_round


def test_cancel_asks_first_and_then_cancels(board: Board) -> None:
    id = board.waiting()
    assert "Cancel this job?" in text_of(board.get(f"jobs/{id}/cancel"))
    assert board.state(id) == "scheduled"
    answer = board.post(f"jobs/{id}/cancel")
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        f"../../jobs/{id}?said=cancelled",
    )
    assert board.state(id) == "cancelled"
    page = board.client.get(
        f"/jobs/ui/jobs/{id}/{answer.headers['location']}", follow_redirects=True
    )
    assert "Cancelled: the job will not run." in text_of(page)
    assert "ended" in board.post(f"jobs/{id}/cancel").headers["location"]


def test_cancel_of_selected_jobs_asks_and_then_cancels_them(board: Board) -> None:
    ids = [board.waiting(), board.waiting()]
    other = board.waiting()
    asked = board.post("jobs/cancel", {"id": ids, "back": "jobs?state=scheduled"})
    assert asked.status_code == 200
    assert "Cancel 2 jobs?" in text_of(asked)
    assert board.state(ids[0]) == "scheduled"
    answer = board.post("jobs/cancel", {"id": ids, "back": "jobs?state=scheduled", "sure": "1"})
    assert answer.headers["location"] == "../jobs?state=scheduled&said=many&n=2"
    assert [board.state(id) for id in (*ids, other)] == ["cancelled", "cancelled", "scheduled"]


def test_all_that_match_are_cancelled_as_they_were_counted(board: Board) -> None:
    mine = [board.waiting(tag="t") for _ in range(3)]
    other = board.waiting(tag="other")
    (link,) = [
        a["href"] or ""
        for tag, a in tags_of(board.get("jobs?tag=t&state=scheduled"))
        if tag == "a" and "cancel-all" in (a.get("href") or "")
    ]
    asked = board.get(link.removeprefix("./"))
    assert "Cancel 3 jobs?" in text_of(asked)
    fields = {
        a["name"] or "": a["value"] or ""
        for tag, a in tags_of(asked)
        if tag == "input" and a.get("type") == "hidden"
    }
    assert fields["tag"] == "t"
    assert fields["state"] == "scheduled"
    later = board.waiting(tag="t")
    answer = board.post("jobs/cancel-all", fields | {"reason": "wrong list"})
    where = "state=scheduled&tag=t"
    assert answer.headers["location"] == f"../jobs?{where}&said=many&n=3"
    assert [board.state(id) for id in (*mine, other, later)] == [
        *["cancelled"] * 3,
        "scheduled",
        "scheduled",
    ]

    async def entry() -> AuditEntry:
        return (await board.jobs.audit.list()).items[0]

    recorded = board.call(entry)
    assert (recorded.action, recorded.count, recorded.reason) == ("cancel_all", 3, "wrong list")
    assert recorded.filter == {"state": "scheduled", "tag": "t", "until": fields["until"]}
    assert (
        board.get("jobs/cancel-all?tag=nothing").headers["location"].endswith("said=none-matches")
    )
    assert board.get("jobs/cancel-all?state=succeeded").status_code == 422
    assert board.post("jobs/cancel-all", {"tag": "t"}).status_code == 422
    assert board.state(later) == "scheduled"


def retrying(board: Board, number: int) -> list[str]:
    """Return the ids of jobs that wait for another attempt."""

    async def fail() -> list[str]:
        jobs = [await board.jobs.enqueue(board.try_again, str(one)) for one in range(number)]
        while {(await one.refresh()).state for one in jobs} != {"scheduled"}:
            await next_round(board.jobs)
        return [job.id for job in jobs]

    return board.call(fail)


def hidden(page: httpx2.Response) -> dict[str, str]:
    return {
        a["name"] or "": a["value"] or ""
        for tag, a in tags_of(page)
        if tag == "input" and a.get("type") == "hidden"
    }


def links_to(page: httpx2.Response, part: str) -> list[str]:
    found = [a.get("href") or "" for tag, a in tags_of(page) if tag == "a"]
    return [link.removeprefix("./") for link in found if part in link]


def test_all_that_match_are_due_now_as_they_were_counted(board: Board) -> None:
    board.post("queues/default/pause")
    mine = [board.waiting(tag="t") for _ in range(3)]
    other = board.waiting(tag="other")
    (link,) = links_to(board.get("jobs?tag=t&state=scheduled"), "run-all")
    asked = board.get(link)
    assert "Run 3 jobs now?" in text_of(asked)
    fields = hidden(asked)
    later = board.waiting(tag="t")
    answer = board.post("jobs/run-all", fields | {"reason": "the bank is back"})
    where = "state=scheduled&tag=t"
    assert answer.headers["location"] == f"../jobs?{where}&said=many-due&n=3"
    states = [board.state(id) for id in (*mine, other, later)]
    assert states == [*["queued"] * 3, "scheduled", "scheduled"]
    assert board.audited()[-1][1:] == ("reschedule_all", None, 3)
    assert board.get("jobs/run-all?tag=nothing").headers["location"].endswith("said=none-waits")
    assert board.get("jobs/run-all?state=running").status_code == 422
    assert board.post("jobs/run-all", {"tag": "t"}).status_code == 422
    assert board.state(later) == "scheduled"


@pytest.mark.parametrize(
    ("act", "question", "ends"),
    [("run-all", "Run 2 jobs now?", "queued"), ("cancel-all", "Cancel 2 jobs?", "cancelled")],
)
def test_retrying_tab_acts_on_all_that_wait_for_another_attempt(
    board: Board, act: str, question: str, ends: str
) -> None:
    mine, other = retrying(board, 2), board.waiting()
    board.post("queues/default/pause")
    (link,) = links_to(board.get("jobs?state=retrying"), act)
    asked = board.get(link)
    assert question in text_of(asked)
    board.post(f"jobs/{act}", hidden(asked))
    assert [board.state(id) for id in (*mine, other)] == [ends, ends, "scheduled"]


def test_count_of_jobs_to_run_stops_early_and_says_so(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        board.waiting(tag="t")
    monkeypatch.setattr(run_all, "PER_SLICE", 2)
    monkeypatch.setattr(run_all, "COUNT_S", 30)
    monkeypatch.setattr(words, "COUNT_CAP", 3)
    page = board.get("jobs/run-all?tag=t")
    assert "Run more than 3 jobs now?" in text_of(page)
    assert "Counting stopped early" in text_of(page)
    board.post("queues/default/pause")
    answer = board.post("jobs/run-all", hidden(page))
    assert "said=many-due&n=5" in answer.headers["location"]


def test_cancel_of_none_says_so_and_leaves_the_site_alone(board: Board) -> None:
    answer = board.post("jobs/cancel", {"back": "//evil.example"})
    assert answer.headers["location"] == "../jobs?said=none-selected"


def test_waiting_job_is_made_due_now(board: Board) -> None:
    board.post("queues/default/pause")
    id, other = board.waiting(), board.waiting()
    assert board.post(f"jobs/{id}/run").headers["location"] == f"../../jobs/{id}?said=due"
    assert board.state(id) == "queued"
    finished = board.dead()
    answer = board.post("jobs/run", {"id": [other, finished, NOBODY], "back": "jobs"})
    assert answer.headers["location"] == "../jobs?said=many-due&n=1"
    assert board.state(other) == "queued"
    refused = board.post(f"jobs/{finished}/run")
    assert refused.status_code == 409
    assert board.post("jobs/run").headers["location"] == "../jobs?said=none-selected"


def test_replay_puts_a_dead_letter_back_once(board: Board) -> None:
    id = board.dead()
    board.post("queues/mail/pause")
    answer = board.post(f"jobs/{id}/replay")
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        f"../../jobs/{id}?said=replayed",
    )
    assert board.state(id) == "queued"
    again = board.post(f"jobs/{id}/replay")
    assert again.status_code == 409
    assert "the job is queued" in text_of(again)
    assert board.post(f"jobs/{NOBODY}/replay").status_code == 404


def test_delete_asks_first_and_then_deletes(board: Board) -> None:
    id = board.dead()
    assert "Delete this dead letter?" in text_of(board.get(f"jobs/{id}/delete"))
    assert board.post(f"jobs/{id}/delete").headers["location"] == "../../dead?said=deleted"
    assert board.get(f"jobs/{id}").status_code == 404
    assert board.post(f"jobs/{id}/delete").status_code == 404


def values_of(board: Board, id: str) -> dict[str, str | None]:
    """Return the fields of the form as a browser would send them."""
    fields = {}
    for tag, attrs in tags_of(board.get(f"jobs/{id}/edit")):
        if tag in {"input", "select", "textarea"} and (attrs.get("name") or "").startswith("arg."):
            fields[attrs["name"]] = attrs.get("value")
    return fields  # type: ignore[return-value]


def test_edit_form_has_a_control_for_each_kind_of_argument(board: Board) -> None:
    id = board.dead("nobody")
    assert list(values_of(board, id)) == ["arg.email", "arg.copies", "arg.style", "arg.extra"]
    assert values_of(board, id)["arg.email"] == "nobody"
    controls = [
        (tag, attrs["name"])
        for tag, attrs in tags_of(board.get(f"jobs/{id}/edit"))
        if (attrs.get("name") or "").startswith("arg.")
    ]
    assert controls == [
        ("input", "arg.email"),
        ("input", "arg.copies"),
        ("select", "arg.style"),
        ("textarea", "arg.extra"),
    ]


def test_edited_replay_is_a_new_job_with_the_changed_arguments(board: Board) -> None:
    id = board.dead("nobody")
    fields = {"arg.email": "a@b", "arg.copies": "3", "arg.style": '"html"', "arg.extra": '{"a": 1}'}
    answer = board.post(f"jobs/{id}/edit", fields)
    assert answer.status_code == 303
    new = answer.headers["location"].removeprefix("../../jobs/").partition("?")[0]
    assert new != id

    async def payload() -> dict[str, object]:
        return (await board.jobs.payload(new)).args

    assert board.call(payload) == {"email": "a@b", "copies": 3, "style": "html", "extra": {"a": 1}}
    assert f"../jobs/{new}" in board.get(f"jobs/{id}").text
    assert board.post(f"jobs/{id}/edit", fields).status_code == 409
    assert board.get(f"jobs/{id}/edit").status_code == 409


def test_replay_without_an_edit_keeps_the_id(board: Board) -> None:
    id = board.dead("nobody")
    answer = board.post(f"jobs/{id}/edit", {"arg.email": "nobody", "arg.copies": ""})
    assert answer.headers["location"] == f"../../jobs/{id}?said=replayed"


@pytest.mark.parametrize(
    ("name", "typed", "message"),
    [
        ("arg.copies", "many", "This is not JSON"),
        ("arg.copies", "1.5", "valid integer"),
        ("arg.extra", '{"a": "x"}', "valid integer"),
        ("arg.extra", "{", "This is not JSON"),
        ("arg.style", '"bold"', "Input should be"),
    ],
)
def test_wrong_arguments_are_refused_beside_their_field_and_what_was_typed_stays(
    board: Board, name: str, typed: str, message: str
) -> None:
    id = board.dead("nobody")
    answer = board.post(f"jobs/{id}/edit", {"arg.email": "typed@before", name: typed})
    assert answer.status_code == 422
    assert message in text_of(answer)
    wrong = [attrs["name"] for _, attrs in tags_of(answer) if attrs.get("aria-invalid")]
    assert wrong == [name]
    assert "typed@before" in answer.text
    assert board.state(id) == "dead"


def test_schedule_is_run_paused_and_resumed(board: Board) -> None:
    async def store() -> None:
        await board.jobs.schedules.upsert("report:a", board.greet, every=3600, args=["x"])

    board.call(store)
    ran = board.post("schedules/report:a/run")
    assert ran.headers["location"].startswith("../../jobs/")
    assert ran.headers["location"].endswith("?said=ran")
    paused = board.post("schedules/report:a/pause", {"back": "list"})
    assert paused.headers["location"] == "../../schedules?said=schedule-paused"
    assert "paused" in text_of(board.get("schedules"))
    resumed = board.post("schedules/report:a/resume")
    assert resumed.headers["location"] == "../../schedules/report:a?said=schedule-resumed"
    assert board.post("schedules/nope/run").status_code == 404


def test_form_that_is_sent_twice_acts_once(board: Board) -> None:
    async def store() -> None:
        await board.jobs.schedules.upsert("s", board.greet, every=3600, args=["x"])

    board.call(store)

    def token() -> dict[str, str]:
        tags = tags_of(board.get("schedules/s"))
        values = {a["value"] or "" for tag, a in tags if tag == "input" and a.get("name") == "once"}
        (value,) = values
        return {"once": value}

    opened = token()
    first, second = board.post("schedules/s/run", opened), board.post("schedules/s/run", opened)
    assert first.headers["location"] == second.headers["location"]
    assert [one[1] for one in board.audited()] == ["schedules.run_now"]
    # Another form of the page, and the same form of the page when it is opened again, act.
    assert board.post("schedules/s/pause", opened).status_code == 303
    assert board.post("schedules/s/run", token()).headers["location"] != first.headers["location"]
    assert len(board.audited()) == 3


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each form reach a process that has not seen the one before."""

    async def answer(
        self: SentForms, name: str | None, act: Callable[[], Coroutine[Any, Any, Response]]
    ) -> Response:
        return await act()

    monkeypatch.setattr(SentForms, "answer", answer)


@pytest.mark.usefixtures("forgetful")
def test_form_that_is_sent_to_two_processes_runs_a_schedule_once(board: Board) -> None:

    async def store() -> None:
        await board.jobs.schedules.upsert("s", board.greet, every=3600, args=["x"])

    board.call(store)
    fields = hidden(board.get("schedules/s"))
    ran = board.post("schedules/s/run", fields)
    again = board.post("schedules/s/run", fields)
    assert ran.headers["location"].endswith("said=ran")
    assert again.headers["location"] == "../../audit?said=acted-already"
    assert "acts once" in text_of(board.get("audit?said=acted-already"))
    assert [entry[1:] for entry in board.audited()] == [("schedules.run_now", "s", 1)]
    # A page that is opened again has another form.
    assert (
        board.post("schedules/s/run", hidden(board.get("schedules/s")))
        .headers["location"]
        .endswith("said=ran")
    )


@pytest.mark.usefixtures("forgetful")
def test_form_that_is_sent_to_two_processes_tests_one_letter(board: Board) -> None:
    for _ in range(3):
        board.dead()

    async def group() -> str:
        (found,) = (await board.jobs.dead_letters.groups()).items
        return found.fingerprint

    name = board.call(group)
    fields = hidden(board.get(f"dead?group={name}"))
    board.post("queues/mail/pause")
    tested = board.post(f"dead/{name}/test", fields)
    again = board.post(f"dead/{name}/test", fields)
    assert "test=" in tested.headers["location"]
    assert again.headers["location"].endswith("audit?said=acted-already")
    acts = [entry[1] for entry in board.audited()]
    assert acts.count("dead_letters.replay") == 1


@pytest.mark.usefixtures("forgetful")
def test_form_that_failed_may_be_sent_to_another_process(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = board.waiting()
    fields = {"once": "t"}

    async def fail(*_: object, **__: object) -> None:
        raise StoreBusy("another process held the write lock for 5 s")

    with monkeypatch.context() as patch:
        patch.setattr(SqliteJobs, "cancel", fail)
        assert board.post(f"jobs/{id}/cancel", fields).status_code == 503
    assert board.post(f"jobs/{id}/cancel", fields).status_code == 303
    assert board.state(id) == "cancelled"


def test_forms_that_come_at_once_get_one_answer_and_a_failed_one_may_be_sent_again(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = board.waiting()
    begun, release = asyncio.Event(), asyncio.Event()
    cancel, calls = SqliteJobs.cancel, 0

    async def fail_once(self: SqliteJobs, id: str, *, now: int) -> JobRow | None:
        nonlocal calls
        calls += 1
        if calls > 1:
            return await cancel(self, id, now=now)
        begun.set()
        await release.wait()
        raise StoreBusy("another process held the write lock for 5 s")

    async def both() -> list[int]:
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(board.app), headers=SAME
        ) as ask:
            address = f"http://localhost{ROOT}/jobs/{id}/cancel"
            first = asyncio.ensure_future(ask.post(address, data={"once": "t"}))
            await begun.wait()
            second = asyncio.ensure_future(ask.post(address, data={"once": "t"}))
            release.set()
            answers = [(await first).status_code, (await second).status_code]
            return [*answers, (await ask.post(address, data={"once": "t"})).status_code]

    monkeypatch.setattr(SqliteJobs, "cancel", fail_once)
    assert board.call(both) == [503, 503, 303]
    assert (calls, board.state(id)) == (2, "cancelled")


def test_schedule_whose_key_is_held_makes_no_job_and_says_so(board: Board) -> None:
    async def store() -> None:
        once = board.greet.options(key="one")
        await board.jobs.schedules.upsert("s", once, every=3600, args=["x"])

    board.call(store)
    held = board.waiting(key="one")
    ran = board.post("schedules/s/run")
    assert ran.headers["location"] == f"../../jobs/{held}?said=ran-kept"
    page = text_of(board.get(f"jobs/{held}?said=ran-kept"))
    assert "The schedule has made no job: this one has its key and is not finished." in page
    assert board.audited() == [("unknown", "schedules.run_now", "s", 0)]
    assert "no effect" in text_of(board.get("audit"))


def test_queue_is_paused_and_resumed(board: Board) -> None:
    assert board.post("queues/mail/pause").headers["location"] == "../../queues?said=paused"
    assert re.search(r"mail ?paused", text_of(board.get("")))
    assert "Resume" in text_of(board.get("queues"))
    assert board.post("queues/mail/resume").status_code == 303
    assert board.post("queues/nope/pause").status_code == 404


def test_every_change_is_in_the_audit_log(board: Board) -> None:
    async def store() -> None:
        await board.jobs.schedules.upsert("s", board.greet, every=3600, args=["x"])

    board.call(store)
    waiting, letter, other = board.waiting(), board.dead(), board.dead()
    third = board.dead()
    expected = [
        ("run", f"jobs/{waiting}/run", "reschedule", waiting),
        ("cancel", f"jobs/{waiting}/cancel", "cancel", waiting),
        ("replay", f"jobs/{letter}/replay", "dead_letters.replay", letter),
        ("edit", f"jobs/{other}/edit", "dead_letters.replay_edited", other),
        ("delete", f"jobs/{third}/delete", "dead_letters.delete", third),
        ("run now", "schedules/s/run", "schedules.run_now", "s"),
        ("pause", "schedules/s/pause", "schedules.pause", "s"),
        ("resume", "schedules/s/resume", "schedules.resume", "s"),
        ("pause", "queues/mail/pause", "queues.pause", "mail"),
        ("resume", "queues/mail/resume", "queues.resume", "mail"),
    ]
    board.post("queues/default/pause")
    for name, path, _, _ in expected:
        fields = {"arg.email": "a@b"} if name == "edit" else {}
        assert board.post(path, fields).status_code == 303, path
    assert board.audited()[1:] == [
        ("unknown", action, target, 1) for _, _, action, target in expected
    ]
    assert board.post(f"jobs/{third}/delete").status_code == 404
    assert board.audited()[-1] == ("unknown", "dead_letters.delete", third, 0)


def test_busy_store_is_a_page_with_a_next_step(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cancel(self: object, id: str, *, now: int) -> None:
        raise StoreBusy("another process held the write lock for 5 s")

    id = board.waiting()
    monkeypatch.setattr(SqliteJobs, "cancel", cancel)
    answer = board.post(f"jobs/{id}/cancel")
    assert answer.status_code == 503
    assert "Nothing was changed: try again" in text_of(answer)
    assert "another process held the write lock" in text_of(answer)


def test_bug_of_a_page_is_a_page_and_its_traceback_is_logged(
    board: Board, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def get(self: object, id: str) -> None:
        raise ZeroDivisionError(CANARY)

    monkeypatch.setattr(SqliteJobs, "get", get)
    answer = board.get(f"jobs/{NOBODY}")
    assert answer.status_code == 500
    assert CANARY not in answer.text
    assert CANARY in caplog.text


def test_body_that_is_no_form_is_refused(board: Board) -> None:
    headers = {"Content-Type": "application/json"}
    answer = board.client.post("/jobs/ui/jobs/cancel", content=b"{}", headers=headers)
    assert answer.status_code == 415
    assert board.client.post("/jobs/ui/jobs/cancel", content=b"id=%ff").status_code == 415
    assert board.client.post("/jobs/ui/zone", content=b"a=" + b"x" * (5 << 20)).status_code == 413


async def test_form_that_was_refused_acts_again_when_it_is_corrected_elsewhere() -> None:
    answers = [422, 303, 500]

    async def act() -> Response:
        return Response(status_code=answers.pop(0))

    sent, form = SentForms(), Form((("once", "t"), ("text", "x" * 1_000_000)))
    codes = [(await sent.answer(name_of("/edit", form), act)).status_code for _ in range(3)]
    assert codes == [422, 303, 303]
    assert answers == [500]


async def test_remembered_forms_take_little_memory() -> None:
    async def act() -> Response:
        return Response(status_code=303)

    sent = SentForms()
    tracemalloc.start()
    try:
        for number in range(20):
            name = name_of("/edit", Form((("once", str(number)), ("text", "x" * 1_000_000))))
            await sent.answer(name, act)
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


async def test_forms_that_are_refused_together_are_all_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sent_forms, "MOST_KEPT", 1)
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    sent = SentForms()

    async def refuse() -> Response:
        return Response(status_code=422)

    forms = [Form((("once", str(number)),)) for number in range(5)]
    await asyncio.gather(*(sent.answer(name_of("/dead", form), refuse) for form in forms))
    assert errors == []
    assert sent._answers == {}
