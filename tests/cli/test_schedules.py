"""The commands of schedules."""

import getpass
import socket
from pathlib import Path

import pytest

from jobrunner.fastapi.api.schedule_schemas import (
    ScheduleBody,
    ScheduleSummaryBody,
    TickBody,
)
from tests.cli import service
from tests.cli.commands import RUNNER, jobrunner, worker
from tests.cli.test_audit import log

APP = ("--app", RUNNER, "--factory")


@pytest.fixture
async def scheduled(tmp_db: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Store three schedules of two tasks."""
    monkeypatch.setenv("SERVICE_STORE", str(tmp_db))
    runner = service.create_runner()
    async with runner.running(work=False):
        upsert = runner.schedules.upsert
        await upsert("greet:ada", service.greet, cron="0 8 * * 1", args=["ada"])
        await upsert("greet:eve", service.greet, every=3600, args=["eve"])
        await upsert("mail", service.send, every=60, args=[1])
    return tmp_db


async def test_schedules_are_listed_by_task_and_page(scheduled: Path) -> None:
    at = ("--store", scheduled)
    everything = await jobrunner("schedules", "list", *at)
    assert [(row["id"], row["task"], row["state"]) for row in everything.rows] == [
        ("greet:ada", "greet", "active"),
        ("greet:eve", "greet", "active"),
        ("mail", "send", "active"),
    ]
    assert "Monday" in everything.rows[0]["ticks"]
    mails = await jobrunner("schedules", "list", "--task", "send", "--json", *at)
    (mail,) = mails.json["items"]
    assert (mail["id"], mail["every"]) == ("mail", 60.0)
    assert set(mail) == set(ScheduleSummaryBody.model_fields)
    first = await jobrunner("schedules", "list", "--limit", "2", *at)
    assert len(first.rows) == 2
    rest = await jobrunner("schedules", "list", "--cursor", first.err.split()[-1], *at)
    assert [row["id"] for row in rest.rows] == ["mail"]


async def test_schedule_is_shown_with_its_arguments_and_ticks(scheduled: Path) -> None:
    at = ("--store", scheduled)
    answer = await jobrunner("schedules", "show", "greet:ada", "--json", *at)
    assert answer.code == 0, answer.err
    assert answer.json["args"] == {"name": "ada"}
    assert set(answer.json) == set(ScheduleBody.model_fields) | {"ticks"}
    text = (await jobrunner("schedules", "show", "greet:ada", *at)).out
    assert "0 8 * * 1" in text
    assert '{"name": "ada"}' in text
    missing = await jobrunner("schedules", "show", "nope", *at)
    assert (missing.code, missing.err) == (4, "Error: no schedule has the id 'nope'\n")


async def test_ticks_are_shown_newest_first_up_to_a_number(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVICE_STORE", str(tmp_db))
    runner = service.create_runner()
    async with runner.running():
        await runner.schedules.upsert("often", service.send, every=1, args=[1])
        while len(await runner.schedules.ticks("often")) < 2:
            pass
    answer = await jobrunner(
        "schedules", "show", "often", "--ticks", "2", "--json", "--store", tmp_db
    )
    newest, older = answer.json["ticks"]
    assert newest["at"] > older["at"]
    assert set(newest) == set(TickBody.model_fields)
    table = (await jobrunner("schedules", "show", "often", "--store", tmp_db)).out
    assert newest["job"] in table


async def test_run_stores_a_job_that_a_worker_runs_and_leaves_the_ticks(scheduled: Path) -> None:
    at = ("--store", scheduled)
    before = (await jobrunner("schedules", "show", "greet:ada", "--json", *at)).json
    async with worker(scheduled) as running:
        answer = await jobrunner("schedules", "run", "greet:ada", "--json", *APP)
        assert answer.code == 0, answer.err
        assert (await running.heard("greeted"))["name"] == "ada"
    assert answer.json["created"] is True
    assert (answer.json["task"], answer.json["state"]) == ("greet", "queued")
    after = (await jobrunner("schedules", "show", "greet:ada", "--json", *at)).json
    assert after["next_at"] == before["next_at"]


async def test_run_without_the_application_is_refused_with_the_option_to_add(
    scheduled: Path,
) -> None:
    answer = await jobrunner("schedules", "run", "mail", "--store", scheduled)
    assert (answer.code, "--app" in answer.err) == (7, True)
    assert await log(scheduled) == []


async def test_run_while_an_unfinished_job_has_the_key_names_that_job(
    scheduled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = service.create_runner()
    async with runner.running(work=False):
        await runner.schedules.upsert("one", service.send.options(key="k"), every=60, args=[1])
    first = await jobrunner("schedules", "run", "one", "--json", *APP)
    again = await jobrunner("schedules", "run", "one", *APP)
    assert again.code == 0
    assert again.out == f"{first.json['id']} has the key and is not finished\n"
    assert [entry["count"] for entry in await log(scheduled)] == [0, 1]


async def test_schedule_is_paused_and_resumed(scheduled: Path) -> None:
    at = ("--store", scheduled)
    assert (await jobrunner("schedules", "pause", "mail", *at)).out == "mail is paused\n"
    (row,) = (await jobrunner("schedules", "list", "--task", "send", *at)).rows
    assert (row["state"], row["next"]) == ("paused", "-")
    resumed = await jobrunner("schedules", "resume", "mail", "--json", *at)
    assert resumed.json["paused"] is False
    assert resumed.json["next_at"]
    assert "args" not in resumed.json


async def test_each_act_is_in_the_audit_log(scheduled: Path) -> None:
    at = ("--store", scheduled, "--audit-reason", "a bad day")
    acts = [
        (("pause", "mail", *at), 0, "schedules.pause", "mail", 1),
        (("resume", "mail", *at), 0, "schedules.resume", "mail", 1),
        (("pause", "nope", *at), 4, "schedules.pause", "nope", 0),
        (("run", "mail", *APP, *at[2:]), 0, "schedules.run_now", "mail", 1),
        (("run", "nope", *APP, *at[2:]), 4, "schedules.run_now", "nope", 0),
    ]
    for words, code, *_ in acts:
        answer = await jobrunner("schedules", *words)
        assert answer.code == code, answer.err
    entries = [
        (one["action"], one["target"], one["count"], one["reason"], one["actor"])
        for one in reversed(await log(scheduled))
    ]
    me = f"{getpass.getuser()}@{socket.gethostname()}"
    assert entries == [
        (action, target, count, "a bad day", me) for _, _, action, target, count in acts
    ]


async def test_sensitive_arguments_are_hidden(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVICE_STORE", str(tmp_db))
    bank = service.create_bank()
    async with bank.running(work=False):
        card = {"pin": "no-4242-pin", "holder": "ada"}
        await bank.schedules.upsert("pay", bank.tasks["pay"], every=60, args=["hunter2", card])
    app = ("--app", "tests.cli.service:create_bank", "--factory")
    for words in (app, (*app, "--json")):
        shown = await jobrunner("schedules", "show", "pay", *words)
        assert "no-4242-pin" not in shown.out
        assert "[redacted]" in shown.out
    without = await jobrunner("schedules", "show", "pay", "--store", tmp_db)
    assert "hunter2" not in without.out
