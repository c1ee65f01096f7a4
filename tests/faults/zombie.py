"""A worker that lives on without the lock that proves it: ``python -m tests.faults.zombie FILE``.

A stopped process keeps its lock, and so its jobs.  Here a failpoint takes the lock away from a live one in the middle
of a task, and the process stands still until its parent sends a line.  Meanwhile another one takes the job over.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from tenacity import wait_none

from jobrunner import Injected, JobContext, JobRunner, Task, TaskRouter
from jobrunner.sqlalchemy import attach
from jobrunner.store.sqlite.host.locks import WorkerLock
from tests.faults.mortal import add_two_rows, execute_two
from tests.support.engine import worker_of
from tests.support.processes import say

router = TaskRouter(wait=wait_none())

engines: list[AsyncEngine] = []
"""The one of the process."""
misfortunes: list[Callable[[], None]] = []
"""Functions that stop the zombie in the middle of its tasks, last one first; empty in other processes."""


def stumble() -> None:
    """Meet with the next misfortune, in the zombie."""
    if misfortunes:
        misfortunes.pop()()


def mark(job: JobContext) -> str:
    """Return a text that an attempt writes, different for each attempt."""
    return f"{job.id} {job.attempt}"


@router.task
async def write(job: JobContext) -> None:
    """Use ``job.write()``."""
    job.write(add_two_rows, mark(job))
    stumble()


async def get_session() -> AsyncIterator[AsyncSession]:
    """Yield a session on the file of the process."""
    async with AsyncSession(engines[0]) as session:
        yield session


@router.task
async def transact(job: JobContext) -> None:
    """Use ``job.transaction()``."""
    stumble()
    async with job.transaction() as tx:
        await execute_two(tx, mark(job))


@router.task
async def inject(
    job: JobContext, session: Annotated[AsyncSession, Depends(get_session)] = Injected
) -> None:
    """Use an injected session."""
    stumble()
    await execute_two(session, mark(job))


FORMS: dict[str, Task[[], None]] = {"write": write, "transaction": transact, "session": inject}


def runner(file: str) -> JobRunner:
    """Return a runner of these tasks, with an engine for their sessions."""
    engines.append(create_async_engine(f"sqlite+aiosqlite:///{file}"))
    attach(engines[-1])
    jobs = JobRunner(file, session=get_session)
    jobs.include(router)
    return jobs


class _Refusals(logging.Handler):
    """Notifies the parent when the fence has refused the zombie's outcome."""

    def emit(self, record: logging.LogRecord) -> None:
        if "its lease had been taken away" in record.getMessage():
            say("refused")


def unaware(self: WorkerLock) -> bool:
    """Replace the worker's check of its lock, which would stop the worker if it ran in time."""
    return True


async def live(file: str) -> None:
    """Work, and lose the lock in the middle of the first task."""
    jobs = runner(file)
    logging.getLogger("jobrunner").addHandler(_Refusals())
    WorkerLock.still_ours = unaware  # type: ignore[method-assign]
    async with jobs.running():
        store = worker_of(jobs)._store
        (lock,) = store.workers._locks.values()  # type: ignore[attr-defined]

        def lose_lock() -> None:
            # The kernel drops a process's lock when the process closes any descriptor of the file.
            os.close(os.open(lock.path, os.O_RDWR))
            say("lost")
            sys.stdin.readline()  # the loop stands still as well: no round, no look

        # In a second task it dies.
        misfortunes.extend([lambda: os.kill(os.getpid(), signal.SIGKILL), lose_lock])
        say("ready")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(live(sys.argv[1]))
