"""Measures the latency of one job: enqueue, start, and start at its due time."""

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from tests.benchmarks import raw
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row, percentile
from tests.benchmarks.workload import Workload

ONE_BY_ONE = 1_000
STARTS = 300
APPOINTMENTS = 200
SPREAD_S = 4.0


def one_by_one(bench: Bench) -> list[Row]:
    """Enqueue one job after another; beside it the single-row commits of ``sqlite3``."""
    rows = []
    for work in (False, True):
        ours, yardstick = [], []
        for _ in range(bench.runs):
            with bench.place() as place:
                yardstick.append(median(raw.single_commits(place, ONE_BY_ONE)))
            with bench.place() as place:
                ours.append(median(asyncio.run(_enqueues(place / "jobs.sqlite", work=work))))
        if work:
            rows.append(Row("  the same while the jobs run, p50", "ms", ours, yardstick))
        else:
            target = median(yardstick) + 0.35
            rows.append(Row("enqueue one after another, p50", "ms", ours, yardstick, target=target))
    return rows


async def _enqueues(file: Path, *, work: bool) -> list[float]:
    workload = Workload(file, work=work)
    took = []
    async with workload.jobs.running():
        for number in range(ONE_BY_ONE):
            started = time.perf_counter()
            await workload.jobs.enqueue(workload.noop, number)
            took.append((time.perf_counter() - started) * 1000)
    return took


def start(bench: Bench) -> list[Row]:
    """Enqueue into an idle worker, and time the call to the handler's first line."""
    middle, tail, yardstick = [], [], []
    for _ in range(bench.runs):
        with bench.place() as place:
            yardstick.append(median(raw.single_commits(place, STARTS)))
        with bench.place() as place:
            took = asyncio.run(_starts(place / "jobs.sqlite"))
        middle.append(median(took))
        tail.append(percentile(took, 0.99))
    return [
        Row("enqueue → first line, idle worker, p50", "ms", middle, yardstick, target=3, aim=1),
        Row(
            "  p99",
            "ms",
            tail,
            yardstick,
            target=max(15, 3 * median(yardstick)),
            aim=3,
        ),
    ]


async def _starts(file: Path) -> list[float]:
    began: asyncio.Queue[float] = asyncio.Queue()
    workload = Workload(file, on_call=lambda _: began.put_nowait(time.perf_counter()))
    took = []
    async with workload.jobs.running():
        for number in range(STARTS):
            started = time.perf_counter()
            await workload.jobs.enqueue(workload.noop, number)
            took.append((await began.get() - started) * 1000)
            await workload.settled()
    return took


def schedule(bench: Bench) -> list[Row]:
    """Enqueue jobs for moments to come, at odd times, and see how late each starts."""
    tail, yardstick = [], []
    for _ in range(bench.runs):
        with bench.place() as place:
            yardstick.append(median(raw.single_commits(place, STARTS)))
        with bench.place() as place:
            tail.append(percentile(asyncio.run(_appointments(place / "jobs.sqlite")), 0.99))
    return [Row("start of a scheduled job after its moment, p99", "ms", tail, yardstick, target=25)]


async def _appointments(file: Path) -> list[float]:
    moments: list[datetime] = []
    late: list[float] = []
    kept = asyncio.Event()

    def keep(number: int) -> None:
        late.append((datetime.now(UTC) - moments[number]) / timedelta(milliseconds=1))
        if len(late) == APPOINTMENTS:
            kept.set()

    workload = Workload(file, on_call=keep)
    async with workload.jobs.running():
        soon = datetime.now(UTC) + timedelta(seconds=1)
        moments += [
            soon + timedelta(seconds=random.uniform(0, SPREAD_S)) for _ in range(APPOINTMENTS)
        ]
        await workload.jobs.enqueue_many(
            [
                workload.noop.options(run_at=moment).call(number)
                for number, moment in enumerate(moments)
            ]
        )
        await asyncio.wait_for(kept.wait(), 60)
    assert min(late) >= 0, f"a job started {-min(late)} ms before its moment"
    return late
