"""Measures whether two processes hold a rate, and what a drain over many keys takes of the processor."""

import asyncio
import sqlite3
import time
from collections import Counter
from contextlib import AsyncExitStack, closing
from pathlib import Path

from jobrunner import Concurrency, JobRunner, Rate, Task
from jobrunner.core.clock import SECOND_US
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row
from tests.benchmarks.processes import child
from tests.benchmarks.workload import SLICE

SECONDS = 10
KEYS = 500
PROCESSES = 2
SLOTS = 100
MOST_OFF = 5.0
"""Per cent."""

DRAINED = 20_000
WAITING = 100_000
DRAINED_KEYS = 1_000


def rates(bench: Bench) -> list[Row]:
    """Let two processes start jobs at a rate for 10 seconds; then drain jobs of 1,000 keys beside plain ones."""
    rows = [
        _held(bench, f"{rate:,}/s over {SECONDS} s by {PROCESSES} processes: off by", rate, keys=1)
        for rate in (1_000, 100)
    ]
    figure = f"{KEYS} keys at 1/s over {SECONDS} s by {PROCESSES} processes: off by"
    return [*rows, _held(bench, figure, 1, keys=KEYS), _drain(bench)]


# -- rates -----------------------------------------------------------------------------------------------


def rated_runner(file: Path, rate: int, keys: int) -> tuple[JobRunner, Task[[int], None]]:
    """Return a runner with a task that may start so often, of each key if there are several."""
    jobs = JobRunner(file, queues={"default": SLOTS})
    limit = Rate(rate) if keys == 1 else Rate(rate, by="key")

    @jobs.task(rate_limit=limit)
    async def rated(key: int) -> None: ...

    return jobs, rated


def _held(bench: Bench, figure: str, rate: int, *, keys: int) -> Row:
    off = []
    for _ in range(bench.runs):
        with bench.place() as place:
            asyncio.run(_work(place / "jobs.sqlite", rate, keys))
            off.append(_off(place / "jobs.sqlite", rate, keys))
    return Row(figure, "%", off, target=MOST_OFF)


async def _work(file: Path, rate: int, keys: int) -> None:
    jobs, rated = rated_runner(file, rate, keys)
    async with jobs.running(work=False):
        numbers = [n % keys for n in range(rate * keys * (SECONDS + 5))]
        for first in range(0, len(numbers), SLICE):
            await jobs.enqueue_many([rated.call(n) for n in numbers[first : first + SLICE]])
    async with AsyncExitStack() as stack:
        for _ in range(PROCESSES):
            one = await stack.enter_async_context(child("rated", file, rate, keys))
            await one.heard("open")
        await asyncio.sleep(SECONDS + 1)


def _off(file: Path, rate: int, keys: int) -> float:
    """Return by how many per cent the starts of 10 seconds are more or less than they should be."""
    with closing(sqlite3.connect(file)) as conn:
        rows = conn.execute(
            "SELECT coalesce(lane, ''), started_at FROM jobrunner_jobs WHERE started_at IS NOT NULL"
        ).fetchall()
    # Not from the first start on: the second process was not open yet.
    began = min(started for _, started in rows) + SECOND_US // 2
    starts = Counter(lane for lane, at in rows if began <= at < began + SECONDS * SECOND_US)
    most = max(starts.values())
    if most > rate * SECONDS * (1 + MOST_OFF / 100) + 1:
        raise RuntimeError(f"a key has started {most} jobs, not {rate * SECONDS}")
    return abs(starts.total() / (rate * keys * SECONDS) - 1) * 100


# -- the drain -------------------------------------------------------------------------------------------


def _drain(bench: Bench) -> Row:
    ours, plain = list[float](), list[float]()
    for _ in range(bench.runs):
        for samples, keyed in ((plain, False), (ours, True)):
            with bench.place() as place:
                samples.append(asyncio.run(_drained_per_second(place / "jobs.sqlite", keyed)))
    return Row(
        f"drain of {WAITING:,} jobs over {DRAINED_KEYS:,} keys, per second of the processor",
        "/s",
        ours,
        plain,
        beside="no keys",
        judged="ratio",
        target=0.5,
        more_is_better=True,
    )


async def _drained_per_second(file: Path, keyed: bool) -> float:
    """Return the jobs that run in a second of processor time."""
    jobs = JobRunner(file, queues={"default": SLOTS})
    done = asyncio.Event()
    calls = 0

    @jobs.task(concurrency=Concurrency(2, by="key") if keyed else None)
    async def work(key: int) -> None:
        nonlocal calls
        calls += 1
        if calls == DRAINED:
            done.set()

    async with jobs.running(work=False):
        for first in range(0, WAITING, SLICE):
            numbers = range(first, first + SLICE)
            await jobs.enqueue_many([work.call(n % DRAINED_KEYS) for n in numbers])
    async with jobs.running():
        cpu = time.process_time()
        await done.wait()
        return DRAINED / (time.process_time() - cpu)
