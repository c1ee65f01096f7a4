"""Two live processes act on one letter or job: one does it, the other says it is done already, and both are audited."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from jobrunner import Job, JobRunner
from tests.faults.clicking import runner
from tests.support.engine import Heard, soon
from tests.support.processes import Child, process

ROUNDS = 10
NAMES = ("ada", "bob")


class Case(NamedTuple):
    """One act on a dead letter or a waiting job, as a form of the dashboard or over HTTP."""

    on: str
    path: str
    body: dict[str, Any]
    action: str
    done: tuple[int, str]
    """The status and a part of the answer of the one that acts."""
    late: tuple[int, str]
    """The same of the one that comes too late."""
    ends: str
    """The state of the job afterwards; empty if it is gone."""


CASES = {
    "replay": Case(
        *("dead", "/ui/jobs/{id}/replay", {"form": {}}, "dead_letters.replay"),
        *((303, "said=replayed"), (409, "and no dead letter any more"), "queued"),
    ),
    "edit": Case(
        *("dead", "/ui/jobs/{id}/edit", {"form": {"arg.email": "a@b.c"}}),
        *("dead_letters.replay_edited", (303, "said=replayed-edited")),
        *((409, "was replayed with other arguments"), "dead"),
    ),
    "delete": Case(
        *("dead", "/ui/jobs/{id}/delete", {"form": {}}, "dead_letters.delete"),
        *((303, "said=deleted"), (404, "no dead letter has the id"), ""),
    ),
    "cancel": Case(
        *("waiting", "/ui/jobs/{id}/cancel", {"form": {}}, "cancel"),
        *((303, "said=cancelled"), (303, "said=ended"), "cancelled"),
    ),
    "replay over HTTP": Case(
        *("dead", "/jobs/dead-letters/{id}/replay", {"json": {}}, "dead_letters.replay"),
        *((202, '"state":"queued"'), (409, "already-replayed"), "queued"),
    ),
    "cancel over HTTP": Case(
        *("waiting", "/jobs/{id}/cancel", {"json": None}, "cancel"),
        *((200, '"status":"cancelled"'), (200, '"status":null'), "cancelled"),
    ),
}


@pytest.fixture
async def jobs(tmp_db: Path) -> AsyncIterator[JobRunner]:
    jobs = runner(str(tmp_db))
    async with jobs.running(queues={"default": 3}):
        yield jobs


@pytest.fixture
async def two(jobs: JobRunner, tmp_db: Path) -> AsyncIterator[tuple[Child, Child]]:
    """Two processes with a dashboard each."""
    async with AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(
                process("-m", "tests.faults.clicking", str(tmp_db), name)
            )
            for name in NAMES
        ]
        for one in (first, second):
            await one.heard("open")
        yield first, second


async def made(jobs: JobRunner, number: int, *, dead: bool) -> list[Job[Any]]:
    """Return dead letters, whose queue is paused by then, or jobs that wait for an hour."""
    task = jobs.tasks["write_letter"]
    if not dead:
        return [await jobs.enqueue(task.options(delay=3600), "a@b.c") for _ in range(number)]
    heard = Heard(jobs)
    letters = [await jobs.enqueue(task, "nobody") for _ in range(number)]
    for _ in letters:
        await soon(heard.dead.get())
    await jobs.queues.pause("default")
    return letters


def ask(one: Child, case: Case, id: str, once: str = "") -> None:
    """Send a request; ``once`` names the rendered page that its form is of."""
    body = dict(case.body)
    if once:
        body["form"] = {**body["form"], "once": once}
    one.send(json.dumps({"path": case.path.format(id=id), **body}))


def is_answer(said: dict[str, Any], expected: tuple[int, str]) -> bool:
    status, part = expected
    return said["status"] == status and part in said["to"] + said["text"]


async def states(jobs: JobRunner) -> list[str]:
    listed = [*(await jobs.list()).items, *(await jobs.list(state="dead")).items]
    return [job.state for job in listed]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_two_operators_in_the_same_act_at_once_do_it_once(
    jobs: JobRunner, two: tuple[Child, Child], case: Case
) -> None:
    (job,) = await made(jobs, 1, dead=case.on == "dead")
    for one in two:
        one.send("pausing")
        ask(one, case, job.id)
    for one in two:
        await one.heard("acting")
    for one in two:
        one.send("go on")
    answers = [await one.heard("answered") for one in two]
    (winner,) = [n for n in (0, 1) if is_answer(answers[n], case.done)]
    assert is_answer(answers[1 - winner], case.late), answers[1 - winner]

    entries = (await jobs.audit.list()).items
    assert {(e.actor, e.action, e.target, e.count) for e in entries} == {
        (NAMES[winner], case.action, job.id, 1),
        (NAMES[1 - winner], case.action, job.id, 0),
    }
    assert len(entries) == 2
    new = ["queued"] * (case.action == "dead_letters.replay_edited")
    assert await states(jobs) == new + [case.ends] * (case.ends not in ("", "dead"))


@pytest.mark.parametrize("case", ["replay", "edit", "delete", "cancel"])
async def test_form_that_acts_in_one_process_does_not_begin_in_the_other(
    jobs: JobRunner, two: tuple[Child, Child], case: str
) -> None:
    act, (first, second) = CASES[case], two
    (job,) = await made(jobs, 1, dead=act.on == "dead")
    first.send("pausing")
    ask(first, act, job.id, "the page")
    await first.heard("acting")
    ask(second, act, job.id, "the page")
    assert (await second.heard("answered"))["to"].endswith("audit?said=acted-already")
    (entry,) = (await jobs.audit.list()).items
    assert (entry.actor, entry.count) == ("ada", None)
    first.send("go on")
    assert is_answer(await first.heard("answered"), act.done)
    (entry,) = (await jobs.audit.list()).items
    assert (entry.actor, entry.action, entry.target, entry.count) == ("ada", act.action, job.id, 1)


async def test_double_clicks_that_race_to_two_processes_replay_each_letter_once(
    jobs: JobRunner, two: tuple[Child, Child]
) -> None:
    letters = await made(jobs, ROUNDS, dead=True)
    winners = []
    for number, letter in enumerate(letters):
        for one in two if number % 2 else reversed(two):
            ask(one, CASES["replay"], letter.id, f"page {number}")
        answers = await asyncio.gather(*(one.heard("answered") for one in two))
        assert sorted(answer["to"].rpartition("=")[2] for answer in answers) == [
            "acted-already",
            "replayed",
        ]
        winners += [name for name, a in zip(NAMES, answers, strict=True) if "replayed" in a["to"]]
    entries = list(reversed((await jobs.audit.list()).items))
    assert [(e.actor, e.target, e.count) for e in entries] == [
        (name, letter.id, 1) for name, letter in zip(winners, letters, strict=True)
    ]
    assert {(await letter.refresh()).replays for letter in letters} == {1}


async def test_two_operators_who_replay_a_group_at_once_replay_each_letter_once(
    jobs: JobRunner, two: tuple[Child, Child]
) -> None:
    letters = await made(jobs, ROUNDS, dead=True)
    (group,) = (await jobs.dead_letters.groups()).items
    body = {"path": "/jobs/dead-letters/replay", "json": {"group": group.fingerprint}}
    for one in two:
        one.send("pausing")
        one.send(json.dumps(body))
    for one in two:
        await one.heard("acting")
    for one in two:
        one.send("go on")
    answers = [json.loads((await one.heard("answered"))["text"]) for one in two]
    assert sum(answer["replayed"] for answer in answers) == ROUNDS
    entries = (await jobs.audit.list()).items
    assert {entry.actor: entry.count for entry in entries} == {
        name: answer["replayed"] for name, answer in zip(NAMES, answers, strict=True)
    }
    assert {(await letter.refresh()).replays for letter in letters} == {1}
