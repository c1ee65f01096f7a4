"""The commits that a task makes itself are crash points too, in an async task and in a thread."""

import asyncio
import contextlib
import sqlite3
import threading
from contextvars import copy_context

import aiosqlite
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from jobrunner import JobContext, Task, TaskRouter
from jobrunner.testing import JobTester
from jobrunner.testing.crash_points import KILLED_THREAD
from tests.testing.booking import BOOK, CLAIM, COMMIT, END, ENQUEUE, Shop, opened

tasks = TaskRouter()


def book_twice(id: str) -> None:
    """Commit the first step by the method, and the second one by the block."""
    (shop,) = opened
    with contextlib.closing(sqlite3.connect(shop.path)) as conn:
        conn.execute(BOOK, {"job": id, "step": 1})
        conn.commit()
        shop.between.append(id)
        with conn:
            conn.execute(BOOK, {"job": id, "step": 2})


@tasks.task
async def by_session(job: JobContext) -> None:
    """Commit twice by the session."""
    (shop,) = opened
    async with AsyncSession(shop.engine) as session:
        await session.execute(text(BOOK), {"job": job.id, "step": 1})
        await session.commit()
        shop.between.append(job.id)
        await session.execute(text(BOOK), {"job": job.id, "step": 2})
        await session.commit()


@tasks.task
async def by_engine(job: JobContext) -> None:
    """Commit twice by the engine."""
    (shop,) = opened
    async with shop.engine.begin() as conn:
        await conn.execute(text(BOOK), {"job": job.id, "step": 1})
    shop.between.append(job.id)
    async with shop.engine.begin() as conn:
        await conn.execute(text(BOOK), {"job": job.id, "step": 2})


@tasks.task
async def by_aiosqlite(job: JobContext) -> None:
    """Commit twice on a bare connection."""
    (shop,) = opened
    async with aiosqlite.connect(shop.path) as conn:
        await conn.execute(BOOK, {"job": job.id, "step": 1})
        await conn.commit()
        shop.between.append(job.id)
        await conn.execute(BOOK, {"job": job.id, "step": 2})
        await conn.commit()


@tasks.task
async def by_sqlite3(job: JobContext) -> None:
    """Commit twice in blocking code on the event loop."""
    book_twice(job.id)


@tasks.task
async def by_to_thread(job: JobContext) -> None:
    """Commit twice in a thread of the interpreter's pool."""
    await asyncio.to_thread(book_twice, job.id)


@tasks.task
def by_sqlite3_in_a_thread(job: JobContext) -> None:
    """Commit twice in a thread."""
    (shop,) = opened
    with shop.noted(job.id):
        book_twice(job.id)


@tasks.task
def by_a_loop_of_its_own(job: JobContext) -> None:
    """Commit twice on a loop that the task runs in its thread."""
    (shop,) = opened
    with shop.noted(job.id):
        asyncio.run(by_aiosqlite(job))


@tasks.task
def by_session_in_a_thread(job: JobContext) -> None:
    """Commit twice by a blocking session."""
    (shop,) = opened
    with shop.noted(job.id), Session(shop.blocking) as session:
        session.execute(text(BOOK), {"job": job.id, "step": 1})
        session.commit()
        shop.between.append(job.id)
        session.execute(text(BOOK), {"job": job.id, "step": 2})
        session.commit()


@tasks.task
async def receipt(id: str) -> None:
    """Stay in the queue."""


@tasks.task
def with_receipt(job: JobContext) -> None:
    """Wait in a thread for an enqueue."""
    (shop,) = opened
    with shop.noted(job.id):
        shop.jobs.sync.enqueue(receipt.options(key=job.id, delay=3600), job.id)


@tasks.task
def outlived(job: JobContext) -> None:
    """Let a thread of the killed worker book while the second worker recovers the job."""
    (shop,) = opened
    shop.contexts.append(copy_context())
    if len(shop.contexts) == 2:
        thread = threading.Thread(
            target=shop.contexts[0].run, args=(book_twice, job.id), daemon=True
        )
        thread.start()
        while thread.is_alive() and thread.name != KILLED_THREAD:
            thread.join(0.01)


