"""Rows that a job writes along with its end are there exactly once, whenever its process is killed."""

import contextlib
import itertools
import sqlite3
from pathlib import Path

import pytest

from jobrunner import JobRunner
from tests.faults.mortal import FORMS, make_tables, router
from tests.soak.budget import Figures, rounds
from tests.support.engine import soon
from tests.support.processes import process

COMMITS = 5
"""A worker makes about so many before it has nothing left to do."""


LEAST_ROUNDS = 2 * 2 * COMMITS
"""Twice before and twice after each of them."""


async def kill_at_commits(file: Path, form: str, *, seconds: float) -> Figures:
    """Kill a worker at one commit after another, before it or after it; then count what is written."""
    make_tables(str(file))
    boundaries = itertools.cycle(
        f"{side} {number}" for number in range(1, COMMITS + 1) for side in ("before", "after")
    )
    ledger: list[str] = []
    codes: list[int] = []
    async with process("-m", "tests.faults.mortal", str(file)) as mortals:
        await mortals.heard("ready")
        for _ in rounds(seconds, least=LEAST_ROUNDS):
            jobs = JobRunner(file)  # leaves before, so that the next worker finds the dead one
            jobs.include(router)
            async with jobs.running(work=False):
                stored = await jobs.enqueue_many(FORMS[form].call() for _ in range(3))
            ledger += [job.id for job in stored]
            mortals.send(next(boundaries))
            codes.append((await mortals.heard("died"))["code"])
        # One that lives to the end.
        mortals.send("before 1000000")
        assert (await soon(mortals.heard("died")))["code"] == 0
    with contextlib.closing(sqlite3.connect(file)) as db:
        written = dict(db.execute("SELECT job, count(*) FROM effects GROUP BY job"))
        states = dict(db.execute("SELECT id, state FROM jobrunner_jobs"))
        (counter,) = db.execute("SELECT number FROM counter").fetchone()
        (lost,) = db.execute(
            "SELECT count(*) FROM jobrunner_attempts WHERE outcome = 'lost'"
        ).fetchone()
    assert states == dict.fromkeys(ledger, "succeeded")
    assert written == dict.fromkeys(ledger, 1), "written twice, or not at all"
    assert counter == len(ledger)
    deaths = codes.count(-9)
    assert deaths > len(codes) / 3, codes
    assert lost > deaths / 4, "hardly any attempt was killed: the deaths prove nothing"
    return {"kills": deaths, "attempts lost": lost, "jobs": len(ledger), "missing or doubled": 0}


@pytest.mark.parametrize("form", FORMS)
async def test_D2_B16_two_rows_are_written_exactly_once_at_every_kill(
    tmp_db: Path, form: str, seconds: float
) -> None:
    await kill_at_commits(tmp_db, form, seconds=seconds / len(FORMS))
