"""Chains when processes are killed: the end of a job and the start of the next one are one commit."""

import contextlib
import random
import sqlite3
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest

from jobrunner import JobRunner
from tests.faults import mortal
from tests.soak.budget import Figures, rounds
from tests.support.children import echo, hold_once, tasks
from tests.support.engine import next_round
from tests.support.processes import child, process

LEAST_ROUNDS = 6

LEFT_BEHIND = """
SELECT count(*) FROM jobrunner_jobs AS one WHERE state = 'blocked' AND NOT EXISTS (
    SELECT 1 FROM jobrunner_jobs AS before
    WHERE before.id = one.after AND before.state IN ('scheduled', 'queued', 'running', 'blocked')
)"""
TOO_EARLY = """
SELECT count(*) FROM jobrunner_jobs AS one JOIN jobrunner_jobs AS before ON before.id = one.after
WHERE one.state <> 'blocked' AND before.state IN ('scheduled', 'queued', 'running', 'blocked')"""


def assert_released_in_one_commit(file: Path) -> None:
    """Check the file as the killed processes left it."""
    with contextlib.closing(sqlite3.connect(file)) as conn:
        assert conn.execute(LEFT_BEHIND).fetchone() == (0,)
        assert conn.execute(TOO_EARLY).fetchone() == (0,)


def places_by_chain(lines: Iterable[str]) -> dict[str, list[int]]:
    """Return which places of each chain ran, in the order in which they did."""
    ran: dict[str, list[int]] = {}
    for line in lines:
        what, chain, *place = line.split()
        if what == "ran":
            ran.setdefault(chain, []).append(int(place[0]))
    return ran


async def kill_between_links(directory: Path, *, seed: int, seconds: float) -> Figures:
    """Kill a worker under a load of chains at random times, then run what is left."""
    file, ledger = directory / "jobs.db", directory / "ledger"
    dice = random.Random(seed)
    kills = 0
    for _ in rounds(seconds, least=LEAST_ROUNDS):
        async with child("chains", file, ledger) as victim:
            await victim.heard("open")
            assert await victim.lives(dice.uniform(0.02, 0.4))
        kills += 1
        assert_released_in_one_commit(file)

    jobs = JobRunner(file, queues={"default": 20})
    drained: list[str] = []

    @jobs.task(max_attempts=100)
    async def step(chain: str, place: int) -> None:
        drained.append(f"ran {chain} {place}")

    async with jobs.running():
        while any(
            q.queued or q.scheduled or q.running or q.blocked
            for q in (await jobs.queues.list()).items
        ):
            await next_round(jobs)
    lines = ledger.read_text().splitlines() + drained
    acked = {line.split()[1] for line in lines if line.startswith("acked")}
    assert len(acked) > 5 * LEAST_ROUNDS, "that was no load"
    ran = places_by_chain(lines)
    assert acked <= set(ran), "an acknowledged chain is lost"
    for chain, places in ran.items():
        assert set(places) == set(range(4)), f"chain {chain} was not stored whole, or stands still"
        assert all(a <= b for a, b in pairwise(places)), f"chain {chain} ran as {places}"
    return {
        "kills": kills,
        "chains acknowledged": len(acked),
        "lost, standing or out of order": 0,
        "calls left to the last process": len(drained),
    }


@pytest.mark.slow
async def test_D1_killed_at_random_times_leaves_no_chain_standing_and_none_out_of_order(
    tmp_path: Path, seed: int, seconds: float
) -> None:
    await kill_between_links(tmp_path, seed=seed, seconds=seconds)


async def test_D1_killed_at_each_commit_of_chains_releases_what_waits_in_the_commit_of_the_end(
    tmp_db: Path,
) -> None:
    deaths = 0
    async with process("-m", "tests.faults.mortal", str(tmp_db)) as mortals:
        await mortals.heard("ready")
        for boundary in (f"{side} {n}" for n in range(1, 7) for side in ("before", "after")):
            jobs = JobRunner(tmp_db)
            jobs.include(mortal.router)
            async with jobs.running(work=False):
                await jobs.enqueue_chain(mortal.link.call() for _ in range(4))
            mortals.send(boundary)
            deaths += (await mortals.heard("died"))["code"] == -9
            assert_released_in_one_commit(tmp_db)
    assert deaths > 8, "hardly any worker died at its commit"


async def test_D1_killed_under_a_job_without_attempts_left_the_next_one_runs(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)
    jobs.include(tasks)
    async with jobs.running(work=False):
        async with child("work", tmp_db) as victim:
            await victim.heard("open")
            chain = await jobs.enqueue_chain([hold_once.call("a"), echo.call("b"), echo.call("c")])
            await victim.heard("held")
            assert [(await job.refresh()).state for job in chain] == [
                "running",
                "blocked",
                "blocked",
            ]
        async with child("work", tmp_db) as heir:
            await heir.heard("open")
            assert await chain[2].result(timeout=15) == "c"
        letter = await jobs.dead_letters.get(chain[0].id)
        assert (letter.reason, letter.chain) == ("lost", chain[0].id)
        assert_released_in_one_commit(tmp_db)
