"""Workers that kill themselves at a commit: ``python -m tests.faults.mortal FILE``, then a line per worker.

Each line of the input, ``before 3`` or ``after 3``, forks a worker that sends itself SIGKILL right before or after the
third commit that its process makes, on whatever connection.  Forked from a process that has imported everything, a
worker lives for a tenth of a second, so that hundreds of deaths are cheap.
"""

import asyncio
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from tenacity import wait_none

from jobrunner import Injected, JobContext, JobRunner, Task, TaskRouter
from jobrunner.sqlalchemy import attach
from tests.support.processes import say

engines: list[AsyncEngine] = []
"""The one of the process; made behind the fork."""

router = TaskRouter(max_attempts=10_000, wait=wait_none())


def add_two_rows(connection: sqlite3.Connection, job: str) -> None:
    """Write what must be there once: a row, and one more on a counter."""
    connection.execute("INSERT INTO effects (job) VALUES (?)", (job,))
    connection.execute("UPDATE counter SET number = number + 1")


@router.task
async def write(job: JobContext) -> None:
    """Use ``job.write()``."""
    job.write(add_two_rows, job.id)


async def get_session() -> AsyncIterator[AsyncSession]:
    """Yield a session on the file of the process."""
    async with AsyncSession(engines[0]) as session:
        yield session


@router.task
async def transact(job: JobContext) -> None:
    """Use ``job.transaction()``."""
    async with job.transaction() as tx:
        await execute_two(tx, job.id)


@router.task
async def inject(
    job: JobContext, session: Annotated[AsyncSession, Depends(get_session)] = Injected
) -> None:
    """Use an injected session."""
    await execute_two(session, job.id)


async def execute_two(session: AsyncSession, job: str) -> None:
    """Do as ``add_two_rows``."""
    await session.execute(text("INSERT INTO effects (job) VALUES (:job)"), {"job": job})
    await session.execute(text("UPDATE counter SET number = number + 1"))


@router.task
async def link() -> None:
    """Be one of a chain."""


FORMS: dict[str, Task[[], None]] = {"write": write, "transaction": transact, "session": inject}


def make_tables(file: str) -> None:
    """Make the application's tables."""
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE effects (job TEXT NOT NULL)")
    connection.execute("CREATE TABLE counter (number INTEGER NOT NULL)")
    connection.execute("INSERT INTO counter VALUES (0)")
    connection.commit()
    connection.close()


mortal = threading.Event()
"""Set once the worker is at work: to die while it opens is another test's business."""


# -- death -----------------------------------------------------------------------------------------------


def die_at(side: str, number: int) -> None:
    """Have this process die before or after the so manieth commit that it makes."""
    commits = 0
    connect = sqlite3.connect

    def count(here: str) -> None:
        nonlocal commits
        commits += mortal.is_set() and here == "before"
        if here == side and commits == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def mortal_connect(*args: Any, factory: Any = sqlite3.Connection, **kwargs: Any) -> Any:
        class Mortal(factory):  # type: ignore[misc]
            def execute(self, sql: str, *args: Any) -> Any:
                if not sql.startswith("COMMIT"):
                    return super().execute(sql, *args)
                count("before")
                done = super().execute(sql, *args)
                count("after")
                return done

            def commit(self) -> None:
                if self.in_transaction:
                    count("before")
                    super().commit()
                    count("after")

        return connect(*args, factory=Mortal, **kwargs)

    sqlite3.connect = mortal_connect


async def live(file: str) -> None:
    """Work until the end, which comes at the latest when nothing is left to do."""
    engines.append(create_async_engine(f"sqlite+aiosqlite:///{file}"))
    attach(engines[0])
    jobs = JobRunner(file, queues={"default": 4}, session=get_session)
    jobs.include(router)
    async with jobs.running():
        mortal.set()
        while any(q.queued or q.running or q.scheduled for q in (await jobs.queues.list()).items):  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # noqa: TID251 - nobody tells when nothing is left
        os._exit(0)


def main() -> None:
    """Fork a worker per line, and say how it ended."""
    file = sys.argv[1]
    say("ready")
    for line in sys.stdin:
        side, number = line.split()
        child = os.fork()
        if child == 0:
            try:
                die_at(side, int(number))
                asyncio.run(live(file))
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        say("died", code=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
