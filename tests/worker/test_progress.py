"""``job.progress()``: what it takes, who reads it, how often it is stored, and what ends it."""

import asyncio
import itertools
import json
import math
import threading
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any

import pytest
from fastapi import Depends
from tenacity import wait_none

from jobrunner import (
    Injected,
    InvalidOptions,
    Job,
    JobContext,
    JobRunner,
    Progress,
    Snooze,
    TaskRouter,
)
from jobrunner.core.errors import StoreFull
from jobrunner.core.model import Claimed, Progressed
from jobrunner.store.round import Round
from jobrunner.worker.attempt import Attempt
from jobrunner.worker.progress import ProgressReports
from tests.support.engine import Gate, ThreadGate, next_round, producer_of, soon, store_of
from tests.worker.site import Site

pytestmark = pytest.mark.each_store


@TaskRouter().task
async def work(job: JobContext) -> None:
    """Never runs."""


@pytest.fixture
def jobs(store_url: str) -> JobRunner:
    return JobRunner(store_url)


def attempt(seq: int = 1, lease: int = 1) -> Attempt:
    """Return an attempt that no worker runs."""
    job = Claimed(
        seq=seq,
        lease=lease,
        worker=7,
        id=f"id-{seq}",
        task="work",
        queue="default",
        args="{}",
        attempt=1,
        started_at=0,
        first_started_at=0,
        created_at=0,
        run_at=0,
        priority=0,
        max_attempts=None,
        timeout=None,
        suspect=False,
    )
    return Attempt(job, work.spec)


@pytest.fixture
def context() -> JobContext:
    """The context of an attempt that no worker runs."""
    return JobContext(attempt().job, None)


def reported(context: JobContext) -> object:
    return context._progress


# -- what it takes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0.4,), (0.4, 1, None)),
        ((0.4, "rendering"), (0.4, 1, "rendering")),
        ((0.4, None), (0.4, 1, None)),
        ((1240, 5000), (1240, 5000, None)),
        ((1240, 5000, "rows"), (1240, 5000, "rows")),
        ((0,), (0, 1, None)),
        ((1,), (1, 1, None)),
        ((5000, 5000), (5000, 5000, None)),
        ((0.0, 1e-300), (0.0, 1e-300, None)),
        ((Fraction(1, 4), Decimal("0.5")), (0.25, 0.5, None)),
        ((True,), (1.0, 1, None)),
    ],
)
def test_progress_takes_a_fraction_or_a_part_of_a_total(
    context: JobContext, arguments: Sequence[Any], expected: object
) -> None:
    context.progress(*arguments)
    assert reported(context) == expected


def test_progress_takes_its_arguments_by_name(context: JobContext) -> None:
    context.progress(done=3, total=4, message="rows")
    assert reported(context) == (3, 4, "rows")
    context.progress(0.5, message="half")
    assert reported(context) == (0.5, 1, "half")


@pytest.mark.parametrize(
    "arguments",
    [
        (math.nan,),
        (math.inf,),
        (-0.1,),
        (1.1,),
        (2, 1),
        (1, math.nan),
        (1, math.inf),
        (math.inf, math.inf),
        # No float is as large, and Python does not write the longer one.
        (1, 10**400),
        (10**5000, 10**5000),
        (-(10**5000),),
        (0, 0),
        (0, -1),
        (-2, -1),
        (0.0, 0.0),
        (Decimal("NaN"),),
    ],
)
def test_progress_that_is_none_raises_a_value_error_and_changes_nothing(
    context: JobContext, arguments: Sequence[Any]
) -> None:
    context.progress(0.5)
    with pytest.raises(ValueError, match=r"write job\.progress\(0\.4\)") as caught:
        context.progress(*arguments)
    assert isinstance(caught.value, InvalidOptions)
    assert reported(context) == (0.5, 1, None)


@pytest.mark.parametrize("arguments", [("0.4",), (b"1",), (None,), (1, 2, 3), ([1],), (1, [2])])
def test_progress_of_no_number_raises_a_type_error(
    context: JobContext, arguments: Sequence[Any]
) -> None:
    with pytest.raises(TypeError):
        context.progress(*arguments)
    assert reported(context) is None


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress(0.4, 1), "40 %"),
        (Progress(0.29, 1, "rendering"), "29 %: rendering"),
        (Progress(1240, 5000), "25 % (1,240 of 5,000)"),
        (Progress(4999, 5000), "99 % (4,999 of 5,000)"),
        (Progress(5000, 5000, "done"), "100 % (5,000 of 5,000): done"),
        (Progress(0, 3), "0 % (0 of 3)"),
    ],
)
def test_progress_in_words_is_complete_only_when_all_is_done(progress: Progress, text: str) -> None:
    assert str(progress) == text


# -- what a job shows ------------------------------------------------------------------------------------


async def store_progress(jobs: JobRunner) -> None:
    """Let a round store what attempts have reported, as one does twice a second."""
    producer_of(jobs)._progress._period.end()
    await next_round(jobs)


