"""``job.step()``: what is remembered over the attempts, in which type, and what is refused."""

import asyncio
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import pytest
from fastapi import Depends
from pydantic import BaseModel, Field
from tenacity import wait_none

from jobrunner import (
    Injected,
    InvalidStep,
    Job,
    JobContext,
    JobDead,
    JobRunner,
    LeaseLost,
    NotRunning,
    WouldDeadlock,
)
from jobrunner.core.errors import StoreFull, StoreOutcomeUnknown
from jobrunner.store.round import Round, Written
from jobrunner.testing import fake_context
from tests.support.engine import next_round, soon, store_of
from tests.worker.site import Site

pytestmark = pytest.mark.each_store


class Receipt(BaseModel):
    id: str
    total: int = Field(default=0, alias="totalCents")


@pytest.fixture
def jobs(store_url: str) -> JobRunner:
    return JobRunner(store_url)


ran: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


async def charge(order_id: int, *, key: str) -> Receipt:
    ran.append(f"charge {order_id} {key}")
    return Receipt(id=f"r-{order_id}", totalCents=7)


async def fate(job: Job[Any]) -> tuple[str, str | None, str | None]:
    """Wait for the death of a job; return its reason, error type and error."""
    with pytest.raises(JobDead):
        await soon(job.result())
    assert isinstance(job, Job)
    row = await job.refresh()
    last = row.history[-1]
    return row.state, last.error_type, last.error


# -- what is remembered ----------------------------------------------------------------------------------


async def test_finished_step_is_not_called_again_and_returns_what_it_returned(
    jobs: JobRunner,
) -> None:
    @jobs.task(wait=wait_none(), max_attempts=3)
    async def order(job: JobContext, order_id: int) -> str:
        receipt = await job.step("charge", charge, order_id, key=f"{job.id}/charge")
        assert type(receipt) is Receipt
        assert receipt.total == 7
        if job.attempt < 3:
            raise ConnectionError(f"attempt {job.attempt}")
        return receipt.id

    async with jobs.running():
        job = await jobs.enqueue(order, 7)
        assert await soon(job.result()) == "r-7"
        assert ran == [f"charge 7 {job.id}/charge"]
        (step,) = (await job.refresh()).steps
        assert (step.kind, step.name, step.timed_out) == ("step", "charge", False)
        payload = await jobs.payload(job.id)
        assert payload.steps == {"step charge": {"id": "r-7", "total": 7}}


async def test_failed_step_runs_again_and_its_error_is_that_of_the_attempt(jobs: JobRunner) -> None:
    async def pay() -> int:
        ran.append("pay")
        if len(ran) == 1:
            raise ZeroDivisionError
        return len(ran)

    @jobs.task(wait=wait_none(), max_attempts=2)
    async def order(job: JobContext) -> int:
        return await job.step("pay", pay)

    async with jobs.running():
        job = await jobs.enqueue(order)
        assert await soon(job.result()) == 2
        assert [one.error_type for one in (await job.refresh()).history] == [
            "ZeroDivisionError",
            None,
        ]


async def test_steps_are_found_by_name_whatever_their_order_and_number(jobs: JobRunner) -> None:
    """A deploy may insert, remove and reorder steps while jobs wait."""
    first = ["a", "b", "gone"]
    second = ["new", "b", "a"]

    async def note(name: str) -> str:
        ran.append(name)
        return name.upper()

    @jobs.task(wait=wait_none(), max_attempts=2)
    async def order(job: JobContext) -> list[str]:
        names = first if job.attempt == 1 else second
        values = [await job.step(name, note, name) for name in names]
        if job.attempt == 1:
            raise ConnectionError
        return values

    async with jobs.running():
        job = await jobs.enqueue(order)
        assert await soon(job.result()) == ["NEW", "B", "A"]
        assert ran == ["a", "b", "gone", "new"]


async def test_step_that_a_deploy_has_renamed_runs_again_under_its_new_name(store_url: str) -> None:
    def deployed(name: str) -> tuple[JobRunner, Any]:
        jobs = JobRunner(store_url)

        @jobs.task
        async def order(job: JobContext) -> str:
            first = await job.step("reserve", note, "reserve")
            receipt = await job.step(name, note, name)
            await job.wait_for("approved")
            return f"{first} {receipt}"

        return jobs, order

    async def note(name: str) -> str:
        ran.append(name)
        return name.upper()

    before, order = deployed("charge")
    async with before.running():
        job = await before.enqueue(order)
        async with asyncio.timeout(15):
            while (await job.refresh()).state != "blocked":
                await next_round(before)
    after, _ = deployed("pay")
    async with after.running():
        assert await after.signal(job.id, "approved")
        job = await after.get(job.id)
        assert await soon(job.result()) == "RESERVE PAY"
        assert ran == ["reserve", "charge", "pay"]
        assert {step.name for step in (await job.refresh()).steps if step.kind == "step"} == {
            "reserve",
            "charge",
            "pay",
        }


