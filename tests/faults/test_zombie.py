"""A worker that is taken for dead and is not: its job runs elsewhere, and what it makes of it is written nowhere."""

import contextlib
import signal
import sqlite3
from pathlib import Path

import pytest

from tests.faults.mortal import make_tables
from tests.faults.zombie import FORMS, engines, runner
from tests.support.engine import history, worker_of
from tests.support.processes import process


@pytest.mark.parametrize("form", FORMS)
async def test_B16_zombie_whose_lock_was_lost_writes_nothing(tmp_db: Path, form: str) -> None:
    make_tables(str(tmp_db))
    async with process("-m", "tests.faults.zombie", str(tmp_db)) as zombie:
        await zombie.heard("ready")
        jobs = runner(str(tmp_db))
        try:
            async with jobs.running(work=False):
                id = (await jobs.enqueue(FORMS[form])).id
                await zombie.heard("lost")
            async with jobs.running():
                await (await jobs.get(id)).result(timeout=15)
                zombie.send()
                await zombie.heard("refused")
                ends = [(one.attempt, one.outcome) for one in await history(jobs, id)]
        finally:
            await engines.pop().dispose()
    with contextlib.closing(sqlite3.connect(tmp_db)) as db:
        written = [row for (row,) in db.execute("SELECT job FROM effects")]
        (counter,) = db.execute("SELECT number FROM counter").fetchone()
    assert ends == [(1, "lost"), (2, "succeeded")]
    assert written == [f"{id} 2"]
    assert counter == 1


async def test_D3_job_that_a_zombie_claimed_after_it_was_found_dead_runs_again(
    tmp_db: Path,
) -> None:
    """Its row is gone, so that its second death is noticed by nobody."""
    make_tables(str(tmp_db))
    jobs = runner(str(tmp_db))
    try:
        async with process("-m", "tests.faults.zombie", str(tmp_db)) as zombie:
            await zombie.heard("ready")
            async with jobs.running(work=False):
                id = (await jobs.enqueue(FORMS["write"])).id
                await zombie.heard("lost")
                await worker_of(jobs).maintenance.recovery.recover(thorough=False)
                zombie.send()
                assert await zombie.ended() == -signal.SIGKILL
        async with jobs.running():
            await worker_of(jobs).maintenance.recovery.recover(thorough=True)
            await (await jobs.get(id)).result(timeout=15)
            ends = [(one.attempt, one.outcome) for one in await history(jobs, id)]
    finally:
        await engines.pop().dispose()
    assert ends == [(1, "lost"), (2, "lost"), (3, "succeeded")]