@tasks.task
async def elsewhere(job: JobContext) -> None:
    """Commit to another file, and a transaction with nothing in it."""
    (shop,) = opened
    with contextlib.closing(sqlite3.connect(shop.path.with_name("other.db"))) as conn:
        conn.execute("CREATE TABLE IF NOT EXISTS steps (job, step)")
        conn.execute(BOOK, {"job": job.id, "step": 1})
        conn.commit()
    async with AsyncSession(shop.engine) as session:
        await session.execute(text("SELECT 1"))
        await session.commit()


@pytest.mark.parametrize(
    "task",
    [
        by_session,
        by_engine,
        by_aiosqlite,
        by_sqlite3,
        by_to_thread,
        by_sqlite3_in_a_thread,
        by_a_loop_of_its_own,
        by_session_in_a_thread,
    ],
    ids=lambda task: task.name,
)
async def test_own_commits_are_points_and_an_effect_between_them_is_found(
    tester: JobTester, shop: Shop, task: Task[[], None]
) -> None:
    found, effects = [], []
    async for crash in tester.crash_points(task, setup=shop.forget, timeout=10):
        found.append(crash.at)
        effects.append(len(shop.between))
        # The steps themselves may be booked again, so the task is correct apart from the effect.
        assert shop.booked() == [1, 2], crash
        assert [run.state for run in tester.runs(task)] == ["succeeded"]
    assert found == CLAIM + COMMIT + COMMIT + END
    # Repeated wherever the worker dies after the effect, and before its job is settled.
    assert effects == [1, 1, 1, 1, 2, 2, 2, 1]


async def test_other_files_and_empty_transactions_are_no_points(tester: JobTester) -> None:
    assert [crash.at async for crash in tester.crash_points(elsewhere)] == CLAIM + END


@pytest.mark.parametrize(
    "task",
    [by_sqlite3_in_a_thread, by_a_loop_of_its_own, by_session_in_a_thread, with_receipt],
    ids=lambda task: task.name,
)
async def test_def_task_gets_no_further_line_not_even_its_finally(
    tester: JobTester, shop: Shop, task: Task[[], None]
) -> None:
    found = []
    async for crash in tester.crash_points(task, setup=shop.forget):
        (run,) = tester.runs(task)
        # Once by the second worker, and before it only by an attempt that had reached its end.
        assert shop.lasts == [run.id] * (2 if crash.at == END[0] else 1), crash
        found.append(crash.at)
    assert found == CLAIM + (ENQUEUE if task is with_receipt else COMMIT + COMMIT) + END


async def test_enqueue_of_a_def_task_is_lost_or_stored_as_a_whole(tester: JobTester) -> None:
    async for crash in tester.crash_points(with_receipt):
        (run,) = tester.runs(with_receipt)
        tester.assert_enqueued(receipt, run.id, times=1)
        assert run.state == "succeeded", crash


async def test_thread_that_outlives_its_worker_commits_nothing(
    tester: JobTester, shop: Shop
) -> None:
    attempts = {}
    async for crash in tester.crash_points(outlived, setup=shop.forget):
        attempts[crash.at] = len(shop.contexts)
        assert shop.booked() == []
        assert shop.between == []
    assert attempts == {CLAIM[0]: 1, CLAIM[1]: 1, END[0]: 2, END[1]: 1}


async def test_threads_of_killed_def_tasks_are_daemons(tester: JobTester) -> None:
    before = set(threading.enumerate())
    async for _ in tester.crash_points(by_sqlite3_in_a_thread):
        pass
    killed = [one for one in set(threading.enumerate()) - before if one.name == KILLED_THREAD]
    assert len(killed) == 4  # one for each of its commits' points
    assert all(one.daemon for one in killed)
