"""Kills a job's worker, and recovers the job with a second one."""

import asyncio
import warnings
from contextvars import copy_context
from typing import Any, Final

from jobrunner.core.logs import log_of
from jobrunner.queue.queue import enqueuer_of
from jobrunner.store.open import GuardedCommits
from jobrunner.tasks import current_queue
from jobrunner.tasks.call import Call
from jobrunner.tasks.task import Task
from jobrunner.testing.commits import watched
from jobrunner.testing.crash_points import (
    CrashPoint,
    Life,
    UnseenCommit,
    current_life,
    mortal_tasks,
)
from jobrunner.testing.driver import Driver
from jobrunner.testing.runners import TestedRunners

logger = log_of("jobrunner.testing")

_UNSEEN: Final = (
    "while {} ran, somebody committed on the jobs' file by a connection that crash_points() does not see, so that there"
    " was no crash point: open it in the task, in a dependency or in the lifespan, by sqlite3.connect()"
)


async def killed_at(
    runners: TestedRunners,
    number: int,
    task: Task[..., Any],
    call: Call[Any],
    commits: GuardedCommits,
    timeout: float,
) -> CrashPoint | None:
    """Enqueue a job, kill its worker at a crash point, and recover it.

    A second worker runs the job to its end.

    Args:
        runners: The open runners, of which no job is due.
        number: The number of the crash point.
        task: The task.
        call: The call of it to store.
        commits: Sees the application's commits on the file.
        timeout: The longest real time in seconds.

    Returns:
        The crash point; None if the job has ended before it.
    """
    runner = runners.runner_of(task)
    life = Life(number)
    outside = copy_context()
    job = await enqueuer_of(runner.queue).enqueue_call(call)
    life.job = job.id
    doomed = Driver(runner)
    # Until the end of the recovery: a thread may outlive its worker, and stops at its next commit.
    with mortal_tasks(), watched(runner.store, commits, life) as was_unseen:
        with runners.works(), doomed.listening():
            inside = outside.copy()
            inside.run(current_life.set, life)
            inside.run(current_queue.running.set, enqueuer_of(runner.queue))
            started = asyncio.create_task(doomed.worker.start(), context=inside)

            async def work() -> None:
                await started
                await runners.run_to_end([doomed], job.id)

            ends = [
                asyncio.create_task(work(), context=outside),
                asyncio.create_task(life.ended.wait(), context=outside),
            ]
            try:
                await runners.in_time(
                    [doomed], asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED), timeout
                )
                if life.point is None:
                    await ends[0]  # raises its error
            finally:
                for end in ends:
                    end.cancel()
                await asyncio.wait(ends)
        if life.point is None:
            await doomed.worker.stop()
            if was_unseen():
                warnings.warn(_UNSEEN.format(task.name), UnseenCommit, stacklevel=1)
            return None
        # As the kernel does for a dead process.
        runner.store.workers.close()
        doomed.abandon()
        logger.warning("%s: the worker was killed, and another one recovers the job", life.point)
        async with runners.driven() as drivers:
            await runners.in_time(drivers, runners.run_to_end(drivers, job.id), timeout)
    return life.point
