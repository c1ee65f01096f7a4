"""Tests the forms: each is answered by 303, or by a page with the reason."""

import re

import pytest

from jobrunner.core.errors import StoreBusy
from jobrunner.store.sqlite.jobs import SqliteJobs
from tests.fastapi.dashboard.conftest import CANARY, NOBODY, Board, tags_of, text_of


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
