"""``job.run()`` and ``job.iterate()``: children whose parent holds no slot, and cursors over attempts."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tenacity import wait_none

from jobrunner import (
    InvalidStep,
    Job,
    JobCancelled,
    JobContext,
    JobDead,
    JobRunner,
    StepMismatch,
    WrongThread,
)
from tests.support.engine import Gate, next_round, soon, store_of

pytestmark = pytest.mark.each_store


@pytest.fixture
def jobs(store_url: str) -> JobRunner:
    # One slot: a parent that held it would keep its children from running.
    return JobRunner(store_url, queues={"default": 1})


async def died(job: Job[Any]) -> str:
    with pytest.raises(JobDead) as caught:
        await soon(job.result())
    return str(caught.value)


# -- children --------------------------------------------------------------------------------------------


async def test_children_run_while_their_parent_holds_no_slot(jobs: JobRunner) -> None:
    """Fault 8 too: a run without children has ended at once."""
    runs: list[int] = []

    @jobs.task
    async def resize(page: int) -> tuple[int, str]:
        assert runs
        return page, f"page {page}"

    @jobs.task(max_attempts=1)
    async def book(job: JobContext, pages: int) -> list[Any]:
        runs.append(job.attempt)
        many = await job.run("pages", [resize.call(page) for page in range(pages)])
        one = await job.run("cover", resize.call(99))
        none: list[Any] = await job.run("none", [])
        # In the type that the child returns.
        assert [type(page) for page in (*many, one)] == [tuple] * (pages + 1)
        return [[list(page) for page in many], list(one), none]

    async with jobs.running():
        job = await jobs.enqueue(book, 3)
        pages = [[page, f"page {page}"] for page in range(3)]
        assert await soon(job.result()) == [pages, [99, "page 99"], []]
        assert runs == [1, 1, 1, 1]
        found = await job.refresh()
        assert [(step.kind, step.name) for step in found.steps] == [
            ("batch", "pages"),
            ("batch", "cover"),
            ("batch", "none"),
        ]


async def test_parent_of_a_failed_child_is_dead_at_once_and_goes_on_after_both_are_replayed(
    jobs: JobRunner,
) -> None:
    fails = True

    @jobs.task(max_attempts=1)
    async def resize(page: int) -> int:
        if fails and page == 1:
            raise ZeroDivisionError
        return page

    @jobs.task(max_attempts=5, wait=wait_none())
    async def book(job: JobContext) -> list[int]:
        return await job.run("pages", [resize.call(page) for page in range(3)])

    async with jobs.running():
        job = await jobs.enqueue(book)
        assert "of 3 children 2 succeeded, 1 are dead letters" in await died(job)
        (parent, child) = (await jobs.dead_letters.list()).items
        assert (parent.reason, parent.attempt) == ("not_retryable", 1)
        fails = False
        await jobs.dead_letters.replay(child.id)
        await jobs.dead_letters.replay(parent.id)
        assert await soon((await jobs.get(job.id)).result()) == [0, 1, 2]


async def test_replay_that_forgets_the_children_runs_them_again(jobs: JobRunner) -> None:
    ran: list[int] = []

    @jobs.task(max_attempts=1)
    async def resize(page: int) -> int:
        ran.append(page)
        if len(ran) == 2:
            raise ZeroDivisionError
        return page

    @jobs.task
    async def book(job: JobContext) -> list[int]:
        return await job.run("pages", [resize.call(page) for page in range(3)])

    async with jobs.running():
        job = await jobs.enqueue(book)
        await died(job)
        await jobs.dead_letters.replay(job.id, forget=["pages"])
        assert await soon((await jobs.get(job.id)).result()) == [0, 1, 2]
        assert ran == [0, 1, 2, 0, 1, 2]


async def test_fault_25_cancel_of_a_parked_parent_cancels_its_children(jobs: JobRunner) -> None:
    gate = Gate()

    @jobs.task
    async def resize(page: int) -> None:
        await gate.enter(page)

    @jobs.task
    async def book(job: JobContext) -> None:
        await job.run("pages", [resize.call(page) for page in range(3)])

    async with jobs.running():
        job = await jobs.enqueue(book)
        await gate.arrival()
        assert (await job.refresh()).state == "blocked"
        assert await jobs.cancel(job.id) == "cancelled"
        with pytest.raises(JobCancelled):
            await soon(job.result())
        async with asyncio.timeout(15):
            while {one.state for one in (await jobs.list(task="resize")).items} != {"cancelled"}:
                await next_round(jobs)


@pytest.mark.parametrize("word", ["key", "values"])
async def test_children_that_cannot_be_stored_are_refused(jobs: JobRunner, word: str) -> None:
    @jobs.task
    async def resize(page: int) -> int:
        return page

    @jobs.task(max_attempts=3)
    async def book(job: JobContext) -> None:
        calls: Any = [resize.options(key="k").call(1)] if word == "key" else ["resize"]
        await job.run("pages", calls)

    async with jobs.running():
        assert "InvalidStep" in await died(await jobs.enqueue(book))
        assert (await jobs.list(task="resize")).items == []


async def test_children_of_an_attempt_that_lost_its_job_are_not_stored(jobs: JobRunner) -> None:
    @jobs.task
    async def resize(page: int) -> int:
        return page

    @jobs.task
    async def book(job: JobContext) -> None:
        await store_of(jobs).workers.leave(job._claimed.worker, now=0)
        await job.run("pages", [resize.call(1)])

    async with jobs.running():
        await jobs.enqueue(book)
        async with asyncio.timeout(15):
            while (await jobs.list(task="book")).items[0].state != "queued":
                await next_round(jobs)
        await next_round(jobs)
        assert (await jobs.list(task="resize")).items == []


# -- iterations ------------------------------------------------------------------------------------------


async def numbers(cursor: int | None) -> AsyncIterator[tuple[int, str]]:
    for number in range((cursor or 0) + 1, 11):
        yield number, f"user {number}"


async def test_fault_30_iteration_goes_on_behind_the_last_finished_item_after_a_failure(
    jobs: JobRunner,
) -> None:
    """The end of the attempt stores the cursor, whatever ``every`` says."""
    seen: list[str] = []

    @jobs.task(max_attempts=3, wait=wait_none())
    async def backfill(job: JobContext) -> int:
        count = 0
        async for user in job.iterate("users", numbers, every=1_000, seconds=1_000):
            seen.append(user)
            if user == "user 4" and job.attempt == 1:
                raise ConnectionError
            if user == "user 7" and job.attempt == 2:
                await job.sleep(0.001)
            count += 1
        return count

    async with jobs.running():
        job = await jobs.enqueue(backfill)
        await soon(job.result())
        # The item of the failure comes again, and that of the wait.
        assert seen == [
            *(f"user {n}" for n in (1, 2, 3, 4)),
            *(f"user {n}" for n in (4, 5, 6, 7)),
            *(f"user {n}" for n in (7, 8, 9, 10)),
        ]
        assert (await jobs.payload(job.id)).steps["cursor users"] == 10


@pytest.mark.parametrize(("every", "seconds", "least"), [(2, 1_000, 5), (1_000, 0, 10)])
async def test_fault_29_cursor_is_stored_after_a_number_of_items_or_a_time(
    jobs: JobRunner, every: int, seconds: float, least: int
) -> None:
    """A process that dies repeats at most ``every`` items."""
    stored: list[str | None] = []

    @jobs.task
    async def backfill(job: JobContext) -> None:
        async for _ in job.iterate("users", numbers, every=every, seconds=seconds):
            rows = await store_of(jobs).workflows.steps(job._claimed.seq)
            stored.append(rows[0].value if rows else None)

    async with jobs.running():
        await soon((await jobs.enqueue(backfill)).result())
        steps = [None, None, "2", "2", "4", "4", "6", "6", "8", "8"]
        assert stored == (steps if every == 2 else [None, *map(str, range(1, 10))])
        assert len(set(stored)) >= least


async def test_cursor_that_cannot_be_stored_or_read_is_refused(jobs: JobRunner) -> None:
    async def objects(cursor: int | None) -> AsyncIterator[tuple[Any, int]]:
        yield object(), 1
        yield 2, 2

    async def texts(cursor: str | None) -> AsyncIterator[tuple[str, int]]:
        yield "a", 1

    @jobs.task
    async def backfill(job: JobContext) -> None:
        for source, every in ((objects, 1), (numbers, 0)):
            with pytest.raises(InvalidStep):
                _ = [one async for one in job.iterate(source.__name__, source, every=every)]

    @jobs.task(max_attempts=2, wait=wait_none())
    async def changed(job: JobContext) -> None:
        if job.attempt == 1:
            _ = [one async for one in job.iterate("users", numbers)]
            raise ConnectionError
        with pytest.raises(StepMismatch):
            _ = [one async for one in job.iterate("users", texts)]

    async with jobs.running():
        for task in (backfill, changed):
            await soon((await jobs.enqueue(task)).result())


# -- `def` tasks -----------------------------------------------------------------------------------------


def letters(cursor: str | None) -> Iterator[tuple[str, str]]:
    for letter in "abcdef":
        if cursor is None or letter > cursor:
            yield letter, letter.upper()


async def test_def_task_has_the_blocking_forms_and_parks_from_its_thread(jobs: JobRunner) -> None:
    called: list[str] = []

    def charge(order_id: int) -> str:
        called.append(f"charge {order_id}")
        return f"r-{order_id}"

    @jobs.task
    async def resize(page: int) -> int:
        return page * 2

    @jobs.task(max_attempts=2, wait=wait_none())
    def order(job: JobContext, order_id: int) -> list[Any]:
        receipt = job.sync.step("charge", charge, order_id)
        for letter in job.sync.iterate("letters", letters, every=2):
            called.append(letter)
            if letter == "C" and job.attempt == 1:
                raise ConnectionError
        job.sync.sleep(0.001)
        pages = job.sync.run("pages", [resize.call(1), resize.call(2)])
        return [receipt, job.sync.wait_for("approved", bool), pages]

    async with jobs.running():
        job = await jobs.enqueue(order, 7)
        await jobs.signal(job.id, "approved", True)
        assert await soon(job.result()) == ["r-7", True, [2, 4]]
        assert called == ["charge 7", *"ABC", *"CDEF"]
        assert len((await job.refresh()).history) == 2


async def test_blocking_form_on_the_loop_and_async_function_in_a_thread_are_refused(
    jobs: JobRunner,
) -> None:
    async def pay() -> int:
        return 1

    @jobs.task
    async def on_loop(job: JobContext) -> None:
        with pytest.raises(WrongThread, match=r"await job\.step"):
            job.sync.sleep(1)

    @jobs.task
    def in_thread(job: JobContext) -> None:
        with pytest.raises(InvalidStep, match="async def"):
            _ = job.sync.step("pay", pay)

    async with jobs.running():
        for task in (on_loop, in_thread):
            await soon((await jobs.enqueue(task)).result())
