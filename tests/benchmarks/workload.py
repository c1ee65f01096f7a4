"""The runner that is measured: tasks that do nothing but say that they were called."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from jobrunner import JobRunner, Task

SLICE = 5_000


class Workload:
    """A ``JobRunner`` with the task ``noop`` and others like it, which call ``on_call(number)`` and count."""

    def __init__(
        self,
        file: Path,
        *,
        slots: int = 20,
        tasks: int = 1,
        work: bool = True,
        on_call: Callable[[int], None] | None = None,
    ) -> None:
        self.calls = 0
        self._awaited = 0
        self._reached = asyncio.Event()
        self.jobs = JobRunner(file, queues={"default": slots}, work=work)

        self._on_call = on_call
        self.tasks = [
            self._declare(f"noop-{number}" if number else "noop") for number in range(tasks)
        ]
        self.noop = self.tasks[0]

    def _declare(self, name: str) -> Task[[int], None]:
        @self.jobs.task(name=name)
        async def noop(number: int) -> None:
            self.calls += 1
            if self.calls == self._awaited:
                self._reached.set()
            if self._on_call is not None:
                self._on_call(number)

        return noop

    async def fill(self, jobs: int) -> None:
        """Enqueue ``jobs`` no-ops, of all tasks in turns, in slices."""
        for first in range(0, jobs, SLICE):
            numbers = range(first, min(first + SLICE, jobs))
            await self.jobs.enqueue_many(
                [self.tasks[number % len(self.tasks)].call(number) for number in numbers]
            )

    async def called(self, calls: int) -> None:
        """Return when ``noop`` has been called so often, without reading the store."""
        self._awaited = calls
        if self.calls < calls:
            await self._reached.wait()

    async def settled(self) -> None:
        """Return when no job is due or running, checked every 2 ms."""
        while any(queue.queued or queue.running for queue in (await self.jobs.queues.list()).items):
            await asyncio.sleep(0.002)


async def fill(file: Path, jobs: int, *, tasks: int = 1, paused: bool = False) -> None:
    """Leave a file behind in which ``jobs`` no-ops wait."""
    workload = Workload(file, tasks=tasks, work=False)
    async with workload.jobs.running():
        await workload.fill(jobs)
        if paused:
            await workload.jobs.queues.pause("default")
