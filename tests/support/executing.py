"""Attempts of a task, run by the executor without a store."""

import asyncio
from collections.abc import Callable
from typing import Any

from tenacity import wait_fixed

from jobrunner import Task, TaskRouter
from jobrunner.core.model import Outcome
from jobrunner.worker.attempt import Attempt
from jobrunner.worker.executor import execute
from jobrunner.worker.thread_pool import Threads
from tests.support.engine import claimed, soon


class Run:
    """An attempt under way, as the supervisor runs it."""

    def __init__(self, task: Task[..., Any], threads: Threads, **job: Any) -> None:
        self.attempt = Attempt(claimed(task=task.name, **job), task.spec)
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._threads = threads
        self.attempt.task = asyncio.create_task(self._run())
        asyncio.get_running_loop().call_soon(self.attempt.start_timer)

    async def _run(self) -> None:
        self.outcome.set_result(await execute(self.attempt, self._threads))


async def end_of(task: Task[..., Any], threads: Threads, **job: Any) -> Outcome:
    run = Run(task, threads, **job)
    outcome = await soon(run.outcome)
    assert run.attempt._timer is None, "a timer was left behind"
    return outcome


def task_raising(error: Callable[[], BaseException]) -> Task[[], None]:
    router = TaskRouter(wait=wait_fixed(60), max_attempts=3)

    @router.task
    async def steer() -> None:
        raise error()

    return steer
