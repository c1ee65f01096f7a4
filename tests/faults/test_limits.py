"""Limits with several processes: exact over all of them, whatever dies."""

import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobrunner import JobRunner
from tests.soak.budget import Figures, rounds
from tests.support import limited
from tests.support.processes import Child, child

LEAST_KILLS = 5
JOBS = 120


@contextlib.asynccontextmanager
async def fleet(file: Path, number: int) -> AsyncIterator[list[Child]]:
    """Start processes that work on the file."""
    async with contextlib.AsyncExitStack() as stack:
        children = [await stack.enter_async_context(child("limit", file)) for _ in range(number)]
        for one in children:
            await one.heard("open")
        yield children


async def wait_for_all(jobs: JobRunner) -> None:
    """Wait until every job has succeeded."""
    page = await jobs.list(limit=200)
    while True:
        for job in page.items:
            await job.result(timeout=60)
        if page.next_cursor is None:
            break
        page = await jobs.list(limit=200, cursor=page.next_cursor)
    assert await jobs.dead_letters.count() == 0


@pytest.mark.parametrize("number", [2, 4])
@pytest.mark.slow
async def test_limits_hold_over_processes(tmp_db: Path, number: int) -> None:
    jobs = limited.runner(tmp_db)
    async with jobs.running(work=False):
        limited.watch(tmp_db)
        await limited.fill(jobs, JOBS)
        async with fleet(tmp_db, number):
            await wait_for_all(jobs)
    found = limited.Attempts(tmp_db)
    found.check()
    assert len(found.rows) == 3 * JOBS


async def kill_holders(file: Path, *, seed: int, seconds: float) -> Figures:
    """Kill a worker with running jobs again and again; then check the whole life of the file."""
    dice = random.Random(seed)
    kills = 0
    jobs = limited.runner(file)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(jobs.running(work=False))
        limited.watch(file)
        await limited.fill(jobs, JOBS)
        living: list[Child] = []

        async def start() -> None:
            living.append(await stack.enter_async_context(child("limit", file)))
            await living[-1].heard("open")

        await start()
        await start()
        for number in rounds(seconds, least=LEAST_KILLS):
            await start()
            if number % 2:
                assert await living[0].lives(dice.uniform(0, 0.6))
            else:
                # Killed while it works: what was stored before may be done by now.
                await limited.fill(jobs, 30)
                assert await living[0].lives(dice.uniform(0, 0.03))
            victim = living.pop(0)
            victim.send_signal(9)
            await victim.kill()
            kills += 1
        await wait_for_all(jobs)
    found = limited.Attempts(file)
    found.check()
    lost = sum(outcome == "lost" for *_, outcome in found.rows)
    assert lost, "no victim held a place"
    return {"kills": kills, "attempts": len(found.rows), "attempts lost": lost}


@pytest.mark.slow
async def test_killed_holders_leak_and_double_no_place_and_no_token(
    tmp_db: Path, seed: int, seconds: float
) -> None:
    await kill_holders(tmp_db, seed=seed, seconds=seconds)
