"""Workers on PostgreSQL that kill themselves at a commit: ``python -m tests.faults.postgres_mortal URL``.

Each line of the input, ``before 3`` or ``after 3``, forks a worker that sends itself SIGKILL right before or after the
third commit of its sessions, or of a round that writes rows.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import asyncpg
import psycopg
from fastapi import Depends
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    insert,
    update,
)
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from tenacity import wait_none

from jobrunner import Injected, JobContext, JobRunner, Task, TaskRouter
from jobrunner.store.postgres import workers
from tests.support.postgres_sessions import with_driver
from tests.support.processes import say

effects = Table("effects", MetaData(), Column("job", String))
counter = Table("counter", MetaData(), Column("number", Integer))

engines: list[Any] = []
"""The asynchronous and the blocking one of the process; made behind the fork."""

router = TaskRouter(max_attempts=10_000, wait=wait_none())


async def get_session() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engines[0]) as session:
        yield session


def get_blocking_session() -> Iterator[Session]:
    with Session(engines[1]) as session:
        yield session


def two(job: str) -> Iterator[Any]:
    """Yield what must be done once: a row, and one more on a counter."""
    yield insert(effects).values(job=job)
    yield update(counter).values(number=counter.c.number + 1)


@router.task
async def write(job: JobContext) -> None:
    """Use ``job.write()``."""
    for statement in two(job.id):
        job.write(statement)


@router.task
async def transact(job: JobContext) -> None:
    """Use ``job.transaction()``."""
    async with job.transaction() as tx:
        for statement in two(job.id):
            await tx.execute(statement)


@router.task
async def inject(
    job: JobContext, session: Annotated[AsyncSession, Depends(get_session)] = Injected
) -> None:
    """Use an injected session."""
    for statement in two(job.id):
        await session.execute(statement)


blocking_router = TaskRouter(max_attempts=10_000, wait=wait_none())


@blocking_router.task
def blocking_transact(job: JobContext) -> None:
    """Use ``job.transaction()`` in a thread."""
    with job.transaction() as tx:
        for statement in two(job.id):
            tx.execute(statement)


@blocking_router.task
def blocking_inject(
    job: JobContext, session: Annotated[Session, Depends(get_blocking_session)] = Injected
) -> None:
    """Use an injected session in a thread."""
    for statement in two(job.id):
        session.execute(statement)


FORMS: dict[str, Task[[], None]] = {
    "write": write,
    "transaction": transact,
    "session": inject,
    "blocking transaction": blocking_transact,
    "blocking session": blocking_inject,
}


def make_tables(url: str) -> None:
    """Make the application's tables, empty."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS effects, counter")
        connection.execute("CREATE TABLE effects (job text NOT NULL)")
        connection.execute("CREATE TABLE counter (number bigint NOT NULL)")
        connection.execute("INSERT INTO counter VALUES (0)")


def runner(url: str, form: str) -> JobRunner:
    """Return a runner for the tasks of a form."""
    is_blocking = form.startswith("blocking")
    session = get_blocking_session if is_blocking else get_session
    jobs = JobRunner(url, queues={"default": 4}, session=session)
    jobs.include(blocking_router if is_blocking else router)
    return jobs


class Death:
    """The commit before or after which this process dies."""

    def __init__(self, side: str, number: int) -> None:
        self.side = side
        self.number = number
        self.commits = 0

    def before(self, *_: Any) -> None:
        self.commits += 1
        if self.commits == self.number and self.side == "before":
            os.kill(os.getpid(), signal.SIGKILL)

    def after(self, *_: Any) -> None:
        if self.commits >= self.number and self.side == "after":
            os.kill(os.getpid(), signal.SIGKILL)


def die_at(death: Death, form: str) -> None:
    """Have this process die at a commit of its sessions, or at one of its rounds that write."""
    if form != "write":
        for engine in engines:
            event.listen(getattr(engine, "sync_engine", engine), "commit", death.before)
        event.listen(Session, "after_commit", death.after)
        return
    execute = asyncpg.Connection.execute
    written: set[int] = set()

    async def mortal(self: Any, query: str, *args: Any, **options: Any) -> Any:
        if "INTO effects" in query:
            written.add(id(self))
        is_ours = query == "COMMIT" and id(self) in written
        if is_ours:
            death.before()
        answer = await execute(self, query, *args, **options)
        if is_ours:
            written.discard(id(self))
            death.after()
        return answer

    asyncpg.Connection.execute = mortal


async def live(url: str, form: str, death: Death) -> None:
    """Work until the end, which comes at the latest when nothing is left to do."""
    vars(workers)["RESTART_GRACE_S"] = 0
    asynchronous: AsyncEngine = create_async_engine(with_driver(url, "asyncpg"))
    engines[:] = [asynchronous, create_engine(with_driver(url, "psycopg"))]
    die_at(death, form)
    jobs = runner(url, form)
    async with jobs.running():
        while any(q.queued or q.running or q.scheduled for q in (await jobs.queues.list()).items):  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # noqa: TID251 - nobody tells when nothing is left
        os._exit(0)


def main() -> None:
    """Fork a worker per line, and say how it ended."""
    url, form = sys.argv[1:]
    say("ready")
    for line in sys.stdin:
        side, number = line.split()
        child = os.fork()
        if child == 0:
            try:
                asyncio.run(live(url, form, Death(side, int(number))))
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        say("died", code=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
