"""Commands that read and change jobs, on a file that is in use and on one that is not."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from jobrunner import JobContext, JobRunner, Retry
from jobrunner.fastapi.api.dead_letter_schemas import (
    DeadLetterBody,
    DeadLetterGroupBody,
    DeadLetterPageBody,
    DeadLetterSummaryBody,
)
from jobrunner.fastapi.api.health_schemas import WorkerBody
from jobrunner.fastapi.api.job_schemas import (
    AttemptBody,
    JobArgumentsBody,
    JobDetailBody,
    JobPageBody,
    JobSummaryBody,
)
from jobrunner.fastapi.api.queue_schemas import QueueBody, QueuesBody
from jobrunner.fastapi.api.stats_schemas import StatsBody, StatsBucketBody
from tests.cli.commands import APP, RUNNER, jobrunner, worker
from tests.cli.conftest import Stored
from tests.cli.service import hold, tasks
from tests.support.engine import Heard, soon
from tests.support.processes import CHECKOUT, PATIENCE_S

NO_ID = "01936d2c-7a40-7c3e-9d55-6f0c1d2e3f4a"


# -- on a stopped file -----------------------------------------------------------------------------


async def test_status_of_a_stopped_store_shows_queues_and_dead_letters(stored: Stored) -> None:
    answer = await jobrunner("status", "--store", stored.path, "--json")
    assert answer.code == 0
    assert answer.json["store"] == str(stored.path)
    assert [(q["name"], q["scheduled"]) for q in answer.json["queues"]] == [("mail", 1)]
    assert (answer.json["workers"], answer.json["dead_letters"]) == ([], 3)
    text = await jobrunner("status", "--store", stored.path)
    assert f"store: {stored.path}" in text.out
    assert "dead letters: 3" in text.out


async def test_stats_of_a_stopped_store_show_what_has_ended(stored: Stored) -> None:
    answer = await jobrunner("stats", "--store", stored.path, "--by", "task", "--json")
    assert answer.code == 0
    total = answer.json["total"]
    assert (total["succeeded"], total["dead"]) == (1, 3)
    assert 0 < total["run_p95"] < 60
    table = await jobrunner("stats", "--store", stored.path, "--per", "hour", "--since", "2d")
    head, *rows = (line.split("\t") for line in table.out.splitlines())
    assert head == [
        *("start", "succeeded", "failed", "dead"),
        *("wait p50", "wait p95", "run p50", "run p95"),
    ]
    assert [row[:4] for row in rows[-1:]] == [["total", "1", str(total["failed"]), "3"]]
    assert all(cell.endswith(" s") for cell in rows[-1][4:])
    refused = await jobrunner("stats", "--store", stored.path, "--since", "2d")
    assert refused.code == 2
    assert "minutes are kept for 6 hours" in refused.err


@pytest.mark.parametrize("place", ["url", "path", "variable", "app", "runner"])
async def test_store_is_found_by_url_path_variable_app_or_runner(
    stored: Stored, place: str
) -> None:
    words, variables = {
        "url": (["--store", f"sqlite:///{stored.path}"], {}),
        "path": (["--store", str(stored.path)], {}),
        "variable": ([], {"JOBRUNNER_STORE": str(stored.path)}),
        "app": (["--app", APP, "--factory"], stored.env),
        "runner": (["--app", RUNNER, "--factory"], stored.env),
    }[place]
    answer = await jobrunner("queues", "list", *words, env=variables)
    assert answer.code == 0, answer.err
    names = [row["queue"] for row in answer.rows]
    # An application knows its queues; a file alone knows those that hold something.
    assert names == (["default", "mail"] if place in ("app", "runner") else ["mail"])


async def test_program_s_own_application_is_not_loaded_for_a_store_that_is_named(
    stored: Stored, tmp_path: Path
) -> None:
    program = "from jobrunner.cli import main; main('tests.cli.service:break_down', factory=True)"
    ours = [sys.executable, "-c", program, "backup", str(tmp_path / "b.db")]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    named = await asyncio.to_thread(
        subprocess.run, [*ours, "--store", str(stored.path)], cwd=CHECKOUT, env=env, check=False
    )
    own = await asyncio.to_thread(subprocess.run, ours, cwd=CHECKOUT, env=env, check=False)
    assert (named.returncode, own.returncode) == (0, 7)


async def test_jobs_are_listed_by_filter_and_page(stored: Stored) -> None:
    at = ("--store", stored.path)
    everything = await jobrunner("jobs", "list", *at)
    assert [row["id"] for row in everything.rows] == [stored.waiting, stored.done]
    tagged = await jobrunner("jobs", "list", "--tag", "vip", "--since", "1h", "--json", *at)
    assert [item["id"] for item in tagged.json["items"]] == [stored.done]
    assert "args" not in tagged.json["items"][0]
    first = await jobrunner("jobs", "list", "--limit", "1", "--json", *at)
    cursor = first.json["next_cursor"]
    second = await jobrunner("jobs", "list", "--limit", "1", "--cursor", cursor, "--json", *at)
    assert [item["id"] for item in second.json["items"]] == [stored.done]
    assert second.json["next_cursor"] is None


async def test_jobs_that_wait_for_a_retry_are_listed_and_made_due(stored: Stored) -> None:
    at = ("--store", stored.path)
    runner = JobRunner(stored.path)

    @runner.task(max_attempts=3)
    async def try_again() -> None:
        raise Retry(delay=3600)

    async with runner.running():
        heard = Heard(runner)
        failed = await runner.enqueue(try_again)
        await soon(heard.retries.get())
    retrying = ("jobs", "list", "--state", "retrying")
    (row,) = (await jobrunner(*retrying, *at)).rows
    assert (row["id"], row["state"], row["attempt"]) == (failed.id, "scheduled", "1")
    (item,) = (await jobrunner(*retrying, "--json", *at)).json["items"]
    assert item["id"] == failed.id
    assert (await jobrunner(*retrying, "--queue", "mail", *at)).rows == []
    due = ("jobs", "reschedule", "--state", "retrying", "--in", "0s", "--yes")
    assert (await jobrunner(*due, *at)).out == "1 rescheduled\n"
    assert (await jobrunner(*retrying, *at)).rows == []


async def test_job_is_shown_with_its_attempts(stored: Stored) -> None:
    answer = await jobrunner("jobs", "show", stored.done, "--store", stored.path, "--json")
    assert (answer.json["task"], answer.json["state"]) == ("greet", "succeeded")
    (attempt,) = answer.json["history"]
    assert (attempt["outcome"], type(attempt["worker"])) == ("succeeded", str)
    text = await jobrunner("jobs", "show", stored.dead[0], "--store", stored.path)
    assert "RuntimeError: no to 0" in text.out


async def test_cancel_ends_a_waiting_job_and_refuses_one_that_has_ended(stored: Stored) -> None:
    at = ("--store", stored.path)
    answer = await jobrunner("jobs", "cancel", stored.waiting, *at)
    assert (answer.code, answer.out) == (0, "cancelled\n")
    again = await jobrunner("jobs", "cancel", stored.waiting, "--json", *at)
    assert (again.code, again.json["status"], again.json["state"]) == (5, None, "cancelled")
    assert (await jobrunner("jobs", "cancel", NO_ID, *at)).code == 4


async def test_unfinished_jobs_are_counted_first_then_cancelled_by_filter(stored: Stored) -> None:
    at = ("--store", stored.path)
    runner = JobRunner(stored.path, queues={"default": 1, "mail": 1})
    runner.include(tasks)
    async with runner.running(work=False):
        for _ in range(2):
            await runner.enqueue(hold.options(tag="t"))
    some = ("jobs", "cancel", "--tag", "t", "--state", "queued")
    dry = await jobrunner(*some, "--dry-run", "--json", *at)
    assert dry.json == {"would": "cancel", "cancelled": 2, "requested": 0}
    in_words = await jobrunner("jobs", "cancel", "--all", "--dry-run", *at)
    assert in_words.out == "would cancel 3 waiting and 0 running job(s)\n"
    unasked = await jobrunner(*some, *at)
    assert (unasked.code, "add --yes" in unasked.err) == (2, True)
    assert len((await jobrunner("jobs", "list", "--state", "queued", *at)).rows) == 2
    done = await jobrunner(*some, "--yes", "--json", *at)
    assert done.json == {"cancelled": 2, "requested": 0}
    rest = await jobrunner("jobs", "cancel", "--all", "--yes", *at)
    assert (rest.code, rest.out) == (0, "1 cancelled\n")
    assert (await jobrunner("jobs", "cancel", "--all", *at)).out == "0 cancelled\n"


async def test_waiting_job_is_rescheduled(stored: Stored) -> None:
    at = ("--store", stored.path)
    again = ("jobs", "reschedule", stored.waiting)
    moved = await jobrunner(*again, "--at", "2100-01-01T01:00:00+01:00", "--json", *at)
    assert (moved.json["state"], moved.json["run_at"]) == ("scheduled", "2100-01-01T00:00:00Z")
    now = await jobrunner(*again, "--in", "0s", *at)
    assert now.out.startswith("queued, due at 20")
    shown = await jobrunner("jobs", "show", stored.waiting, "--json", *at)
    assert shown.json["state"] == "queued"
    refused = await jobrunner("jobs", "reschedule", stored.done, "--in", "1h", *at)
    assert (refused.code, "it is succeeded" in refused.err) == (5, True)
    letter = await jobrunner("jobs", "reschedule", stored.dead[0], "--in", "1h", *at)
    assert (letter.code, "replay" in letter.err) == (5, True)
    assert (await jobrunner("jobs", "reschedule", NO_ID, "--in", "1h", *at)).code == 4


async def test_waiting_jobs_are_counted_first_then_rescheduled_by_filter(stored: Stored) -> None:
    at = ("--store", stored.path)
    runner = JobRunner(stored.path, queues={"default": 1, "mail": 1})
    runner.include(tasks)
    async with runner.running(work=False):
        for _ in range(2):
            await runner.enqueue(hold.options(tag="t", delay=3600))
        await runner.enqueue(hold.options(tag="t", delay=60, expires=120))
    some = ("jobs", "reschedule", "--tag", "t", "--state", "scheduled")
    dry = await jobrunner(*some, "--in", "2h", "--dry-run", "--json", *at)
    assert dry.json == {"would": "reschedule", "rescheduled": 2, "expiring": 1}
    in_words = await jobrunner(*some, "--in", "2h", "--dry-run", *at)
    assert in_words.out == "would reschedule 2 job(s); 1 would expire before\n"
    unasked = await jobrunner(*some, "--in", "0s", *at)
    assert (unasked.code, "add --yes" in unasked.err) == (2, True)
    assert (await jobrunner("jobs", "list", "--state", "queued", *at)).rows == []
    done = await jobrunner(*some, "--in", "0s", "--yes", "--json", *at)
    assert done.json == {"rescheduled": 3, "expiring": 0}
    assert len((await jobrunner("jobs", "list", "--state", "queued", *at)).rows) == 3
    rest = await jobrunner("jobs", "reschedule", "--all", "--in", "0s", "--yes", *at)
    assert (rest.code, rest.out) == (0, "4 rescheduled\n")
    retrying = ("jobs", "reschedule", "--state", "retrying", "--in", "0s")
    assert (await jobrunner(*retrying, *at)).out == "0 rescheduled\n"


async def test_chain_is_listed_shown_and_counted_by_its_blocked_jobs(stored: Stored) -> None:
    at = ("--store", stored.path)
    runner = JobRunner(stored.path, queues={"default": 1, "mail": 1})
    runner.include(tasks)
    async with runner.running(work=False):
        chain = await runner.enqueue_chain([hold.options(delay=3600).call(), hold.call()])
    first, second = (job.id for job in chain)
    answer = await jobrunner("jobs", "list", "--state", "blocked", *at)
    assert [(row["id"], row["after"]) for row in answer.rows] == [(second, first)]
    shown = await jobrunner("jobs", "show", second, "--json", *at)
    assert (shown.json["state"], shown.json["chain"], shown.json["after"]) == (
        "blocked",
        first,
        first,
    )
    text = await jobrunner("jobs", "show", second, *at)
    assert f"after       {first}" in text.out
    queues = await jobrunner("queues", "list", *at)
    counted = {row["queue"]: (row["scheduled"], row["blocked"]) for row in queues.rows}
    assert counted == {"default": ("1", "1"), "mail": ("1", "0")}
    status = await jobrunner("status", "--json", *at)
    assert {q["name"]: q["blocked"] for q in status.json["queues"]} == {"default": 1, "mail": 0}
    assert (await jobrunner("jobs", "cancel", first, *at)).code == 0
    shown = await jobrunner("jobs", "show", second, "--json", *at)
    assert shown.json["state"] == "cancelled"


async def test_dead_letters_are_listed_and_shown_whole(stored: Stored) -> None:
    at = ("--store", stored.path)
    answer = await jobrunner("dead", "list", "--task", "fail", "--reason", "exhausted", *at)
    assert [row["id"] for row in answer.rows] == list(reversed(stored.dead))
    assert answer.rows[0]["error"] == "RuntimeError: no to 2"
    shown = await jobrunner("dead", "show", stored.dead[1], "--json", *at)
    assert (shown.json["args"], shown.json["reason"]) == ({"number": 1}, "exhausted")
    assert "raise RuntimeError" in shown.json["traceback"]
    assert (await jobrunner("dead", "show", stored.done, *at)).code == 4


async def test_groups_of_dead_letters_are_shown_and_are_a_filter(stored: Stored) -> None:
    at = ("--store", stored.path)
    (row,) = (await jobrunner("dead", "groups", *at)).rows
    assert (row["task"], row["count"], row["last 24 h"], row["retrying"]) == ("fail", "3", "3", "0")
    assert row["error"] == "RuntimeError: no to 2"
    answer = (await jobrunner("dead", "groups", "--json", *at)).json
    assert (answer["ungrouped"], answer["complete"]) == (0, True)
    (group,) = answer["items"]
    assert group.keys() == DeadLetterGroupBody.model_fields.keys()
    assert (group["fingerprint"], group["newest_id"]) == (row["group"], stored.dead[2])
    where = ("--group", row["group"])
    listed = await jobrunner("dead", "list", *where, *at)
    assert [row["id"] for row in listed.rows] == list(reversed(stored.dead))
    assert (await jobrunner("dead", "list", "--group", "0" * 16, *at)).rows == []
    assert (await jobrunner("dead", "replay", *where, "--json", *at)).json == {
        "replayed": 3,
        "conflicts": 0,
        "invalid": 0,
        "checked": 0,
        "left": 0,
    }
    assert (await jobrunner("dead", "groups", *at)).rows == []


async def test_dead_letters_are_counted_first_then_replayed_by_filter(stored: Stored) -> None:
    at = ("--store", stored.path)
    counted = await jobrunner("dead", "replay", "--task", "fail", "--dry-run", "--json", *at)
    assert counted.json == {
        "would": "replay",
        "count": 3,
        "conflicts": 0,
        "invalid": 0,
        "checked": 0,
    }
    assert len((await jobrunner("jobs", "list", "--state", "dead", *at)).rows) == 3
    assert (await jobrunner("dead", "replay", "--task", "fail", "--json", *at)).json == {
        "replayed": 3,
        "conflicts": 0,
        "invalid": 0,
        "checked": 0,
        "left": 0,
    }
    assert (await jobrunner("dead", "list", *at)).rows == []
    assert (await jobrunner("jobs", "list", "--state", "dead", *at)).rows == []
    assert len((await jobrunner("jobs", "list", "--state", "queued", *at)).rows) == 3


async def test_dead_letters_are_replayed_at_a_pace(stored: Stored) -> None:
    at = ("--store", stored.path)
    paced = await jobrunner("dead", "replay", "--all", "--per-minute", "1", *at)
    assert (paced.code, paced.out) == (0, "3 replayed\n")
    states = [
        (await jobrunner("jobs", "show", id, "--json", *at)).json["state"] for id in stored.dead
    ]
    assert states == ["scheduled", "scheduled", "queued"]


async def test_dead_letter_is_replayed_by_id_and_with_other_arguments(stored: Stored) -> None:
    at = ("--store", stored.path)
    answer = await jobrunner("dead", "replay", stored.dead[0], "--json", *at)
    assert answer.json == {"id": stored.dead[0], "replayed": 1}

    edited = ("dead", "replay", stored.dead[1], "--args", '{"number": 9}', "--json")
    refused = await jobrunner(*edited, *at)
    assert (refused.code, "--app" in refused.err) == (7, True)
    app = ("--app", APP, "--factory")
    new = await jobrunner(*edited, *app, env=stored.env)
    shown = await jobrunner("jobs", "show", new.json["id"], "--json", *at)
    assert shown.json["replay_of"] == stored.dead[1]

    wrong = await jobrunner(
        "dead", "replay", stored.dead[2], "--args", '{"nr": 1}', *app, env=stored.env
    )
    assert (wrong.code, "nr" in wrong.err) == (2, True)
    again = await jobrunner(*edited, *app, env=stored.env)
    assert again.code == 5


async def test_dead_letters_are_deleted_by_id_and_all(stored: Stored) -> None:
    at = ("--store", stored.path)
    assert (await jobrunner("dead", "delete", stored.dead[0], *at)).out == "deleted\n"
    assert (await jobrunner("dead", "delete", stored.dead[0], *at)).code == 4
    dry = await jobrunner("dead", "delete", "--all", "--dry-run", *at)
    assert dry.out == "would delete 2 dead letter(s)\n"
    for which in (("--all",), ("--task", "fail")):
        unasked = await jobrunner("dead", "delete", *which, *at)
        assert (unasked.code, "add --yes" in unasked.err) == (2, True)
    many = ("dead", "delete", "--all", "--yes", "--json", *at)
    assert (await jobrunner(*many)).json["deleted"] == 2
    assert (await jobrunner("dead", "delete", "--all", *at)).out == "0 deleted\n"
    assert (await jobrunner("jobs", "show", stored.dead[1], *at)).code == 4


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("dead", "replay"), "say which"),
        (("dead", "delete", NO_ID, "--all"), "not both"),
        (("dead", "replay", "--all", "--args", "{}"), "give its id"),
        (("dead", "replay", NO_ID, "--args", "[]"), "takes an object"),
        (("dead", "replay", NO_ID, "--per-minute", "5"), "give a filter"),
        (("jobs", "cancel"), "say which"),
        (("jobs", "cancel", NO_ID, "--all"), "not both"),
        (("jobs", "cancel", NO_ID, "--dry-run"), "for many jobs"),
        (("jobs", "reschedule", NO_ID), "say when"),
        (("jobs", "reschedule", "--in", "1h"), "say which"),
        (("jobs", "reschedule", NO_ID, "--all", "--in", "1h"), "not both"),
        (("jobs", "reschedule", NO_ID, "--dry-run", "--in", "1h"), "for many jobs"),
        (("jobs", "reschedule", NO_ID, "--in", "1h", "--at", "2026-11-22T08:00Z"), "say when"),
        (("jobs", "reschedule", NO_ID, "--in", "soon"), "is not a duration"),
        (("jobs", "reschedule", NO_ID, "--in", f"{'9' * 20}w"), "too long"),
        (("jobs", "reschedule", NO_ID, "--at", "24h"), "is not a time"),
        (("jobs", "list", "--since", "yesterday"), "is not a time"),
        (("jobs", "list", "--since", "2026-11-22T08:00"), "no time zone"),
        (("status",), "--store sqlite:///shop.db"),
        (("worker",), "name the application"),
        (("jobs", "list", "--tag", "\udcff"), "is not UTF-8"),
    ],
    ids=ascii,
)
async def test_command_line_that_means_nothing_is_refused_with_what_to_write(
    stored: Stored, words: tuple[str, ...], hint: str
) -> None:
    at = () if words[0] in ("status", "worker") else ("--store", stored.path)
    answer = await jobrunner(*words, *at)
    assert (answer.code, hint in answer.err) == (2, True), answer.err


async def test_queue_is_paused_and_resumed_and_an_unknown_one_refused(stored: Stored) -> None:
    at = ("--store", stored.path)
    assert (await jobrunner("queues", "pause", "mail", *at)).out == "mail is paused\n"
    (row,) = (await jobrunner("queues", "list", *at)).rows
    assert (row["queue"], row["paused"]) == ("mail", "yes")
    assert (await jobrunner("queues", "resume", "mail", "--json", *at)).json["paused"] is False
    typo = await jobrunner("queues", "pause", "mial", *at)
    assert (typo.code, "known: mail" in typo.err) == (4, True)


# -- on a file in use --------------------------------------------------------------------------------


async def test_commands_steer_a_worker_that_runs(stored: Stored) -> None:
    at = ("--store", stored.path)
    async with worker(stored.path, "--queue", "mail=7", "--queue", "default") as running:
        replayed = await jobrunner("dead", "replay", stored.dead[0], *at)
        assert replayed.code == 0
        await until_dead(stored.path, stored.dead[0])
        status = await jobrunner("status", "--json", *at)
        (one,) = status.json["workers"]
        assert (one["pid"], one["queues"]) == (running.pid, {"mail": 7, "default": 3})
        paused = await jobrunner("queues", "pause", "mail", *at)
        assert paused.code == 0
        assert (await jobrunner("jobs", "cancel", stored.waiting, *at)).code == 0
        assert (await jobrunner("doctor", *at)).code == 0


async def until_dead(path: Path, id: str) -> None:
    """Wait until a worker has made a job a dead letter."""
    async with asyncio.timeout(PATIENCE_S):
        while id not in {
            row["id"] for row in (await jobrunner("dead", "list", "--store", path)).rows
        }:
            pass


async def test_command_on_a_running_job_s_store_takes_nothing_from_a_dead_worker(
    tmp_db: Path,
) -> None:
    # Without the application nobody can tell whether the job may run again: max_attempts is the task's.
    async with worker(tmp_db) as running:
        await running_hold(tmp_db)
        await running.heard("held")
        await running.kill()
    answer = await jobrunner("jobs", "list", "--store", tmp_db, "--json")
    assert [item["state"] for item in answer.json["items"]] == ["running"]
    findings = (await jobrunner("doctor", "--store", tmp_db, "--json")).json["findings"]
    warnings = {one["about"] for one in findings if one["level"] == "warning"}
    assert warnings - {"SQLite"} == {"orphans"}


async def running_hold(path: Path) -> None:
    """Enqueue a job that goes on for ever."""
    runner = JobRunner(path, queues={"default": 1, "mail": 1})
    runner.include(tasks)
    async with runner.running(work=False):
        await runner.enqueue(hold)


# -- what cannot be opened -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["missing", "text", "other", "empty"])
async def test_store_that_is_none_is_refused_and_left_as_it_is(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "some.db"
    if kind == "text":
        path.write_text("not a database, but long enough to be taken for one" * 20)
    elif kind == "empty":
        path.touch()
    elif kind == "other":
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE mine (x)")
        other.close()
    before = path.read_bytes() if path.exists() else None
    answer = await jobrunner("status", "--store", path)
    assert answer.code == 6
    assert answer.err.startswith("Error: ")
    assert "Traceback" not in answer.err
    assert (path.read_bytes() if path.exists() else None) == before
    assert not path.with_name("some.db-jobrunner").exists()


@pytest.mark.parametrize("kind", ["directory", "pipe", "name too long"])
@pytest.mark.parametrize("command", ["status", "doctor", "worker"])
async def test_place_where_no_store_can_be_is_refused_in_a_line(
    tmp_path: Path, kind: str, command: str
) -> None:
    path = tmp_path / ("long" * 100 if kind == "name too long" else "jobs.db")
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    words = {"worker": (RUNNER, "--factory")}.get(command, ("--store", str(path)))
    answer = await jobrunner(command, *words, env={"SERVICE_STORE": str(path)})
    assert answer.code == (8 if command == "doctor" else 6)
    assert "Traceback" not in answer.err
    if command == "doctor":
        assert answer.out.count("\nproblem ") == 1


@pytest.mark.parametrize("command", ["status", "worker", "doctor"])
async def test_A25_file_of_a_newer_version_is_refused_with_both_versions(
    stored: Stored, command: str
) -> None:
    with sqlite3.connect(stored.path) as db:
        db.execute("UPDATE jobrunner_meta SET value = 99 WHERE name = 'schema_version'")
    db.close()
    before = stored.path.read_bytes()
    words = {"worker": (RUNNER, "--factory")}.get(command, ("--store", str(stored.path)))
    answer = await jobrunner(command, *words, env=stored.env)
    assert answer.code == (8 if command == "doctor" else 6)
    said = answer.out + answer.err
    assert "the file's tables are version 99, this jobrunner knows version " in said
    assert "Traceback" not in said
    assert stored.path.read_bytes() == before


@pytest.mark.parametrize(
    ("app", "factory", "hint"),
    [
        ("nowhere:app", False, "there is no module nowhere"),
        ("tests.cli.service:nothing", False, "has no nothing"),
        ("tests.cli.service", False, "write module:name"),
        ("tests.cli.service:create_app", False, "add --factory"),
        ("tests.cli.service:create_nothing", True, "makes no JobRunner"),
        ("tests.cli.service:break_down", True, "the settings are wrong"),
    ],
)
async def test_application_that_cannot_be_loaded_is_named(
    app: str, factory: bool, hint: str
) -> None:
    answer = await jobrunner("status", "--app", app, *(["--factory"] if factory else []))
    assert (answer.code, hint in answer.err) == (7, True), answer.err


def keys(model: type[BaseModel], *without: str) -> set[str]:
    """Return the names of an answer of the HTTP API."""
    return set(model.model_fields) - set(without)


async def test_json_has_the_names_of_the_http_api(stored: Stored) -> None:
    async def ask(*words: str) -> Any:
        return (await jobrunner(*words, "--json", "--store", stored.path)).json

    async with worker(stored.path):
        async with asyncio.timeout(20):
            while not (status := await ask("status"))["workers"]:
                pass
    assert set(status) == {"store", "queues", "workers", "dead_letters", "problems"}
    assert set(status["queues"][0]) == keys(QueueBody)
    assert set(status["workers"][0]) == keys(WorkerBody)
    stats = await ask("stats")
    assert set(stats) == keys(StatsBody)
    assert set(stats["total"]) == set(stats["buckets"][0]) == keys(StatsBucketBody)
    queues = await ask("queues", "list")
    assert (set(queues), set(queues["items"][0])) == (keys(QueuesBody), keys(QueueBody))
    # Whether the call has stored the job is told to who has enqueued it.
    listed = await ask("jobs", "list")
    assert set(listed) == keys(JobPageBody)
    assert set(listed["items"][0]) == keys(JobSummaryBody)
    shown = await ask("jobs", "show", stored.done)
    assert set(shown) == keys(JobDetailBody)
    assert set(shown["history"][0]) == keys(AttemptBody)
    with_args = await ask("jobs", "show", stored.done, "--args")
    assert set(with_args) == keys(JobDetailBody) | keys(JobArgumentsBody) | {"step_values"}
    letters = await ask("dead", "list")
    assert set(letters) == keys(DeadLetterPageBody)
    assert set(letters["items"][0]) == keys(DeadLetterSummaryBody)
    letter = await ask("dead", "show", stored.dead[0])
    assert set(letter) == keys(DeadLetterBody)
    assert set(letter["history"][0]) == keys(AttemptBody)
    doctor = await ask("doctor")
    assert set(doctor) == {"store", "healthy", "findings"}
    assert set(doctor["findings"][0]) == {"level", "about", "what", "do"}


async def test_json_is_json_for_every_command_that_answers(stored: Stored) -> None:
    at = ("--store", str(stored.path))
    for words in (
        ("status",),
        ("stats",),
        ("jobs", "list"),
        ("dead", "list"),
        ("queues", "list"),
        ("doctor",),
    ):
        answer = await jobrunner(*words, "--json", *at)
        assert isinstance(json.loads(answer.out), dict), words


async def test_show_says_how_far_a_job_is(tmp_db: Path) -> None:
    runner = JobRunner(tmp_db)

    @runner.task
    async def render(job: JobContext) -> None:
        job.progress(1240, 5000, "rendering \x1b[2J")

    async with runner.running():
        job = await runner.enqueue(render)
        await job.result(timeout=15)
    at = ("--store", tmp_db)
    shown = await jobrunner("jobs", "show", job.id, *at)
    assert "progress    25 % (1,240 of 5,000): rendering \\x1b[2J\n" in shown.out
    expected = {"done": 1240, "total": 5000, "message": "rendering \x1b[2J"}
    assert (await jobrunner("jobs", "show", job.id, *at, "--json")).json["progress"] == expected
    (item,) = (await jobrunner("jobs", "list", *at, "--json")).json["items"]
    assert item["progress"] == expected
