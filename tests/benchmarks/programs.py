"""Typical programs of users, to compare revisions.

Run as ``python -P programs.py NAME FILE SCALE``, with ``PYTHONPATH`` set.  The file imports only the standard library
and public names of ``jobrunner``, so that the same code runs on every revision that has these names; ``tests`` of the
revision is never imported.
"""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import jobrunner
from jobrunner import JobRunner, Task

SLICE = 5_000
CALLERS = 100
HOUR = timedelta(hours=1)


class Meter:
    """Measures processor time, of all threads, and wall time between ``start`` and ``stop``."""

    def __init__(self) -> None:
        self.cpu = self.wall = 0.0
        self.started = False

    def start(self) -> None:
        """Begin; nothing happens if it has begun."""
        if not self.started:
            self.started = True
            self._cpu, self._wall = time.process_time(), time.perf_counter()

    def elapsed(self) -> float:
        """Return the wall time since the start."""
        return time.perf_counter() - self._wall

    def stop(self) -> None:
        """End."""
        self.cpu = time.process_time() - self._cpu
        self.wall = self.elapsed()


class Program:
    """A runner with many tasks that do nothing, and an event for when all their jobs have been called."""

    def __init__(
        self,
        file: Path,
        *,
        jobs: int = 0,
        tasks: int = 1,
        queues: dict[str, int] | None = None,
        across: Sequence[str] = ("default",),
        on_call: Callable[[int], None] = lambda calls: None,
    ) -> None:
        self.runner = JobRunner(file, queues=queues or {"default": 20})
        self.jobs = jobs
        self.calls = 0
        self.all_called = asyncio.Event()
        self._on_call = on_call
        self.tasks = [
            self._declare(f"noop_{number}", across[number % len(across)]) for number in range(tasks)
        ]

    def _declare(self, name: str, queue: str) -> Task[[int], None]:
        @self.runner.task(name=name, queue=queue)
        async def noop(number: int) -> None:
            self.calls += 1
            self._on_call(self.calls)
            if self.calls == self.jobs:
                self.all_called.set()

        return noop

    async def fill(self) -> None:
        """Leave the jobs in the file, of all tasks in turns, without running any."""
        tasks = self.tasks
        async with self.runner.running(work=False):
            for first in range(0, self.jobs, SLICE):
                numbers = range(first, min(first + SLICE, self.jobs))
                await self.runner.enqueue_many(
                    [tasks[number % len(tasks)].call(number) for number in numbers]
                )


async def drain(meter: Meter, file: Path, jobs: int, *, slots: int, tasks: int) -> None:
    """Run what waits, from the first call of a task until the runner has closed."""
    program = Program(
        file,
        jobs=jobs,
        tasks=tasks,
        queues={"default": slots},
        on_call=lambda _: meter.start(),
    )
    await program.fill()
    async with program.runner.running():
        await program.all_called.wait()
    meter.stop()