async def progress_of(job: Job[Any]) -> Progress | None:
    return (await job.refresh()).progress


async def test_progress_of_a_running_job_is_read_by_get_list_and_refresh(jobs: JobRunner) -> None:
    gate = Gate()

    @jobs.task
    async def render(job: JobContext) -> None:
        job.progress(1240, 5000, "rendering")
        await gate.enter()

    async with jobs.running():
        job = await jobs.enqueue(render)
        assert job.progress is None
        await gate.arrival()
        await store_progress(jobs)
        expected = Progress(1240, 5000, "rendering")
        assert await progress_of(job) == expected
        assert (await jobs.get(job.id)).progress == expected
        (listed,) = (await jobs.list()).items
        assert listed.progress == expected
        gate.open()
        await soon(job.result())
        assert await progress_of(job) == expected


async def test_progress_is_stored_by_the_polls_of_an_idle_worker(jobs: JobRunner) -> None:
    gate = Gate()

    @jobs.task
    async def render(job: JobContext) -> None:
        job.progress(0.5)
        await gate.enter()

    async with jobs.running():
        job = await jobs.enqueue(render)
        await gate.arrival()
        async with asyncio.timeout(15):
            while await progress_of(job) is None:
                pass
        gate.open()


async def test_last_progress_is_stored_with_the_end_of_the_job(jobs: JobRunner) -> None:
    @jobs.task(wait=wait_none(), max_attempts=1)
    async def render(job: JobContext, fails: bool) -> None:
        for done in range(1, 8):
            job.progress(done, 10)
        if fails:
            raise ZeroDivisionError

    async with jobs.running():
        done, dead = [await jobs.enqueue(render, fails) for fails in (False, True)]
        await soon(done.result())
        with pytest.raises(Exception, match="ZeroDivisionError"):
            await soon(dead.result())
        for job in (done, dead):
            assert await progress_of(job) == Progress(7, 10)


async def test_progress_of_a_job_is_the_result_of_another_and_the_argument_of_a_third(
    jobs: JobRunner,
) -> None:
    @jobs.task
    async def work(job: JobContext) -> None:
        job.progress(3, 4, "rows")

    @jobs.task
    async def read(id: str) -> Progress | None:
        return (await jobs.get(id)).progress

    @jobs.task
    async def percent_of(progress: Progress) -> int:
        return progress.percent

    async with jobs.running():
        worked = await jobs.enqueue(work)
        await worked.result(timeout=15)
        found = await (await jobs.enqueue(read, worked.id)).result(timeout=15)
        assert found == Progress(3, 4, "rows")
        assert await (await jobs.enqueue(percent_of, found)).result(timeout=15) == 75


async def test_progress_begins_anew_with_each_attempt(jobs: JobRunner) -> None:
    gate = Gate()

    @jobs.task(wait=wait_none(), max_attempts=2)
    async def render(job: JobContext) -> None:
        if job.attempt == 1:
            job.progress(0.9)
            raise ZeroDivisionError
        await gate.enter()
        job.progress(0.1)

    async with jobs.running():
        job = await jobs.enqueue(render)
        await gate.arrival()
        assert await progress_of(job) is None
        gate.open()
        await soon(job.result())
        assert await progress_of(job) == Progress(0.1, 1)


async def test_progress_stays_while_a_job_snoozes(jobs: JobRunner) -> None:
    @jobs.task
    async def render(job: JobContext) -> None:
        job.progress(2, 3, "waits for the printer")
        raise Snooze(3600)

    async with jobs.running():
        job = await jobs.enqueue(render)
        async with asyncio.timeout(15):
            while (await job.refresh()).state != "scheduled":
                await next_round(jobs)
        assert await progress_of(job) == Progress(2, 3, "waits for the printer")


async def test_message_that_no_column_can_hold_is_escaped_and_still_cut(jobs: JobRunner) -> None:
    @jobs.task
    async def render(job: JobContext) -> None:
        job.progress(0.5, "\x00\ud800" + "é" * 200)

    async with jobs.running():
        job = await jobs.enqueue(render)
        await soon(job.result())
        assert await progress_of(job) == Progress(0.5, 1, "\x00\\ud800" + "é" * 193)


@pytest.mark.parametrize("cuts", [200, 201, 5_000])
async def test_message_is_cut_at_200_characters(jobs: JobRunner, cuts: int) -> None:
    @jobs.task
    async def render(job: JobContext) -> None:
        job.progress(0.5, "é" * cuts)

    async with jobs.running():
        job = await jobs.enqueue(render)
        await soon(job.result())
        assert await progress_of(job) == Progress(0.5, 1, "é" * 200)


