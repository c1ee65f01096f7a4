"""Rows of the application and the end of the job in one commit: sessions that a task is handed."""

import asyncio
import logging
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends
from sqlalchemy import text

from jobrunner import (
    Injected,
    JobContext,
    JobQueue,
    WouldDeadlock,
)
from jobrunner.core.logs import WHOLE
from tests.support.engine import Gate, producer_of, soon, waiting_for
from tests.support.scripts import run
from tests.worker.site import Site, ended, until_idle


async def test_rows_of_an_injected_session_are_there_with_the_success(site: Site) -> None:
    session_dep = Annotated[Any, Depends(site.get_session)]

    @site.tasks.task
    async def work(word: str, session: session_dep = Injected) -> str:
        await site.add(session, word)
        return word.upper()

    async with site.open() as jobs:
        job = await work.enqueue("a")
        assert await job.result(timeout=15) == "A"
        assert site.words() == ["a"]
        async with asyncio.timeout(15):
            while site.closed != 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # noqa: TID251 - the clean-up comes after the end
        assert [one.outcome for one in (await jobs.get(job.id)).history] == ["succeeded"]


async def test_rows_of_an_injected_session_of_a_def_task_are_there_with_the_success(
    blocking: Site,
) -> None:
    session_dep = Annotated[Any, Depends(blocking.get_session)]

    @blocking.tasks.task
    def work(word: str, session: session_dep = Injected) -> str:
        blocking.add_now(session, word)
        return word.upper()

    async with blocking.open():
        job = await work.enqueue("a")
        assert await job.result(timeout=15) == "A"
        assert blocking.words() == ["a"]


@pytest.mark.usefixtures("no_read")
async def test_result_of_an_injected_session_comes_with_its_commit(site: Site) -> None:
    session_dep = Annotated[Any, Depends(site.get_session)]
    gate = Gate()

    @site.tasks.task
    async def work(word: str, session: session_dep = Injected) -> str:
        await gate.enter()
        await site.add(session, word)
        return word.upper()

    async with site.open() as jobs:
        job = await work.enqueue("a")
        await gate.arrival()
        waiting = await waiting_for(jobs, job)
        gate.open()
        assert await soon(waiting) == "A"


async def test_injected_session_without_changes_is_settled_as_ever(site: Site) -> None:
    session_dep = Annotated[Any, Depends(site.get_session)]

    @site.tasks.task
    async def work(session: session_dep = Injected) -> str:
        await session.execute(
            text("SELECT 1") if site.kind.endswith("AsyncSession") else "SELECT 1"
        )
        return "read"

    async with site.open():
        assert await (await work.enqueue()).result(timeout=15) == "read"


async def test_attempt_that_returns_a_coroutine_leaves_no_row_of_its_injected_session(
    site: Site,
) -> None:
    session_dep = Annotated[Any, Depends(site.get_session)]

    async def send() -> None: ...

    @site.tasks.task(max_attempts=1)
    async def work(session: session_dep = Injected) -> Any:
        await site.add(session, "a")
        return [send()] if site.kind == "aiosqlite" else send()

    async with site.open() as jobs:
        job = await ended(await work.enqueue())
        assert (await jobs.dead_letters.get(job.id)).error_type == "NotAwaited"
    assert site.words() == []


async def test_failed_attempt_leaves_no_row_of_its_injected_session(site: Site) -> None:
    session_dep = Annotated[Any, Depends(site.get_session)]

    @site.tasks.task
    async def work(job: JobContext, session: session_dep = Injected) -> None:
        await site.add(session, f"{job.attempt}")
        if job.attempt == 1:
            raise ValueError

    async with site.open():
        job = await ended(await work.enqueue())
        assert [one.outcome for one in job.history] == ["failed", "succeeded"]
        assert site.words() == ["2"]


