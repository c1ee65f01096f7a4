"""``job.sleep()`` and ``job.wait_for()``: jobs that wait without a slot, and what wakes them."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, Any

import pytest
from fastapi import Depends
from pydantic import BaseModel, Field
from tenacity import wait_none

from jobrunner import (
    Injected,
    InvalidOptions,
    Job,
    JobCancelled,
    JobContext,
    JobDead,
    JobFinished,
    JobNotFound,
    JobNotWaiting,
    JobRunner,
    WaitTimedOut,
)
from jobrunner.store.postgres.store import PostgresStore
from jobrunner.worker.steps import Suspend
from tests.support.engine import next_round, on_writer, producer_of, soon, store_of, stored
from tests.support.postgres_sessions import ask
from tests.worker.site import Site, ended

pytestmark = pytest.mark.each_store


class Approval(BaseModel):
    by: str
    ok: bool = Field(default=True, alias="isOk")


@pytest.fixture
def jobs(store_url: str) -> JobRunner:
    return JobRunner(store_url, queues={"default": 1})


async def is_parked(jobs: JobRunner, job: Job[Any], state: str = "blocked") -> Job[Any]:
    """Wait until a job is parked; return it."""
    async with asyncio.timeout(15):
        while (found := await job.refresh()).state != state or found.waits is None:
            await next_round(jobs)
    return found


async def died(job: Job[Any]) -> str:
    with pytest.raises(JobDead) as caught:
        await soon(job.result())
    return str(caught.value)


# -- sleep -----------------------------------------------------------------------------------------------


async def test_sleeping_job_holds_no_slot_and_uses_no_attempt(jobs: JobRunner) -> None:
    runs: list[int] = []

    @jobs.task(max_attempts=1)
    async def order(job: JobContext) -> str:
        runs.append(job.attempt)
        await job.sleep(timedelta(days=3))
        return "awake"

    @jobs.task
    async def other() -> str:
        return "ran meanwhile"

    async with jobs.running():
        job = await jobs.enqueue(order)
        asleep = await is_parked(jobs, job, "scheduled")
        assert asleep.waits == f"sleeps until {asleep.run_at:%Y-%m-%d %H:%M:%SZ}"
        assert (asleep.attempt, asleep.history) == (0, ())
        assert await soon((await jobs.enqueue(other)).result()) == "ran meanwhile"
        with pytest.raises(JobNotWaiting, match="sleeps until"):
            await jobs.reschedule(job.id, 0)
        # Woken too early, as by a clock that steps, it goes on sleeping until the stored time.
        if isinstance(store_of(jobs), PostgresStore):
            ask(
                str(jobs.settings.store),
                "UPDATE jobrunner.jobs SET state = 'queued' RETURNING seq",
            )
        else:
            await on_writer(
                jobs, lambda conn: conn.execute("UPDATE jobrunner_jobs SET state = 'queued'")
            )
        producer_of(jobs).wake()
        again = await is_parked(jobs, job, "scheduled")
        assert again.run_at == asleep.run_at
        assert runs == [1, 1]


async def test_sleep_ends_at_its_time_and_is_not_begun_again(jobs: JobRunner) -> None:
    runs: list[int] = []

    @jobs.task(wait=wait_none(), max_attempts=2)
    async def order(job: JobContext) -> list[str]:
        runs.append(job.attempt)
        await job.sleep(0)
        await job.sleep(0.01, name="short")
        if job.attempt == 1:
            raise ConnectionError
        return [step.name for step in (await jobs.get(job.id)).steps]

    async with jobs.running():
        assert await soon((await jobs.enqueue(order)).result()) == ["short"]
        assert runs == [1, 1, 2]


@pytest.mark.parametrize("delay", [-1, float("nan"), "3 days", None])
async def test_sleep_of_no_duration_is_refused(jobs: JobRunner, delay: Any) -> None:
    @jobs.task
    async def order(job: JobContext) -> None:
        with pytest.raises(InvalidOptions):
            await job.sleep(delay)

    async with jobs.running():
        await soon((await jobs.enqueue(order)).result())


async def test_second_sleep_without_a_name_says_to_name_it(jobs: JobRunner) -> None:
    @jobs.task
    async def order(job: JobContext) -> None:
        await job.sleep(0)
        await job.sleep(0)

    async with jobs.running():
        assert 'job.sleep(..., name="...")' in await died(await jobs.enqueue(order))


# -- signals ---------------------------------------------------------------------------------------------


async def test_signal_reaches_the_job_in_the_type_that_it_waits_for(jobs: JobRunner) -> None:
    @jobs.task(max_attempts=1)
    async def order(job: JobContext) -> str:
        approval = await job.wait_for("approved", Approval, timeout=timedelta(days=2))
        await job.wait_for("paid")
        number = await job.wait_for("number", int)
        return f"{approval.by} {approval.ok} {number}"

    async with jobs.running():
        job = await jobs.enqueue(order)
        waiting = await is_parked(jobs, job, "scheduled")
        assert waiting.waits == f"signal approved until {waiting.run_at:%Y-%m-%d %H:%M:%SZ}"
        assert await jobs.signal(job.id, "approved", Approval(by="ann", isOk=False))
        assert (await is_parked(jobs, job)).waits == "signal paid"
        # Early: it is kept until the job waits for it.
        assert await jobs.signal(job.id, "number", 7)
        assert await asyncio.to_thread(jobs.sync.signal, job.id, "paid")
        assert await soon(job.result()) == "ann False 7"
        assert [(one.kind, one.name) for one in (await job.refresh()).steps] == [
            ("signal", "approved"),
            ("signal", "number"),
            ("signal", "paid"),
        ]


async def test_signal_before_the_first_run_costs_no_second_one(jobs: JobRunner) -> None:
    runs: list[int] = []

    @jobs.task
    async def order(job: JobContext) -> str:
        runs.append(job.attempt)
        return (await job.wait_for("approved", Approval)).by

    async with jobs.running(work=False):
        job = await jobs.enqueue(order)
        assert await jobs.signal(job.id, "approved", Approval(by="ann"))
        assert not await jobs.signal(job.id, "approved", Approval(by="bob"))
    async with jobs.running():
        found = await jobs.get(job.id)
        assert await soon(found.result()) == "ann"
        assert runs == [1]


@pytest.mark.usefixtures("no_poll")
@pytest.mark.parametrize("timeout", [None, 3600])
async def test_fault_19_signal_between_the_look_of_a_wait_and_its_park_is_not_lost(
    jobs: JobRunner, timeout: float | None
) -> None:
    runs: list[int] = []

    @jobs.task
    async def order(job: JobContext) -> int:
        runs.append(job.attempt)
        try:
            return await job.wait_for("approved", int, timeout=timeout)
        except Suspend:
            # The wait has looked and found nothing, and the job is not parked yet.
            assert await jobs.signal(job.id, "approved", 7)
            raise

    async with jobs.running():
        job = await jobs.enqueue(order)
        assert await soon(job.result()) == 7
        assert runs == [1, 1]


async def test_wait_that_times_out_raises_in_every_later_run_and_refuses_the_signal(
    jobs: JobRunner,
) -> None:
    raised: list[int] = []

    @jobs.task(wait=wait_none(), max_attempts=2)
    async def order(job: JobContext) -> str:
        try:
            await job.wait_for("approved", Approval, timeout=0.01)
        except WaitTimedOut:
            raised.append(job.attempt)
        if job.attempt == 1:
            raise ConnectionError
        return "nobody"

    @jobs.task
    async def at_once(job: JobContext) -> None:
        await job.wait_for("approved", timeout=0)

    async with jobs.running():
        job = await jobs.enqueue(order)
        assert await soon(job.result()) == "nobody"
        assert raised == [1, 2]
        assert (await job.refresh()).steps[0].timed_out
        late = await jobs.enqueue(at_once)
        assert "WaitTimedOut" in await died(late)
        (letter,) = (await jobs.dead_letters.list()).items
        assert (letter.reason, letter.attempt) == ("not_retryable", 1)


async def test_value_that_does_not_fit_makes_a_dead_letter(jobs: JobRunner) -> None:
    @jobs.task(max_attempts=5)
    async def order(job: JobContext) -> None:
        await job.wait_for("approved", Approval)

    async with jobs.running():
        job = await jobs.enqueue(order)
        await is_parked(jobs, job)
        assert await jobs.signal(job.id, "approved", {"who": "ann"})
        text = await died(job)
        assert "StepMismatch" in text
        assert 'forget=["approved"]' in text


async def test_signal_checks_its_job_its_name_and_its_value(jobs: JobRunner) -> None:
    @jobs.task
    async def order() -> None: ...

    async with jobs.running():
        job = await jobs.enqueue(order)
        await soon(job.result())
        with pytest.raises(JobFinished):
            await jobs.signal(job.id, "approved")
        with pytest.raises(JobNotFound):
            await jobs.signal("é", "approved")
        for name, value in (("a b", None), ("", None), ("x", object()), ("x", "y" * (1 << 20))):
            with pytest.raises(InvalidOptions):
                await jobs.signal(job.id, name, value)


async def test_wait_and_signal_of_the_same_name_as_a_step_are_other_memos(jobs: JobRunner) -> None:
    """A signal cannot pass for a step."""

    async def pay() -> int:
        return 1

    @jobs.task
    async def order(job: JobContext) -> list[int]:
        return [await job.step("pay", pay), await job.wait_for("pay", int)]

    async with jobs.running():
        job = await jobs.enqueue(order)
        assert await jobs.signal(job.id, "pay", 2)
        assert await soon(job.result()) == [1, 2]


# -- ends of a parked attempt ----------------------------------------------------------------------------


reached: list[str] = []


async def park(job: JobContext) -> None:
    await job.wait_for("approved")


async def pay() -> None:
    reached.append("paid")


async def goes_on(job: JobContext) -> None:
    try:
        await park(job)
    except BaseException:  # noqa: BLE001 - as in careless code
        await job.step("pay", pay)


async def raises(job: JobContext) -> None:
    try:
        await park(job)
    finally:
        raise ZeroDivisionError


async def gathers(job: JobContext) -> None:
    await asyncio.gather(park(job), return_exceptions=True)


async def catches(job: JobContext) -> None:
    try:
        await park(job)
    except Exception:  # noqa: BLE001 - this is what tasks have
        reached.append("caught")


async def groups(job: JobContext) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(park(job))


@pytest.mark.parametrize(
    ("function", "is_logged"),
    [(goes_on, False), (raises, True), (gathers, True), (catches, False), (groups, False)],
)
async def test_fault_27_swallowed_suspend_parks_all_the_same_and_is_logged(
    jobs: JobRunner, caplog: pytest.LogCaptureFixture, function: Any, is_logged: bool
) -> None:
    reached.clear()
    task = jobs.task(function)
    async with jobs.running():
        job = await jobs.enqueue(task)
        await is_parked(jobs, job)
        messages = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
        assert any("swallowed" in text for text in messages) == is_logged
        assert (await job.refresh()).attempt == 0
        assert reached == []


async def test_cancel_of_a_parked_job_ends_it(jobs: JobRunner) -> None:
    @jobs.task
    async def order(job: JobContext) -> None:
        await job.wait_for("approved", timeout=3600)

    async with jobs.running():
        job = await jobs.enqueue(order)
        await is_parked(jobs, job, "scheduled")
        assert await jobs.cancel(job.id) == "cancelled"
        with pytest.raises(JobCancelled):
            await soon(job.result())
        with pytest.raises(JobFinished):
            await jobs.signal(job.id, "approved")


async def test_parked_job_stays_over_a_restart_and_goes_on_in_another_process(
    jobs: JobRunner, store_url: str
) -> None:
    steps: list[str] = []

    async def pay() -> str:
        steps.append("pay")
        return "r-7"

    @jobs.task
    async def order(job: JobContext) -> str:
        receipt = await job.step("pay", pay)
        return receipt + str(await job.wait_for("approved", int))

    async with jobs.running():
        job = await jobs.enqueue(order)
        await is_parked(jobs, job)
    async with jobs.running():
        assert (await stored(jobs, job.id)).state == "blocked"
        await jobs.signal(job.id, "approved", 1)
        assert await soon((await jobs.get(job.id)).result()) == "r-71"
        assert steps == ["pay"]


async def test_job_that_parks_while_the_process_shuts_down_is_parked_not_released(
    jobs: JobRunner,
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    @jobs.task
    async def order(job: JobContext) -> None:
        begun.set()
        await go.wait()
        await job.wait_for("approved")

    async with jobs.running():
        job = await jobs.enqueue(order)
        await soon(begun.wait())
        asyncio.get_running_loop().call_later(0.05, go.set)
    async with jobs.running(work=False):
        assert (await stored(jobs, job.id)).state == "blocked"


async def test_dependencies_of_a_parked_attempt_are_closed_and_its_rows_rolled_back(
    site: Site,
) -> None:
    seen: list[str] = []

    async def resource() -> AsyncIterator[int]:
        try:
            yield 1
        except BaseException as error:
            seen.append(type(error).__name__)
            raise
        finally:
            seen.append("closed")

    session_dep = Annotated[Any, Depends(site.get_session)]
    resource_dep = Annotated[int, Depends(resource)]

    @site.tasks.task
    async def order(
        job: JobContext, one: resource_dep = Injected, session: session_dep = Injected
    ) -> None:
        try:
            await job.wait_for("approved")
        except BaseException:
            await site.add(session, "lost")
            raise
        await site.add(session, "kept")

    async with site.open() as jobs:
        job = await jobs.enqueue(order)
        await is_parked(jobs, job)
        assert seen == ["Suspend", "closed"]
        assert site.words() == []
        await jobs.signal(job.id, "approved")
        assert (await ended(job)).state == "succeeded"
        assert site.words() == ["kept"]


async def test_parked_attempt_counts_in_no_statistics(jobs: JobRunner) -> None:
    @jobs.task
    async def order(job: JobContext) -> None:
        await job.sleep(0.01)

    async with jobs.running():
        await soon((await jobs.enqueue(order)).result())
    async with jobs.running(work=False):
        (bucket,) = [one for one in (await jobs.stats()).buckets if one.succeeded or one.failed]
        assert (bucket.succeeded, bucket.failed) == (1, 0)