async def callers(
    meter: Meter, file: Path, jobs: int, call: Callable[[Task[[int], None], int], Task[[int], None]]
) -> None:
    """Let 100 callers enqueue, each awaiting its own before the next; nothing runs."""
    program = Program(file)
    runner, (task,) = program.runner, program.tasks
    share = max(1, jobs // CALLERS)

    async def caller(first: int) -> None:
        for number in range(first, first + share):
            await runner.enqueue(call(task, number), number)

    async with runner.running(work=False):
        await runner.enqueue(task, 0)  # what is made once is made before the clock runs
        meter.start()
        await asyncio.gather(*(caller(first) for first in range(0, share * CALLERS, share)))
        meter.stop()


def _plain(task: Task[[int], None], number: int) -> Task[[int], None]:
    return task


def _with_options(task: Task[[int], None], number: int) -> Task[[int], None]:
    return task.options(delay=HOUR, key=f"order-{number}", tag=f"customer-{number % 97}")


async def many(meter: Meter, file: Path, jobs: int) -> None:
    """Enqueue in transactions of 1,000."""
    program = Program(file)
    runner, (task,) = program.runner, program.tasks
    async with runner.running(work=False):
        meter.start()
        for _ in range(max(1, jobs // 1_000)):
            await runner.enqueue_many([task.call(number) for number in range(1_000)])
        meter.stop()


async def one_by_one(meter: Meter, file: Path, jobs: int) -> None:
    """Enqueue one job after another; nothing runs."""
    program = Program(file)
    runner, (task,) = program.runner, program.tasks
    async with runner.running(work=False):
        meter.start()
        for number in range(jobs):
            await runner.enqueue(task, number)
        meter.stop()


async def start(meter: Meter, file: Path, jobs: int) -> None:
    """Enqueue into an idle worker and wait for the result, one job after another."""
    runner = JobRunner(file)

    @runner.task
    async def double(number: int) -> int:
        return 2 * number

    async with runner.running():
        meter.start()
        for number in range(jobs):
            assert await (await runner.enqueue(double, number)).result(timeout=60) == 2 * number
        meter.stop()


async def start_beside(meter: Meter, file: Path, jobs: int) -> None:
    """Enqueue into an idle queue and await the result, one by one, while jobs of 500 tasks drain in 50 others.

    The wall time is that of the results; the processor time also that of draining what is left.
    """
    others = [f"other-{number}" for number in range(50)]
    program = Program(
        file, jobs=jobs, tasks=500, queues=dict.fromkeys(others, 2) | {"default": 20}, across=others
    )
    runner = program.runner

    @runner.task
    async def double(number: int) -> int:
        return 2 * number

    await program.fill()
    async with runner.running():
        meter.start()
        for number in range(max(1, jobs // 1_000)):
            assert await (await runner.enqueue(double, number)).result(timeout=60) == 2 * number
        wall = meter.elapsed()
        assert not program.all_called.is_set(), "there is nothing to be beside: too few jobs"
        await program.all_called.wait()
    meter.stop()
    meter.wall = wall


async def opening(meter: Meter, file: Path, times: int) -> None:
    """Open and close a runner with 50 tasks on a file that is there."""
    program = Program(file, jobs=1_000, tasks=50)
    await program.fill()
    runner = program.runner
    async with runner.running():
        await program.all_called.wait()
    meter.start()
    for _ in range(times):
        async with runner.running():
            pass
    meter.stop()


async def app(meter: Meter, file: Path, jobs: int) -> None:
    """Ten callers enqueue 50 tasks with and without options, they run, and a reader lists after every 50th job.

    The reader follows the jobs and not a clock, so that a revision that is faster does not read less.
    """
    due = asyncio.Semaphore(0)
    share = max(1, jobs // 10)
    program = Program(
        file,
        jobs=share * 10,
        tasks=50,
        on_call=lambda calls: due.release() if calls % 50 == 0 else None,
    )
    runner = program.runner
    filters: Sequence[dict[str, Any]] = (
        {"limit": 50},
        {"tag": "customer-7"},
        {"state": "queued"},
        {"task": "noop_7", "state": "succeeded", "limit": 20},
    )

    async def caller(first: int) -> None:
        for number in range(first, first + share):
            task = program.tasks[number % len(program.tasks)]
            match number % 4:
                case 1:
                    task = task.options(tag=f"customer-{number % 97}")
                case 2:
                    task = task.options(key=f"order-{number}", priority=number % 3)
                case 3:
                    task = task.options(delay=0.01, tag=f"customer-{number % 97}")
            await runner.enqueue(task, number)

    async def reader() -> None:
        for number in range(program.jobs // 50):
            await due.acquire()
            await runner.list(**filters[number % len(filters)])

    async with runner.running():
        meter.start()
        reading = asyncio.create_task(reader())
        await asyncio.gather(*(caller(first) for first in range(0, program.jobs, share)))
        await program.all_called.wait()
        await reading
    meter.stop()


Run = Callable[[Meter, Path, int], Awaitable[None]]

PROGRAMS: dict[str, tuple[str, int, Run]] = {
    "app": ("20 slots, 50 tasks, options, callers and a reader at once", 10_000, app),
    "drain": (
        "drain no-op jobs of one task, 20 slots",
        20_000,
        lambda meter, file, jobs: drain(meter, file, jobs, slots=20, tasks=1),
    ),
    "drain-100-slots": (
        "drain no-op jobs of one task, 100 slots",
        20_000,
        lambda meter, file, jobs: drain(meter, file, jobs, slots=100, tasks=1),
    ),
    "drain-50-tasks": (
        "drain jobs of 50 tasks, 20 slots",
        10_000,
        lambda meter, file, jobs: drain(meter, file, jobs, slots=20, tasks=50),
    ),
    "drain-500-tasks": (
        "drain jobs of 500 tasks, 20 slots",
        5_000,
        lambda meter, file, jobs: drain(meter, file, jobs, slots=20, tasks=500),
    ),
    "enqueue": (
        "100 callers enqueue",
        20_000,
        lambda meter, file, jobs: callers(meter, file, jobs, _plain),
    ),
    "enqueue-options": (
        "100 callers enqueue with a delay, a key and a tag",
        15_000,
        lambda meter, file, jobs: callers(meter, file, jobs, _with_options),
    ),
    "enqueue-many": ("enqueue_many, 1,000 at a time", 50_000, many),
    "one-by-one": ("enqueue one after another", 2_000, one_by_one),
    "start": ("enqueue into an idle worker and await the result, one by one", 750, start),
    "start-beside-500-tasks": (
        "the same in an idle queue, while jobs of 500 tasks drain in 50 others",
        10_000,
        start_beside,
    ),
    "open": ("open and close with 50 tasks, on a file with 1,000 finished jobs", 30, opening),
}
"""Each by its name: what it does, how many jobs (of ``open``: times) at scale 1, and the program."""


def main() -> None:
    """Run one program and print what it took as a line of JSON."""
    logging.basicConfig(level=logging.ERROR)
    name, file, scale = sys.argv[1:]
    _, jobs, run = PROGRAMS[name]
    meter = Meter()

    async def measured() -> None:
        await run(meter, Path(file), max(1, round(jobs * float(scale))))

    asyncio.run(measured())
    print(json.dumps({"package": jobrunner.__file__, "cpu": meter.cpu, "wall": meter.wall}))


if __name__ == "__main__":
    main()
