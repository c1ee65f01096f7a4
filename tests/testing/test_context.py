"""A job context without a job, for direct calls of a task."""

import contextlib
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from datetime import UTC, datetime

import pytest

from jobrunner import InvalidStep, InvalidWrite, JobContext, JobRunner, NotRunning, WaitTimedOut
from jobrunner.testing import FakeContext, fake_context

tenant = ContextVar("tenant", default="none")
jobs = JobRunner("sqlite:///never.db")


@jobs.task
async def book(job: JobContext, amount: int) -> int:
    def add(conn: sqlite3.Connection, value: int) -> None:
        conn.execute("INSERT INTO bookings VALUES (?, ?)", (value, tenant.get()))

    if job.cancelled:
        return 0
    job.logger.info("books %d", amount)
    job.write(add, amount)
    job.write(add, value=amount + 1)
    return job.attempt


async def test_task_is_called_directly_and_its_writes_are_run_by_the_test() -> None:
    job = fake_context(attempt=3)
    token = tenant.set("acme")
    assert await book(job, 7) == 3
    tenant.reset(token)
    assert job.writes == 2
    with contextlib.closing(sqlite3.connect(":memory:")) as conn:
        conn.execute("CREATE TABLE bookings (amount, tenant)")
        job.run_writes(conn)
        job.run_writes(conn)  # nothing is left
        assert conn.execute("SELECT * FROM bookings").fetchall() == [(7, "acme"), (8, "acme")]
    assert job.writes == 0


async def test_context_can_be_cancelled() -> None:
    job = fake_context()
    job.cancel()
    assert await book(job, 7) == 0
    assert job.writes == 0


def test_fields_are_those_of_a_first_attempt_or_given() -> None:
    job = fake_context()
    assert isinstance(job, JobContext)
    assert isinstance(job, FakeContext)
    assert (job.attempt, job.max_attempts, job.queue, job.scheduled_for) == (
        1,
        None,
        "default",
        None,
    )
    assert job.id != fake_context().id
    at = datetime(2026, 3, 4, tzinfo=UTC)
    given = fake_context(
        id="x", attempt=2, max_attempts=5, task="book", queue="mail", scheduled_for=at
    )
    assert (given.id, given.attempt, given.max_attempts) == ("x", 2, 5)
    assert (given.task, given.queue, given.scheduled_for) == ("book", "mail", at)


def test_writes_are_checked_and_there_is_no_transaction() -> None:
    job = fake_context()
    with pytest.raises(InvalidWrite):
        job.write(7)  # type: ignore[call-overload]
    with pytest.raises(NotRunning):
        job.transaction()


async def pay(amount: int) -> str:
    return f"paid {amount}"


def reserve(days: int) -> str:
    return f"booked {days}"


async def users(cursor: int | None) -> AsyncIterator[tuple[int, str]]:
    for id in range(cursor or 0, 3):
        yield id, f"user {id}"


def rows(cursor: int | None) -> Iterator[tuple[int, str]]:
    for id in range(cursor or 0, 3):
        yield id, f"row {id}"


async def order(job: JobContext, amount: int) -> list[str]:
    receipt = await job.step("charge", pay, amount)
    try:
        by = await job.wait_for("approved", str, timeout=3600)
    except WaitTimedOut:
        return [receipt, "nobody looked"]
    await job.sleep(86_400)
    booked = await job.step("book", reserve, days=3)
    return [receipt, by, booked, *[user async for user in job.iterate("users", users)]]


async def test_steps_run_and_waits_end_at_once() -> None:
    ended = await order(fake_context(signals={"approved": "ann"}), 7)
    assert ended == ["paid 7", "ann", "booked 3", "user 0", "user 1", "user 2"]
    assert await order(fake_context(), 7) == ["paid 7", "nobody looked"]


def test_def_task_has_the_blocking_forms() -> None:
    job = fake_context(signals={"approved": "ann"})
    job.sync.sleep(86_400)
    assert job.sync.wait_for("approved", str) == "ann"
    assert job.sync.step("book", reserve, 3) == "booked 3"
    assert list(job.sync.iterate("rows", rows)) == ["row 0", "row 1", "row 2"]


async def test_name_twice_a_wait_for_ever_and_children_are_refused() -> None:
    job = fake_context()
    await job.step("book", reserve, 3)
    with pytest.raises(InvalidStep, match="'book' stands twice"):
        await job.step("book", reserve, 3)
    with pytest.raises(NotRunning, match="signals="):
        await job.wait_for("approved", str)
    with pytest.raises(NotRunning, match="no children"):
        await job.run("pages", [])


def test_writes_of_several_threads_are_all_kept() -> None:
    job = fake_context()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            for _ in range(4):
                pool.submit(lambda: [job.write(print) for _ in range(2_000)])
    finally:
        sys.setswitchinterval(interval)
    assert job.writes == 8_000
