"""``kill -9`` of a worker right before and after the commit that matters to a batch, a step, a child or a cursor."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jobrunner import Batch, Job, JobRunner
from tests.faults import mortal
from tests.support.children import echo, hold_first, tasks
from tests.support.engine import soon
from tests.support.processes import child, process

SIDES = ("before", "after")
both_sides = pytest.mark.parametrize("side", SIDES)

ENDED = "SELECT count(*) FROM jobrunner_batches WHERE ended_at IS NOT NULL"
STATES = "SELECT task, state FROM jobrunner_jobs ORDER BY task, seq"


class Site:
    """A file, the ledger of what happened outside of it, and the workers that die on it."""

    def __init__(self, file: Path, ledger: Path) -> None:
        self.file = file
        self.ledger = str(ledger)
        self.jobs = JobRunner(file)
        self.jobs.include(mortal.router)
        mortal.make_tables(str(file))

    async def batch(self, *calls: Any, **callbacks: Any) -> Batch[Any]:
        async with self.jobs.running(work=False):
            return await self.jobs.enqueue_batch(list(calls), **callbacks)

    async def job(self, call: Any) -> Job[Any]:
        async with self.jobs.running(work=False):
            (job,) = await self.jobs.enqueue_many([call])
            return job

    async def killed(self, side: str, at: str) -> None:
        """Work in a process that dies at the first commit at which a statement finds something."""
        async with process("-m", "tests.faults.mortal", str(self.file)) as mortals:
            await mortals.heard("ready")
            mortals.send(f"{side} {at}")
            assert (await soon(mortals.heard("died")))["code"] == -9

    async def finished(self) -> None:
        """Work in processes until one is left without work, whatever the jobs do to the others."""
        async with process("-m", "tests.faults.mortal", str(self.file)) as mortals:
            await mortals.heard("ready")
            for _ in range(10):
                mortals.send("before 1000000")
                if (await soon(mortals.heard("died")))["code"] == 0:
                    return
        pytest.fail("each worker died")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.file)) as conn:
            return conn.execute(sql).fetchall()

    def states(self) -> dict[str, list[str]]:
        """Return the states of the jobs by task, with those of dead letters."""
        found: dict[str, list[str]] = {}
        for task, state in self.rows(STATES):
            found.setdefault(task, []).append(state)
        for (task,) in self.rows("SELECT task FROM jobrunner_dead_letters"):
            found.setdefault(task, []).append("dead")
        return found

    def told(self, word: str) -> list[str]:
        """Return the lines of the ledger that begin with a word."""
        path = Path(self.ledger)
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.split()[0] == word]

    def callbacks(self) -> Sequence[str]:
        return [*self.told("then"), *self.told("otherwise")]


@pytest.fixture
def site(tmp_db: Path, tmp_path: Path) -> Site:
    return Site(tmp_db, tmp_path / "ledger")


# -- batches ---------------------------------------------------------------------------------------


async def test_fault_1_killed_between_the_last_return_and_its_settle_the_member_runs_again(
    site: Site,
) -> None:
    await site.batch(mortal.member.call(site.ledger, 7), then=mortal.then.call(site.ledger))
    await site.killed("before", ENDED)
    assert site.told("member") == ["member 7"]
    assert site.states() == {"member": ["running"], "then": ["blocked"]}
    assert site.rows(ENDED) == [(0,)]
    await site.finished()
    assert site.told("member") == ["member 7"] * 2
    assert site.callbacks() == ["then 7"]


async def test_fault_2_killed_after_the_commit_that_lets_then_go_it_runs_once(site: Site) -> None:
    await site.batch(
        *(mortal.member.call(site.ledger, n) for n in range(3)),
        then=mortal.then.call(site.ledger),
        otherwise=mortal.otherwise.call(site.ledger),
    )
    await site.killed("after", ENDED)
    states = site.states()
    assert (states["member"], states["otherwise"]) == (["succeeded"] * 3, ["cancelled"])
    # The same commit may have claimed it.
    assert states["then"] in (["queued"], ["running"])
    await site.finished()
    assert site.callbacks() == ["then 0 1 2"]
    assert len(site.told("member")) == 3


async def test_fault_3_two_workers_killed_at_once_lose_no_member_and_then_starts_once(
    tmp_db: Path,
) -> None:
    jobs = JobRunner(tmp_db)
    jobs.include(tasks)
    async with jobs.running(work=False):
        async with (
            child("family", tmp_db, '{"default": 1}') as one,
            child("family", tmp_db, '{"default": 1}') as other,
        ):
            await one.heard("open")
            await other.heard("open")
            batch = await jobs.enqueue_batch(
                [hold_first.call("a"), hold_first.call("b")], then=echo.call("then")
            )
            held = [(await worker.heard("held"))["name"] for worker in (one, other)]
            assert sorted(held) == ["a", "b"]
            assert (await batch.refresh()).running == 2
            await asyncio.gather(one.kill(), other.kill())
        assert (await batch.refresh()).state == "running"
    async with jobs.running():
        found = await jobs.batches.get(batch.id)
        assert await soon(found.results()) == ["a", "b"]
        assert found.then is not None
        assert await soon(found.then.result()) == "then"
        assert [one.outcome for one in (await found.then.refresh()).history] == ["succeeded"]


@both_sides
async def test_fault_6_killed_as_a_member_adds_members_each_is_stored_once(
    site: Site, side: str
) -> None:
    await site.batch(mortal.grow.call(site.ledger), then=mortal.then.call(site.ledger))
    await site.killed(side, "SELECT count(*) FROM jobrunner_jobs WHERE task = 'member'")
    assert site.states()["then"] == ["blocked"]
    assert len(site.states().get("member", ())) == (0 if side == "before" else 2)
    await site.finished()
    assert len(site.told("grow")) == (2 if side == "before" else 1)
    assert sorted(set(site.told("member"))) == ["member 1", "member 2"]
    assert site.states()["member"] == ["succeeded"] * 2
    assert site.callbacks() == ["then 1 2"]


async def test_fault_10_killed_in_the_only_attempt_of_the_last_member_the_batch_fails(
    site: Site,
) -> None:
    await site.batch(
        mortal.member.call(site.ledger, 1),
        mortal.poison_once.call(site.ledger),
        then=mortal.then.call(site.ledger),
        otherwise=mortal.otherwise.call(site.ledger),
    )
    await site.finished()
    states = site.states()
    assert (states["poison_once"], states["member"], states["then"]) == (
        ["dead"],
        ["succeeded"],
        ["blocked"],
    )
    assert site.callbacks() == ["otherwise failed"]


async def test_fault_12_poisoned_member_becomes_a_dead_letter_and_the_others_succeed(
    site: Site,
) -> None:
    await site.batch(
        *(mortal.member.call(site.ledger, n) for n in range(5)),
        mortal.poison.call(site.ledger),
        then=mortal.then.call(site.ledger),
        otherwise=mortal.otherwise.call(site.ledger),
    )
    await site.finished()
    states = site.states()
    assert (states["poison"], states["member"]) == (["dead"], ["succeeded"] * 5)
    assert len(site.told("poison")) == 3
    assert site.callbacks() == ["otherwise failed"]


@both_sides
async def test_fault_14_killed_in_the_midst_of_a_cancel_another_worker_goes_on(
    site: Site, side: str
) -> None:
    later = mortal.member.options(delay=3600)
    batch = await site.batch(
        *(later.call(site.ledger, n) for n in range(600)),
        then=mortal.then.call(site.ledger),
        otherwise=mortal.otherwise.call(site.ledger),
    )
    async with site.jobs.running(work=False):
        assert await site.jobs.batches.cancel(batch.id)
    some_are = "SELECT count(*) FROM jobrunner_jobs WHERE task = 'member' AND state = 'cancelled'"
    await site.killed(side, some_are)
    ((cancelled,),) = site.rows(some_are)
    assert cancelled == (0 if side == "before" else 250)
    await site.finished()
    assert site.states()["member"] == ["cancelled"] * 600
    assert site.states()["then"] == ["cancelled"]
    assert site.callbacks() == ["otherwise cancelled"]


@both_sides
async def test_fault_33_killed_at_the_commit_of_a_session_its_batch_is_there_with_the_rows_or_not(
    site: Site, side: str
) -> None:
    await site.job(mortal.fan_out.call(site.ledger))
    await site.killed(side, "SELECT count(*) FROM jobrunner_batches")
    number = 0 if side == "before" else 1
    assert site.rows("SELECT count(*) FROM jobrunner_batches") == [(number,)]
    assert site.rows("SELECT count(*) FROM jobrunner_edges") == [(number,)]
    assert site.rows("SELECT count(*) FROM effects") == [(number,)]
    assert site.states().keys() == ({"fan_out", "member", "then"} if number else {"fan_out"})
    await site.finished()
    assert site.rows("SELECT count(*) FROM effects") == [(1,)]
    assert site.callbacks() == ["then 0 1"]
    assert site.states()["member"] == ["succeeded"] * 2


# -- steps -----------------------------------------------------------------------------------------

MEMO = "SELECT count(*) FROM jobrunner_steps WHERE kind = 'step'"


async def test_fault_21_killed_between_the_effect_of_a_step_and_its_memo_it_happens_again(
    site: Site,
) -> None:
    """At least once: the reason for a key of the effect that is the same in every run."""
    job = await site.job(mortal.charge.call(site.ledger))
    await site.killed("before", MEMO)
    assert (len(site.told("charged")), site.rows(MEMO)) == (1, [(0,)])
    await site.finished()
    first, second = site.told("charged")
    assert first != second
    async with site.jobs.running(work=False):
        assert await (await site.jobs.get(job.id)).result() == second


async def test_fault_23_killed_behind_the_memo_of_a_step_it_does_not_happen_again(
    site: Site,
) -> None:
    job = await site.job(mortal.charge.call(site.ledger))
    await site.killed("after", MEMO)
    assert (len(site.told("charged")), site.rows(MEMO)) == (1, [(1,)])
    await site.finished()
    (only,) = site.told("charged")
    async with site.jobs.running(work=False):
        found = await site.jobs.get(job.id)
        assert await found.result() == only
        assert [one.outcome for one in found.history] == ["lost", "succeeded"]


@both_sides
async def test_fault_24_killed_as_children_are_stored_they_are_stored_once(
    site: Site, side: str
) -> None:
    job = await site.job(mortal.parent.call(site.ledger))
    stored = "SELECT count(*) FROM jobrunner_batches WHERE parent IS NOT NULL"
    await site.killed(side, stored)
    if side == "before":
        assert (site.rows(stored), site.states()) == ([(0,)], {"parent": ["running"]})
    else:
        assert (site.rows(stored), site.states()["parent"]) == ([(1,)], ["blocked"])
        assert len(site.states()["member"]) == 2
    await site.finished()
    assert site.rows(stored) == [(1,)]
    assert site.states() == {"parent": ["succeeded"], "member": ["succeeded"] * 2}
    assert sorted(set(site.told("member"))) == ["member 0", "member 1"]
    async with site.jobs.running(work=False):
        assert await (await site.jobs.get(job.id)).result() == [0, 1]


@both_sides
async def test_fault_29_killed_at_a_cursor_at_most_as_many_items_come_again_as_it_stores(
    site: Site, side: str
) -> None:
    await site.job(mortal.walk.call(site.ledger))
    cursor = "SELECT count(*) FROM jobrunner_steps WHERE kind = 'cursor' AND value = '4'"
    await site.killed(side, cursor)
    assert site.told("item") == [f"item {n}" for n in range(1, 5)]
    await site.finished()
    again = [3, 4, 5, 6] if side == "before" else [5, 6]
    assert site.told("item") == [f"item {n}" for n in (1, 2, 3, 4, *again)]
