"""Rows that a job writes along with its end are there exactly once on PostgreSQL, whenever its process is killed."""

import itertools

import psycopg
import pytest

from tests.faults.postgres_mortal import FORMS, make_tables, runner
from tests.support.engine import soon
from tests.support.processes import process

COMMITS = 3
"""A worker makes so many before it has nothing left to do, at the least."""


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
async def test_two_rows_are_written_exactly_once_at_every_kill(
    postgres_url: str, form: str
) -> None:
    make_tables(postgres_url)
    boundaries = itertools.product(("before", "after"), range(1, COMMITS + 1))
    ledger: list[str] = []
    codes: list[int] = []
    async with process("-m", "tests.faults.postgres_mortal", postgres_url, form) as mortals:
        await mortals.heard("ready")
        for side, number in boundaries:
            jobs = runner(postgres_url, form)
            async with jobs.running(work=False):
                stored = await jobs.enqueue_many(FORMS[form].call() for _ in range(3))
            ledger += [job.id for job in stored]
            mortals.send(f"{side} {number}")
            codes.append((await mortals.heard("died"))["code"])
        # One that lives to the end.
        mortals.send("before 1000000")
        assert (await soon(mortals.heard("died")))["code"] == 0
    with psycopg.connect(postgres_url) as db:
        written: dict[str, int] = dict(
            db.execute("SELECT job, count(*) FROM effects GROUP BY job").fetchall()
        )
        states: dict[str, str] = dict(db.execute("SELECT id, state FROM jobrunner.jobs").fetchall())
        (numbers,) = db.execute("SELECT number FROM counter").fetchall()
        ((lost,),) = db.execute(
            "SELECT count(*) FROM jobrunner.attempts WHERE outcome = 'lost'"
        ).fetchall()
    assert states == dict.fromkeys(ledger, "succeeded")
    assert written == dict.fromkeys(ledger, 1), "written twice, or not at all"
    assert numbers == (len(ledger),)
    assert codes.count(-9) > len(codes) / 3, codes
    assert lost >= 1, "no attempt was killed: the deaths prove nothing"