async def test_steps_run_at_the_same_time(jobs: JobRunner) -> None:
    async def part(number: int) -> int:
        ran.append(str(number))
        return number

    @jobs.task(wait=wait_none(), max_attempts=2)
    async def order(job: JobContext) -> list[int]:
        many = [job.step(f"part-{n}", part, n) for n in range(20)]
        values = await asyncio.gather(*many)
        if job.attempt == 1:
            raise ConnectionError
        return values

    async with jobs.running():
        assert await soon((await jobs.enqueue(order)).result()) == list(range(20))
        assert len(ran) == 20


def total(numbers: list[int]) -> int:
    return sum(numbers)


class Shop:
    async def close(self) -> datetime:
        return datetime.fromisoformat("2026-11-22T08:00:00+00:00")

    def __call__(self) -> tuple[int, str]:
        return 1, "a"


@pytest.mark.parametrize(
    ("function", "args", "value"),
    [
        (total, ([1, 2],), 3),
        (partial(total, [4]), (), 4),
        (lambda: {"a": [1, None]}, (), {"a": [1, None]}),
        (Shop().close, (), datetime.fromisoformat("2026-11-22T08:00:00+00:00")),
        (Shop(), (), (1, "a")),
        (Receipt, (), None),
        (len, ("abc",), 3),
    ],
)
async def test_step_takes_any_callable_and_remembers_its_type(
    jobs: JobRunner, function: Any, args: tuple[Any, ...], value: Any
) -> None:
    kwargs = {"id": "r"} if function is Receipt else {}
    expected = Receipt(id="r") if function is Receipt else value
    seen: list[Any] = []

    @jobs.task(wait=wait_none(), max_attempts=2)
    async def order(job: JobContext) -> None:
        seen.append(await job.step("one", function, *args, **kwargs))
        if job.attempt == 1:
            raise ConnectionError

    async with jobs.running():
        await soon((await jobs.enqueue(order)).result())
        assert seen == [expected, expected]
        assert type(seen[0]) is type(seen[1])


async def test_step_without_a_result_is_remembered_too(jobs: JobRunner) -> None:
    async def notify() -> None:
        ran.append("notify")

    @jobs.task(wait=wait_none(), max_attempts=2)
    async def order(job: JobContext) -> None:
        await job.step("notify", notify)
        if job.attempt == 1:
            raise ConnectionError

    async with jobs.running():
        await soon((await jobs.enqueue(order)).result())
        assert ran == ["notify"]


# -- what is refused -------------------------------------------------------------------------------------


async def test_name_twice_in_a_run_is_refused_and_never_tried_again(jobs: JobRunner) -> None:
    @jobs.task(wait=wait_none(), max_attempts=5)
    async def order(job: JobContext) -> None:
        for _ in range(2):
            await job.step("part", total, [1])

    async with jobs.running():
        state, kind, error = await fate(await jobs.enqueue(order))
        assert (state, kind) == ("dead", "InvalidStep")
        assert error is not None
        assert 'write f"part-{number}"' in error
        (letter,) = (await jobs.dead_letters.list()).items
        assert (letter.reason, letter.attempt) == ("not_retryable", 1)


@pytest.mark.parametrize("name", ["", "a b", "!a", "a/b", "é", "x" * 201, 7, None, "\x00"])
async def test_name_that_is_none_is_refused(jobs: JobRunner, name: Any) -> None:
    @jobs.task
    async def order(job: JobContext) -> None:
        with pytest.raises(InvalidStep, match="no name of a step"):
            await job.step(name, total, [1])

    async with jobs.running():
        await soon((await jobs.enqueue(order)).result())


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (object, "an object cannot be stored"),
        (lambda: {1: 2}, "keys of JSON are str"),
        (lambda: "x" * (1 << 20), "more than the 1,048,576"),
        (7, "takes a function"),
    ],
)
async def test_result_that_cannot_be_stored_is_refused(
    jobs: JobRunner, function: Any, words: str
) -> None:
    @jobs.task(wait=wait_none(), max_attempts=5)
    async def order(job: JobContext) -> None:
        await job.step("part", function)

    async with jobs.running():
        _, kind, error = await fate(await jobs.enqueue(order))
        assert kind == "InvalidStep"
        assert error is not None
        assert words in error


async def test_fault_28_changed_type_of_a_step_makes_a_dead_letter_that_can_forget(
    jobs: JobRunner,
) -> None:
    """A deploy has changed the return annotation."""

    async def old() -> str:
        return "r-7"

    async def new() -> Receipt:
        ran.append("new")
        return Receipt(id="r-8")

    @jobs.task(wait=wait_none(), max_attempts=5)
    async def order(job: JobContext) -> str:
        if job.attempt == 1 and not ran:
            await job.step("charge", old)
            raise ConnectionError
        return (await job.step("charge", new)).id

    async with jobs.running():
        job = await jobs.enqueue(order)
        _, kind, error = await fate(job)
        assert kind == "StepMismatch"
        assert error is not None
        assert 'forget=["charge"]' in error
        assert ran == []


