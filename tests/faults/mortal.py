"""Workers that kill themselves at a commit: ``python -m tests.faults.mortal FILE``, then a line per worker.

Each line of the input, ``before 3`` or ``after 3``, forks a worker that sends itself SIGKILL right before or after the
third commit that its process makes, on whatever connection.  ``before SELECT ...`` is the first commit in whose
transaction the statement finds something other than 0.  Forked from a process that has imported everything, a worker
lives for a tenth of a second, so that hundreds of deaths are cheap.
"""

import asyncio
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import Depends
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from tenacity import wait_none

from jobrunner import Injected, JobContext, JobQueue, JobRunner, Task, TaskRouter
from jobrunner.fastapi import job_queue
from jobrunner.sqlalchemy import attach
from tests.support.processes import say

T = TypeVar("T")

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


def note(ledger: str, line: str) -> str:
    """Append a line to a file: an effect outside of the database."""
    with open(ledger, "a") as file:  # noqa: PTH123 - one write of a short line, which a kill does not tear
        file.write(f"{line}\n")
    return line


async def items_after(cursor: int | None) -> AsyncIterator[tuple[int, int]]:
    """Yield the numbers to 6, from behind the cursor."""
    for number in range((cursor or 0) + 1, 7):
        yield number, number


@router.task
async def durable(job: JobContext, ledger: str) -> str:
    """Use steps of every kind."""
    token = await job.step("effect", note, ledger, f"{job.id} effect {os.urandom(4).hex()}")
    async with job.transaction(step="rows") as tx:
        if tx is not None:
            await execute_two(tx, job.id)
    await job.sleep(0.001)
    await job.run("children", [link.call(), link.call()])
    async for number in job.iterate("items", items_after, every=2):
        note(ledger, f"{job.id} item {number}")
    return token


@router.task
async def member(ledger: str, number: int) -> int:
    """Be a member of a batch, or a child."""
    note(ledger, f"member {number}")
    return number


@router.task
async def grow(job: JobContext, ledger: str) -> int:
    """Add two members."""
    note(ledger, "grow")
    job.batch.add(member.call(ledger, 1), member.call(ledger, 2))
    return 0


@router.task(max_attempts=3)
async def poison(ledger: str) -> int:
    """Kill the process in each attempt."""
    note(ledger, "poison")
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


@router.task(max_attempts=1)
async def poison_once(ledger: str) -> int:
    """Kill the process in the only attempt."""
    note(ledger, "poison")
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


@router.task
async def then(job: JobContext, ledger: str) -> None:
    """Write which results the callback of a batch sees."""
    seen = [number async for number in job.batch.results(member)]
    note(ledger, f"then {' '.join(map(str, sorted(seen)))}")


@router.task
async def otherwise(job: JobContext, ledger: str) -> None:
    """Write that the batch has not succeeded."""
    batch = await job.batch.get()
    note(ledger, f"otherwise {batch.state}")


@router.task
async def charge(job: JobContext, ledger: str) -> str:
    """Make a step that returns another value each time."""
    return await job.step("charge", note, ledger, f"charged {os.urandom(4).hex()}")


@router.task
async def parent(job: JobContext, ledger: str) -> list[int]:
    """Run two children."""
    return await job.run("children", [member.call(ledger, number) for number in range(2)])


@router.task
async def walk(job: JobContext, ledger: str) -> None:
    """Go through six items, with a cursor after every second one."""
    async for number in job.iterate("items", items_after, every=2, seconds=1_000):
        note(ledger, f"item {number}")


@router.task
async def fan_out(
    job: JobContext,
    ledger: str,
    session: Annotated[AsyncSession, Depends(get_session)] = Injected,
    queue: Annotated[JobQueue, Depends(job_queue(get_session))] = Injected,
) -> None:
    """Store a batch in one transaction with rows."""
    await execute_two(session, job.id)
    await queue.enqueue_batch(
        [member.call(ledger, number) for number in range(2)], then=then.call(ledger)
    )


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


class Death:
    """The commit before or after which this process dies."""

    def __init__(self, side: str, when: str) -> None:
        """Choose it.

        Args:
            side: ``before`` or ``after``.
            when: the number of the commit, or the statement that finds something in its transaction.
        """
        self.side = side
        self.when = when
        self.commits = 0

    def is_at(self, connection: sqlite3.Connection) -> bool:
        """Return whether it is the commit that this connection is about to make."""
        if not mortal.is_set():
            return False
        if not self.when.isdigit():
            return bool(sqlite3.Connection.execute(connection, self.when).fetchone()[0])
        self.commits += 1
        return self.commits == int(self.when)

    def around(self, connection: sqlite3.Connection, commit: Callable[[], T]) -> T:
        """Commit, and die if it is the time for that."""
        is_last = self.is_at(connection)
        if is_last and self.side == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done = commit()
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return done


def die_at(death: Death) -> None:
    """Have this process die at a commit of whatever connection it opens from now on."""
    connect = sqlite3.connect

    def mortal_connect(*args: Any, factory: Any = sqlite3.Connection, **kwargs: Any) -> Any:
        class Mortal(factory):  # type: ignore[misc]
            def execute(self, sql: str, *args: Any) -> Any:
                run = partial(super().execute, sql, *args)
                return death.around(self, run) if sql.startswith("COMMIT") else run()

            def commit(self) -> None:
                if self.in_transaction:
                    death.around(self, super().commit)

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
        side, when = line.strip().split(maxsplit=1)
        child = os.fork()
        if child == 0:
            try:
                die_at(Death(side, when))
                asyncio.run(live(file))
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        say("died", code=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
