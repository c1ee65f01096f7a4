"""The price of ``job.progress()`` beside a drain."""

import asyncio
import time
from pathlib import Path
from typing import Final

from jobrunner import JobContext, JobRunner
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row
from tests.benchmarks.workload import SLICE

JOBS: Final = 20_000
REPORTERS: Final = 100
PER_SECOND: Final = 1_000
"""Calls of ``job.progress()`` by each of them."""
EVERY_S: Final = 0.05
"""The time between two bursts of calls: a timer for each call would cost ten times as much as the call."""


def progress(bench: Bench) -> list[Row]:
    """Drain jobs beside 100 others that report 1,000 times a second each, and beside 100 that call nothing as often."""
    reporting, silent = list[float](), list[float]()
    for _ in range(bench.runs):
        for samples, reports in ((silent, False), (reporting, True)):
            with bench.place() as place:
                samples.append(asyncio.run(_drain_beside(place / "jobs.sqlite", reports=reports)))
    return [
        Row(
            f"CPU of a drain of {JOBS:,} beside {REPORTERS} jobs that report progress {PER_SECOND:,} times/s",
            "s",
            reporting,
            silent,
            beside="an empty function",
            judged="ratio",
            target=1.05,
        )
    ]


def _nothing(done: float, total: float, message: str) -> None: ...


async def _drain_beside(file: Path, *, reports: bool) -> float:
    """Return the processor time of a drain, in seconds."""
    jobs = JobRunner(file, queues={"default": 100, "long": REPORTERS})
    began: list[float] = []
    calls = 0
    all_called = asyncio.Event()
    inside = asyncio.Semaphore(0)

    @jobs.task
    async def work() -> None:
        nonlocal calls
        calls += 1
        if calls == JOBS:
            all_called.set()

    @jobs.task(queue="long", timeout=None)
    async def report(job: JobContext) -> None:
        inside.release()
        call = job.progress if reports else _nothing
        burst = round(PER_SECOND * EVERY_S)
        done = 0
        while not all_called.is_set():
            for _ in range(burst):
                done += 1
                call(done, 10**9, "rows")
            await asyncio.sleep(EVERY_S)

    async with jobs.running():
        await jobs.queues.pause("default")
        for _ in range(0, JOBS, SLICE):
            await jobs.enqueue_many([work.call() for _ in range(SLICE)])
        await jobs.enqueue_many([report.call() for _ in range(REPORTERS)])
        for _ in range(REPORTERS):
            await inside.acquire()
        began.append(time.process_time())
        await jobs.queues.resume("default")
        await all_called.wait()
        return time.process_time() - began[0]