async def test_context_outside_of_an_attempt_refuses_steps(jobs: JobRunner) -> None:
    kept: list[JobContext] = []

    @jobs.task
    async def order(job: JobContext) -> None:
        kept.append(job)

    context = fake_context()
    async with jobs.running():
        await soon((await jobs.enqueue(order)).result())
        for job in (*kept, JobContext(context._claimed, None)):
            with pytest.raises(NotRunning):
                await job.step("part", total, [1])


async def test_step_in_a_transaction_of_the_task_would_deadlock(site: Site) -> None:
    @site.tasks.task(max_attempts=1)
    async def order(job: JobContext) -> None:
        async with job.transaction():
            with pytest.raises(WouldDeadlock):
                await job.step("part", total, [1])

    @site.tasks.task(max_attempts=1)
    async def after(job: JobContext) -> None:
        async with job.transaction():
            pass
        with pytest.raises(LeaseLost, match="has settled the job"):
            await job.step("part", total, [1])

    async with site.open() as jobs:
        for task in (order, after):
            await soon((await jobs.enqueue(task)).result())


# -- the commit ------------------------------------------------------------------------------------------


async def test_memos_of_attempts_share_a_commit_and_are_answered_after_it(jobs: JobRunner) -> None:
    rounds: list[int] = []

    @jobs.task
    async def order(job: JobContext) -> None:
        await job.step("part", total, [1])
        assert [one.name for one in await store_of(jobs).workflows.steps(job._claimed.seq)] == [
            "part"
        ]

    async with jobs.running():
        store = store_of(jobs)
        write = store.write

        async def watched(request: Round) -> Written:
            if request.memos:
                rounds.append(len(request.memos))
            return await write(request)

        store.write = watched  # type: ignore[method-assign]
        many = await jobs.enqueue_many([order.call() for _ in range(10)])
        for job in many:
            await soon(job.result())
        assert sum(rounds) == 10
        assert len(rounds) < 10


async def test_step_waits_while_the_disk_is_full_and_does_not_run_again(jobs: JobRunner) -> None:
    """Its effect has happened: to fail the attempt would make it happen twice."""
    full = asyncio.Event()
    calls = 0

    async def pay() -> int:
        ran.append("pay")
        return 1

    @jobs.task(max_attempts=1)
    async def order(job: JobContext) -> int:
        return await job.step("pay", pay)

    async with jobs.running():
        store = store_of(jobs)
        write = store.write

        async def failing(request: Round) -> Written:
            nonlocal calls
            if request.memos and calls < 3:
                calls += 1
                full.set()
                raise StoreFull("no room")
            return await write(request)

        store.write = failing  # type: ignore[method-assign]
        job = await jobs.enqueue(order)
        await soon(full.wait())
        assert await soon(job.result()) == 1
        assert (ran, calls) == (["pay"], 3)


async def test_memo_whose_commit_was_answered_by_an_error_counts_as_stored(
    jobs: JobRunner,
) -> None:
    lost = False

    async def pay() -> int:
        ran.append("pay")
        return 5

    @jobs.task(max_attempts=1)
    async def order(job: JobContext) -> int:
        return await job.step("pay", pay)

    async with jobs.running():
        store = store_of(jobs)
        write = store.write

        async def losing(request: Round) -> Written:
            nonlocal lost
            written = await write(request)
            if request.memos and not lost:
                lost = True
                raise StoreOutcomeUnknown("the answer is lost")
            return written

        store.write = losing  # type: ignore[method-assign]
        assert await soon((await jobs.enqueue(order)).result()) == 5
        assert (ran, lost) == (["pay"], True)


async def test_fault_22_step_of_an_attempt_that_has_lost_its_lease_is_refused(
    jobs: JobRunner,
) -> None:
    """The line behind the step does not run."""

    async def pay() -> int:
        ran.append("pay")
        return 5

    @jobs.task(max_attempts=1)
    async def order(job: JobContext) -> None:
        # As another process does that takes this one for dead.
        await store_of(jobs).workers.leave(job._claimed.worker, now=0)
        with pytest.raises(LeaseLost):
            await job.step("pay", pay)
        ran.append("refused")
        raise LeaseLost("as the task would")

    async with jobs.running():
        await jobs.enqueue(order)
        async with asyncio.timeout(15):
            while "refused" not in ran:
                await next_round(jobs)
        await next_round(jobs)


# -- dependencies ----------------------------------------------------------------------------------------


async def test_rows_of_an_injected_session_make_a_step_deadlock_instead_of_waiting(
    site: Site,
) -> None:
    session_dep = Annotated[Any, Depends(site.get_session)]

    @site.tasks.task(max_attempts=1)
    async def order(job: JobContext, session: session_dep = Injected) -> None:
        await site.add(session, "a")
        if site.is_postgres:  # its many writers do not wait for each other
            assert await job.step("part", total, [1]) == 1
            return
        with pytest.raises(WouldDeadlock):
            await job.step("part", total, [1])

    async with site.open() as jobs:
        if site.kind == "aiosqlite":
            return  # a bare connection does not show that it writes
        await soon((await jobs.enqueue(order)).result())
