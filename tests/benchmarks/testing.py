"""Measures the testing kit: opening a tester, many small tests, and a month of hourly ticks."""

import asyncio
import time

from jobrunner import JobContext, JobRunner
from jobrunner.testing import JobTester
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row

OPENINGS = 50
TESTS = 500
TICKS = 720


def testing(bench: Bench) -> list[Row]:
    """Open testers; run tests with one enqueue each; travel over a month of hourly ticks."""
    openings, tests, ticks = [], [], []
    asyncio.run(_tests(1))  # makes the template of blank stores, once per process
    for _ in range(bench.runs):
        openings.append(asyncio.run(_openings()) * 1000 / OPENINGS)
        tests.append(asyncio.run(_tests(TESTS)))
        ticks.append(asyncio.run(_ticks()))
    return [
        Row("open a JobTester", "ms", openings, target=15),
        Row(f"{TESTS} tests with a tester and an enqueue each", "s", tests, target=15),
        Row(f"travel over {TICKS} ticks of an hourly schedule", "s", ticks, target=1),
    ]


jobs = JobRunner("sqlite:///never.db")


@jobs.task
async def work(number: int) -> None:
    """Do nothing."""


async def _openings() -> float:
    """Return the seconds that the openings took, without the closings."""
    took = 0.0
    for _ in range(OPENINGS):
        began = time.perf_counter()
        async with JobTester(jobs):
            took += time.perf_counter() - began
    return took


async def _tests(number: int) -> float:
    began = time.perf_counter()
    for at in range(number):
        async with JobTester(jobs) as t:
            await jobs.enqueue(work, at)
            t.assert_enqueued(work, at, times=1)
            await t.run_until_idle()
    return time.perf_counter() - began


async def _ticks() -> float:
    ticking = JobRunner("sqlite:///never.db")

    @ticking.cron("0 * * * *")
    async def hourly(job: JobContext) -> None: ...

    async with JobTester(ticking) as t:
        began = time.perf_counter()
        await t.travel(hours=TICKS)
        took = time.perf_counter() - began
        runs = len(t.runs(hourly))
    if runs != TICKS:
        raise RuntimeError(f"{runs} ticks ran, not {TICKS}")
    return took
