"""The audit log and redaction on the command line."""

import getpass
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from jobrunner import JobDead, JobRunner
from jobrunner.cli import audit
from jobrunner.core.redaction import REDACTED
from jobrunner.fastapi.api.audit_schemas import AuditEntryBody, AuditPageBody
from tests.cli import service
from tests.cli.commands import RUNNER, jobrunner
from tests.cli.conftest import Stored
from tests.cli.test_commands import NO_ID

BANK = "tests.cli.service:create_bank"
PASSWORD = "hunter2"  # noqa: S105 - of these tests alone
PIN = "no-4242-pin"


async def log(store: Path, *words: str) -> list[dict[str, Any]]:
    """Return the entries of the log, newest first."""
    answer = await jobrunner("audit", "--json", "--store", store, *words)
    assert answer.code == 0, answer.err
    items: list[dict[str, Any]] = answer.json["items"]
    return items


async def test_each_command_that_changes_something_has_an_entry(stored: Stored) -> None:
    first, second, third = stored.dead
    app = ("--app", RUNNER, "--factory")
    edit = ("dead", "replay", second, "--args", '{"number": 9}', *app)
    many = {"task": "fail", "queue": None, "tag": None, "reason": "exhausted"}
    acts: list[tuple[tuple[str, ...], int, str, Any, int]] = [
        (("queues", "pause", "mail"), 0, "queues.pause", "mail", 1),
        (("queues", "resume", "mail"), 0, "queues.resume", "mail", 1),
        (("queues", "pause", "mial"), 4, "queues.pause", "mial", 0),
        (
            ("limits", "set", "queue", "mail", "--concurrency", "4"),
            0,
            "limits.set",
            "queue mail",
            1,
        ),
        (("limits", "set", "queue", "mial", "--rate", "9/1s"), 4, "limits.set", "queue mial", 0),
        (("limits", "reset", "queue", "mail"), 0, "limits.reset", "queue mail", 1),
        (("limits", "reset", "queue", "mail"), 0, "limits.reset", "queue mail", 0),
        (("jobs", "reschedule", stored.waiting, "--in", "2h"), 0, "reschedule", stored.waiting, 1),
        (("jobs", "cancel", stored.waiting), 0, "cancel", stored.waiting, 1),
        (("jobs", "cancel", stored.waiting), 5, "cancel", stored.waiting, 0),
        (("dead", "replay", first), 0, "dead_letters.replay", first, 1),
        (("dead", "replay", first), 4, "dead_letters.replay", first, 0),
        (edit, 0, "dead_letters.replay_edited", second, 1),
        (edit, 5, "dead_letters.replay_edited", second, 0),
        (("dead", "delete", third), 0, "dead_letters.delete", third, 1),
        (("dead", "delete", NO_ID), 4, "dead_letters.delete", NO_ID, 0),
        (("jobs", "cancel", "--queue", "mail", "--yes"), 0, "cancel_all", {"queue": "mail"}, 0),
        (
            ("jobs", "reschedule", "--queue", "mail", "--in", "1h", "--yes"),
            0,
            "reschedule_all",
            {"queue": "mail"},
            0,
        ),
        (("dead", "replay", "--all"), 0, "dead_letters.replay_all", {}, 0),
        (
            ("dead", "delete", "--task", "fail", "--reason", "exhausted", "--yes"),
            0,
            "dead_letters.delete_all",
            {name: value for name, value in many.items() if value},
            0,
        ),
    ]
    for words, code, *_ in acts:
        answer = await jobrunner(
            *words, "--audit-reason", "it is down", "--store", stored.path, env=stored.env
        )
        assert answer.code == code, answer.err
    entries = await log(stored.path)
    for (_, _, action, meant, count), entry in zip(acts, reversed(entries), strict=True):
        assert (entry["action"], entry["count"]) == (action, count)
        assert entry["filter" if isinstance(meant, dict) else "target"] == meant
        assert entry["actor"] == f"{getpass.getuser()}@{socket.gethostname()}"
        assert entry["reason"] == "it is down"