async def test_threads_of_a_task_report_from_any_of_them(jobs: JobRunner) -> None:
    gate = ThreadGate()

    @jobs.task
    def render(job: JobContext) -> None:
        helpers = [threading.Thread(target=job.progress, args=(n, 4)) for n in (1, 2, 3)]
        for helper in helpers:
            helper.start()
            helper.join()
        gate.enter()
        job.progress(4, 4)

    async with jobs.running():
        job = await jobs.enqueue(render)
        await gate.arrival()
        await store_progress(jobs)
        assert await progress_of(job) == Progress(3, 4)
        gate.open()
        await soon(job.result())
        assert await progress_of(job) == Progress(4, 4)


async def test_last_progress_of_a_job_that_a_session_has_settled_is_stored(site: Site) -> None:
    """It comes to a round after the transaction that settles the job."""
    session_dep = Annotated[Any, Depends(site.get_session)]

    @site.tasks.task
    async def render(job: JobContext, word: str, session: session_dep = Injected) -> None:
        job.progress(0.5)
        await site.add(session, word)
        job.progress(1)

    async with site.open() as jobs:
        job = await render.enqueue("a")
        await soon(job.result())
        await next_round(jobs)
        assert site.words() == ["a"]
        assert await progress_of(job) == Progress(1, 1)


async def test_report_after_the_end_of_the_attempt_changes_nothing(jobs: JobRunner) -> None:
    contexts: list[JobContext] = []

    @jobs.task
    async def render(job: JobContext) -> None:
        job.progress(0.5)
        contexts.append(job)

    async with jobs.running():
        job = await jobs.enqueue(render)
        await soon(job.result())
        contexts[0].progress(0.9)
        await store_progress(jobs)
        assert await progress_of(job) == Progress(0.5, 1)


# -- how often it is stored --------------------------------------------------------------------------------


@pytest.fixture
async def reports() -> ProgressReports:
    return ProgressReports()


def values(rows: Sequence[Progressed]) -> list[tuple[int, Any]]:
    """Return the ``seq`` and the done part of each row."""
    return [(row.job.seq, json.loads(row.value)[0]) for row in rows]


async def test_reports_are_taken_once_in_half_a_second_and_the_last_one_counts(
    reports: ProgressReports,
) -> None:
    one, other = attempt(1), attempt(2)
    for each in (one, other):
        reports.begin(each)
    assert reports.take() == []
    one.context.progress(0.1)
    one.context.progress(0.2)
    other.context.progress(0.3)
    assert values(reports.take()) == [(1, 0.2), (2, 0.3)]
    for done in (0.4, 0.5):
        one.context.progress(done)
        assert reports.take() == []
    reports._period.end()
    assert values(reports.take()) == [(1, 0.5)]
    reports._period.end()
    assert reports.take() == []


async def test_reports_of_an_ended_attempt_do_not_wait(reports: ProgressReports) -> None:
    one, silent = attempt(1), attempt(2)
    for each in (one, silent):
        reports.begin(each)
    one.context.progress(0.1)
    reports.take()
    one.context.progress(0.2)
    reports.end(one)
    reports.end(silent)
    assert values(reports.take()) == [(1, 0.2)]
    one.context.progress(0.3)
    reports._period.end()
    assert reports.take() == []


async def test_reports_that_were_not_stored_give_way_to_newer_ones(
    reports: ProgressReports,
) -> None:
    one, other = attempt(1), attempt(2)
    for each in (one, other):
        reports.begin(each)
        each.context.progress(0.1)
    lost = reports.take()
    one.context.progress(0.2)
    reports.end(one)
    reports.put_back(lost)
    assert sorted(values(reports.take())) == [(1, 0.2), (2, 0.1)]


async def test_reports_of_a_thread_are_never_lost_between_two_rounds(
    reports: ProgressReports,
) -> None:
    """A round takes them at any instant: the last value comes with one of the next two."""
    one = attempt()
    reports.begin(one)
    last, stop = [0], threading.Event()

    def report() -> None:
        for done in itertools.count(1):
            one.context.progress(done, 10**9)
            last[0] = done
            if stop.is_set():
                return

    thread = threading.Thread(target=report)
    thread.start()
    taken: list[int] = []
    try:
        for _ in range(2_000):
            reports._period.end()
            taken += [done for _, done in values(reports.take())]
    finally:
        stop.set()
        thread.join()
    reports._period.end()
    taken += [done for _, done in values(reports.take())]
    assert taken == sorted(taken)
    assert taken[-1] == last[0]


async def test_disk_without_room_for_progress_delays_no_job(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[Round] = []

    @jobs.task
    async def render(job: JobContext) -> str:
        job.progress(0.5)
        return "rendered"

    async with jobs.running():
        store = store_of(jobs)
        write = store.write

        async def full(request: Round) -> Any:
            if request.progress and len(refused) < 3:
                refused.append(request)
                raise StoreFull("no room")
            return await write(request)

        monkeypatch.setattr(store, "write", full)
        job = await jobs.enqueue(render)
        assert await soon(job.result()) == "rendered"
        async with asyncio.timeout(15):
            while await progress_of(job) is None:
                await next_round(jobs)
        assert len(refused) == 3
