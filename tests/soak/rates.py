"""Jobs at a steady rate, of which old ones are deleted meanwhile: none is lost, and log, rows and memory stay small."""

import asyncio
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from jobrunner import JobRunner, Task
from tests.benchmarks.figures import percentile
from tests.benchmarks.throughput import watch_lag
from tests.soak.budget import Figures

RATE = 400
"""Jobs per second."""
BURST_S = 0.05
KEEP = 2_000
MOST_WAL_MB = 64.0
MOST_GROWTH_MB = 40.0
"""From a quarter of the time on: by then what is made once is made."""

Options = Callable[[int], dict[str, object]]

OPTIONS: tuple[Options, ...] = (
    lambda number: {},
    lambda number: {"tag": f"customer-{number % 97}"},
    lambda number: {"key": f"order-{number}"},
    lambda number: {"delay": 0.5, "priority": number % 3},
)


class Load:
    """A runner under a steady load, and what is measured of it."""

    def __init__(self, file: Path, seed: int) -> None:
        self.file = file
        self.runner = JobRunner(file, keep_finished=KEEP)
        self.acked = 0
        self.runs = bytearray()
        """The number of runs of each job; a byte per job, so that the test itself stays small."""
        self.enqueued_ms: list[float] = []
        self.lags_ms: list[float] = []
        self.wal_mb: list[float] = []
        self.resident_mb: list[float] = []
        self._dice = random.Random(seed)
        self._task: Task[[int], None] = self.runner.task(name="count")(self._count)

    async def _count(self, number: int) -> None:
        self.runs[number] += 1
        if self._dice.random() < 0.1:
            await asyncio.sleep(self._dice.random() * 0.02)

    async def _enqueue(self, number: int) -> None:
        options = self._dice.choice(OPTIONS)(number)
        started = time.perf_counter()
        await self.runner.enqueue(self._task.options(**options), number)  # type: ignore[arg-type]
        self.enqueued_ms.append((time.perf_counter() - started) * 1000)
        self.acked += 1

    async def enqueue_for(self, seconds: float) -> None:
        """Enqueue at the rate, whether or not the answers keep up."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with asyncio.TaskGroup() as callers:
            while (elapsed := loop.time() - started) < seconds:
                for number in range(len(self.runs), int(elapsed * RATE)):
                    self.runs.append(0)
                    callers.create_task(self._enqueue(number))
                self._measure()
                await asyncio.sleep(BURST_S)

    def _measure(self) -> None:
        wal = Path(f"{self.file}-wal")
        self.wal_mb.append(wal.stat().st_size / 1e6 if wal.exists() else 0.0)
        statm = Path("/proc/self/statm")
        if statm.exists():
            pages = int(statm.read_text().split()[1])
            self.resident_mb.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)

    def grown_mb(self) -> float:
        """Return how much more memory is used at the end than a quarter of the way through."""
        if not self.resident_mb:
            return 0.0
        return self.resident_mb[-1] - self.resident_mb[len(self.resident_mb) // 4]


async def run(seed: int, seconds: float) -> Figures:
    """Enqueue and run for a while, then wait until all have ended."""
    with tempfile.TemporaryDirectory(prefix="jobrunner-soak-") as directory:
        load = Load(Path(directory, "jobs.db"), seed)
        async with load.runner.running():
            watch = asyncio.create_task(watch_lag(load.lags_ms))
            await load.enqueue_for(seconds)
            async with asyncio.timeout(60 + seconds):
                while await _unfinished(load.runner):  # noqa: ASYNC110 - no event says that nothing is left
                    await asyncio.sleep(BURST_S)
            watch.cancel()
            await asyncio.wait([watch])
            assert (await load.runner.health()).status == "ok"
            assert await load.runner.dead_letters.count() == 0
    assert load.acked == len(load.runs)
    assert set(load.runs) == {1}, "a job ran twice, or never, though no process has died"
    assert max(load.wal_mb) < MOST_WAL_MB
    assert load.grown_mb() < MOST_GROWTH_MB
    return {
        "jobs": load.acked,
        "jobs per second": RATE,
        "lost or run twice": 0,
        "enqueue p50 ms": round(percentile(load.enqueued_ms, 0.5), 1),
        "enqueue p99 ms": round(percentile(load.enqueued_ms, 0.99), 1),
        "loop lag p99 ms": round(percentile(load.lags_ms, 0.99), 1),
        "largest log MB": round(max(load.wal_mb), 1),
        "memory grown by MB": round(load.grown_mb(), 1),
    }


async def _unfinished(runner: JobRunner) -> bool:
    for state in ("queued", "scheduled", "running"):
        if (await runner.list(state=state, limit=1)).items:
            return True
    return False
