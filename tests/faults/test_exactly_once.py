"""Rows that a job writes along with its end are there exactly once, whenever its process is killed."""

import contextlib
import itertools
import sqlite3
from pathlib import Path

import pytest

from jobrunner import JobRunner
from tests.engine import soon
from tests.faults.mortal import FORMS, make_tables, router
from tests.processes import process

DEATHS = 70
"""Per form; each at another commit, before or after it."""
COMMITS = 5
"""A worker makes about so many before it has nothing left to do."""


@pytest.mark.timeout(180)
@pytest.mark.parametrize("form", FORMS)
async def test_D2_B16_two_rows_are_written_exactly_once_at_every_kill(
    tmp_db: Path, form: str
) -> None:
    make_tables(str(tmp_db))
    boundaries = itertools.cycle(
        f"{side} {number}" for number in range(1, COMMITS + 1) for side in ("before", "after")
    )
    ledger: list[str] = []
    codes: list[int] = []
    async with process("-m", "tests.faults.mortal", str(tmp_db)) as mortals:
        await mortals.heard("ready")
        while codes.count(-9) < DEATHS:
            assert len(codes) < 3 * DEATHS, codes
            jobs = JobRunner(tmp_db)  # leaves before, so that the next worker finds the dead one
            jobs.include(router)
            async with jobs.running(work=False):
                stored = await jobs.enqueue_many(FORMS[form].call() for _ in range(3))
            ledger += [job.id for job in stored]
            mortals.send(next(boundaries))
            codes.append((await mortals.heard("died"))["code"])
        # One that lives to the end.
        mortals.send("before 1000000")
        assert (await soon(mortals.heard("died")))["code"] == 0
    with contextlib.closing(sqlite3.connect(tmp_db)) as db:
        written = dict(db.execute("SELECT job, count(*) FROM effects GROUP BY job"))
        states = dict(db.execute("SELECT id, state FROM jobrunner_jobs"))
        (counter,) = db.execute("SELECT number FROM counter").fetchone()
        (lost,) = db.execute(
            "SELECT count(*) FROM jobrunner_attempts WHERE outcome = 'lost'"
        ).fetchone()
    assert states == dict.fromkeys(ledger, "succeeded")
    assert written == dict.fromkeys(ledger, 1), "written twice, or not at all"
    assert counter == len(ledger)
    assert lost > DEATHS / 4, "hardly any attempt was killed: the deaths prove nothing"