async def test_commit_of_the_handlers_own_is_warned_of_once_per_task(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    session_dep = Annotated[Any, Depends(site.get_session)]

    @site.tasks.task
    async def work(word: str, session: session_dep = Injected) -> None:
        await site.add(session, word)
        await site.commit(session)

    async with site.open():
        for word in ("a", "b"):
            await (await work.enqueue(word)).result(timeout=15)
        assert site.words() == ["a", "b"]
        warnings = [r for r in caplog.records if "commits its session itself" in r.getMessage()]
        # Bare connections of PostgreSQL do not show that they have committed.
        is_known = site.kind.endswith("AsyncSession") or not site.is_postgres
        assert [record.levelno for record in warnings] == [logging.WARNING] * is_known


async def test_commit_of_each_of_many_tasks_is_warned_of(
    tmp_db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each has its line once, so that none of them may be taken for one of a flood."""
    site = Site(tmp_db, "AsyncSession")
    session_dep = Annotated[Any, Depends(site.get_session)]

    async def work(word: str, session: session_dep = Injected) -> None:
        await site.add(session, word)
        await session.commit()

    tasks = [site.tasks.task(name=f"work_{number}")(work) for number in range(WHOLE + 2)]
    async with site.open():
        for number, task in enumerate(tasks):
            await (await task.enqueue(f"{number}")).result(timeout=15)
    for number in range(len(tasks)):
        assert f"work_{number} commits its session itself" in caplog.text


async def test_commit_in_the_middle_of_the_handler_is_warned_of(
    tmp_db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A bare connection does not show it when it is in its next transaction."""
    site = Site(tmp_db, "AsyncSession")
    session_dep = Annotated[Any, Depends(site.get_session)]

    @site.tasks.task
    async def work(session: session_dep = Injected) -> None:
        await site.add(session, "a")
        await session.commit()
        await site.add(session, "b")

    async with site.open():
        await (await work.enqueue()).result(timeout=15)
        assert site.words() == ["a", "b"]
    assert "work commits its session itself" in caplog.text


def test_commit_of_the_handlers_own_is_warned_of_at_the_first_job_of_a_process(
    tmp_db: Path,
) -> None:
    """A commit that comes before anything was stored through a session."""
    script = """
import asyncio, logging, sys
from typing import Annotated, Any
from fastapi import Depends
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from jobrunner import Injected, JobRunner
from jobrunner.sqlalchemy import attach

engine = create_async_engine(f"sqlite+aiosqlite:///{sys.argv[1]}")
attach(engine)

async def get_session():
    async with AsyncSession(engine) as session:
        yield session

jobs = JobRunner(sys.argv[1], session=get_session)

@jobs.task
async def work(session: Annotated[Any, Depends(get_session)] = Injected) -> None:
    await session.execute(text("CREATE TABLE words (word TEXT)"))
    await session.commit()

async def main():
    async with jobs.running():
        await (await work.enqueue()).result(timeout=15)
    await engine.dispose()

logging.basicConfig(stream=sys.stdout, level="WARNING", format="%(message)s")
asyncio.run(main())
"""
    assert run(script, tmp_db).startswith("work commits its session itself")


async def test_B16_injected_session_of_an_attempt_whose_lease_was_taken_writes_nothing(
    site: Site,
) -> None:
    gate = Gate()
    session_dep = Annotated[Any, Depends(site.get_session)]

    @site.tasks.task
    async def work(job: JobContext, session: session_dep = Injected) -> None:
        if job.attempt == 1:
            await gate.enter()
        await site.add(session, f"{job.attempt}")

    async with site.open() as jobs:
        job = await work.enqueue()
        await gate.arrival()
        site.outside(
            "UPDATE jobrunner_jobs SET state = 'queued', worker = NULL WHERE state = 'running'"
        )
        producer_of(jobs).wake()
        assert (await ended(job)).state == "succeeded"
        gate.open()
        await soon(asyncio.create_task(until_idle(jobs)))
        assert site.words() == ["2"]


async def test_queue_of_the_runner_joins_the_injected_session(site: Site) -> None:
    session_dep = Annotated[Any, Depends(site.get_session)]
    queue_dep = Annotated[JobQueue, Depends(site.jobs.queue)]

    @site.tasks.task
    async def child(word: str) -> str:
        return word

    @site.tasks.task
    async def work(
        job: JobContext, queue: queue_dep = Injected, session: session_dep = Injected
    ) -> None:
        await site.add(session, f"{job.attempt}")
        await queue.enqueue(child, f"{job.attempt}")
        if job.attempt == 1:
            raise ValueError

    async with site.open() as jobs:
        await ended(await work.enqueue())
        (one,) = (await jobs.list(task="child")).items
        assert await one.result(timeout=15) == "2"
        assert site.words() == ["2"]


async def test_write_of_its_own_beside_the_injected_session_is_refused_at_once(
    tmp_db: Path,
) -> None:
    site = Site(tmp_db, "AsyncSession")
    session_dep = Annotated[Any, Depends(site.get_session)]

    @site.tasks.task
    async def child() -> None: ...

    @site.tasks.task
    async def work(session: session_dep = Injected) -> str:
        await site.add(session, "a")
        with pytest.raises(WouldDeadlock) as refused:
            await child.enqueue()
        await child.options(session=session).enqueue()
        return str(refused.value)

    async with site.open() as jobs:
        assert "options(session=session)" in await (await work.enqueue()).result(timeout=15)
        assert len((await jobs.list(task="child")).items) == 1
        assert site.words() == ["a"]
