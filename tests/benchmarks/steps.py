"""Measures what a step costs an open runner, alone and in groups that share commits.

In processor time of all threads, which other programs change less than the time that passes.
"""

import asyncio
import time
from pathlib import Path

from jobrunner import JobContext, JobRunner
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row

STEPS = 50
GROUP = 20
JOBS = 100
GROUP_US = 100.0


def steps(bench: Bench) -> list[Row]:
    """Run jobs of fifty steps, one at a time and twenty at a time."""
    alone, group = [], []
    for _ in range(bench.runs):
        with bench.place() as place:
            group.append(asyncio.run(_step_us(place / "group.sqlite", GROUP, JOBS)))
            alone.append(asyncio.run(_step_us(place / "alone.sqlite", 1, JOBS // GROUP)))
    return [
        Row(f"step in a group of {GROUP}", "µs", group, target=GROUP_US),
        Row("step alone", "µs", alone),
    ]


async def _step_us(file: Path, slots: int, number: int) -> float:
    """Return the processor time of one step, with its memo, in µs."""
    runner = JobRunner(file, queues={"default": slots})

    @runner.task
    async def many(job: JobContext) -> None:
        for step in range(STEPS):
            await job.step(f"step-{step}", _value)

    @runner.task
    async def none(job: JobContext) -> None: ...

    async with runner.running():
        took = []
        for task in (none, many):
            started = time.process_time()
            for job in await runner.enqueue_many([task.call() for _ in range(number)]):
                await job.result()
            took.append(time.process_time() - started)
    return (took[1] - took[0]) / (number * STEPS) * 1e6


def _value() -> int:
    return 1