async def test_commands_that_change_nothing_have_no_entry(stored: Stored) -> None:
    at = ("--store", stored.path)
    for words in (
        ("dead", "replay", "--all", "--dry-run"),
        ("jobs", "cancel", "--all", "--dry-run"),
        ("dead", "delete", stored.dead[0], "--dry-run"),
    ):
        assert (await jobrunner(*words, *at)).code == 0
    # Without a terminal to answer at, a delete by filter does not begin.
    assert (await jobrunner("dead", "delete", "--all", *at)).code == 2
    long = await jobrunner("queues", "pause", "mail", "--audit-reason", "r" * 501, *at)
    assert (long.code, "the reason has 501 characters" in long.err) == (2, True)
    assert await log(stored.path) == []


async def test_the_log_is_a_table_and_json_with_pages_and_filters(stored: Stored) -> None:
    at = ("--store", stored.path)
    await jobrunner("queues", "pause", "mail", *at)
    await jobrunner("queues", "resume", "mail", "--audit-reason", "one\ntwo", *at)
    page = await jobrunner("audit", "--limit", "1", *at)
    (row,) = page.rows
    assert (row["action"], row["target"], row["filter"]) == ("queues.resume", "mail", "-")
    assert (row["count"], row["reason"]) == ("1", "one two")
    cursor = page.err.split()[-1]
    (row,) = (await jobrunner("audit", "--cursor", cursor, *at)).rows
    assert row["action"] == "queues.pause"
    page = await jobrunner("audit", "--action", "queues.pause", "--json", *at)
    assert set(page.json) == set(AuditPageBody.model_fields)
    (entry,) = page.json["items"]
    assert set(entry) == set(AuditEntryBody.model_fields)
    assert await log(stored.path, "--actor", "eve") == []


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 4242")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert audit.user_at_host() == f"uid-{os.getuid()}@{socket.gethostname()}"


# -- redaction ---------------------------------------------------------------------------------------------


@pytest.fixture
async def bank(tmp_db: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """Make a dead letter with a password and a PIN; return its store and its id."""
    monkeypatch.setitem(os.environ, "SERVICE_STORE", str(tmp_db))
    runner: JobRunner = service.create_bank()
    async with runner.running():
        job = await runner.enqueue(runner.tasks["pay"], PASSWORD, {"PIN": PIN, "holder": "ada"})
        with pytest.raises(JobDead):
            await job.result(timeout=15)
    return tmp_db, job.id


async def test_commands_hide_the_names_of_the_application_or_without_it_the_default_ones(
    bank: tuple[Path, str],
) -> None:
    store, id = bank
    shows = (
        ("jobs", "show", id, "--args"),
        ("dead", "show", id, "--json"),
        ("dead", "list", "--json"),
    )
    for words in shows:
        with_app = await jobrunner(*words, "--app", BANK, "--factory")
        assert (PIN in with_app.out, PASSWORD in with_app.out) == (False, True), words
        assert REDACTED in with_app.out
    without = await jobrunner(*shows[0], "--store", store)
    assert (PIN in without.out, PASSWORD in without.out) == (True, False)
    assert REDACTED in without.out


async def test_a_replay_with_what_was_shown_keeps_the_stored_value(bank: tuple[Path, str]) -> None:
    _, id = bank
    app = ("--app", BANK, "--factory")
    edited = '{"card": {"PIN": "[redacted]", "holder": "eve"}}'
    new = await jobrunner("dead", "replay", id, "--args", edited, "--json", *app)
    assert new.code == 0, new.err
    runner = service.create_bank()
    async with runner.running(work=False):
        payload = await runner.payload(new.json["id"])
    assert payload.args == {"password": PASSWORD, "card": {"PIN": PIN, "holder": "eve"}}


async def test_a_replay_with_the_word_where_nothing_is_stored_is_refused(
    bank: tuple[Path, str],
) -> None:
    _, id = bank
    app = ("--app", BANK, "--factory")
    edited = '{"card": {"pi-n": "[redacted]"}}'
    refused = await jobrunner("dead", "replay", id, "--args", edited, *app)
    assert (refused.code, "card.pi-n is '[redacted]'" in refused.err) == (2, True)
