"""Measures the cost of schedules that are not due, and the delay between tick and start."""

import asyncio
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from jobrunner import JobContext, JobRunner
from tests.benchmarks import raw
from tests.benchmarks.bench import Bench
from tests.benchmarks.claims import claim_cost
from tests.benchmarks.figures import Row, percentile
from tests.benchmarks.footprint import idle_share
from tests.benchmarks.latency import STARTS
from tests.benchmarks.prefill import Past

SCHEDULES = 10_000
DATES = 200
SPREAD_S = 4.0
BEATS = 10


def schedules(bench: Bench) -> list[Row]:
    """Idle and claim beside 10,000 schedules; start jobs at the ticks of dates and of a beat."""
    idle, claims, empty_claims = [], [], []
    with bench.place() as place:
        empty, full = place / "empty.sqlite", place / "full.sqlite"
        past = Past(full)
        past.schedules(SCHEDULES)
        past.close()
        for _ in range(bench.runs):
            idle.append(asyncio.run(idle_share(full)) * 100)
            empty_claims.append(asyncio.run(claim_cost(empty)))
            claims.append(asyncio.run(claim_cost(full)))
    tail = {"dates": _tails(bench, _dates), "a beat": _tails(bench, _beats)}
    yardstick = []
    for _ in range(bench.runs):
        with bench.place() as place:
            yardstick.append(median(raw.single_commits(place, STARTS)))
    return [
        Row(f"idle worker with {SCHEDULES:,} schedules, share of a core", "%", idle, target=1),
        Row(
            f"claim of 20 beside {SCHEDULES:,} schedules",
            "µs",
            claims,
            empty_claims,
            beside="empty file",
            judged="ratio",
            target=1.3,
        ),
        *(
            Row(f"start of a job after the tick of {what}, p99", "ms", late, yardstick, target=25)
            for what, late in tail.items()
        ),
    ]


def _tails(bench: Bench, measure: Callable[[Path], list[float]]) -> list[float]:
    found = []
    for _ in range(bench.runs):
        with bench.place() as place:
            found.append(percentile(measure(place / "jobs.sqlite"), 0.99))
    return found


class _Lateness:
    """The delays between ticks and the starts of their jobs, in ms."""

    def __init__(self, number: int) -> None:
        self.late: list[float] = []
        self.all = asyncio.Event()
        self._number = number

    def note(self, job: JobContext) -> None:
        assert job.scheduled_for is not None
        now = datetime.fromtimestamp(time.time(), UTC)
        self.late.append((now - job.scheduled_for) / timedelta(milliseconds=1))
        if len(self.late) >= self._number:
            self.all.set()


def _dates(file: Path) -> list[float]:
    """Schedules that fire once each, at odd times."""
    return asyncio.run(_run_dates(file))


async def _run_dates(file: Path) -> list[float]:
    jobs, lateness = JobRunner(file), _Lateness(DATES)

    @jobs.task
    async def note(job: JobContext) -> None:
        lateness.note(job)

    async with jobs.running(work=False):
        soon = datetime.now(UTC) + timedelta(seconds=3)
        for number in range(DATES):
            moment = soon + timedelta(seconds=random.uniform(0, SPREAD_S))
            await jobs.schedules.upsert(f"once:{number}", note, run_at=moment)
    async with jobs.running():
        await asyncio.wait_for(lateness.all.wait(), 60)
    return lateness.late


def _beats(file: Path) -> list[float]:
    """Ten schedules that tick each second, all at their own moment."""
    return asyncio.run(_run_beats(file))


async def _run_beats(file: Path) -> list[float]:
    jobs, lateness = JobRunner(file), _Lateness(BEATS * 6)

    @jobs.task
    async def note(job: JobContext) -> None:
        lateness.note(job)

    async with jobs.running():
        for number in range(BEATS):
            await jobs.schedules.upsert(f"beat:{number}", note, every=1)
            await asyncio.sleep(0.07)
        await asyncio.wait_for(lateness.all.wait(), 60)
    return lateness.late
