"""Every ending of a task's function, and the outcome that the executor makes of it."""

import asyncio
import logging
import threading
from contextvars import ContextVar
from typing import Any

import pytest
from freezegun.api import FrozenDateTimeFactory
from tenacity import wait_fixed

from jobrunner import JobContext, Task, TaskRouter
from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.core.model import Cancelled, Dead, Outcome, Released, RetryAt, Succeeded
from jobrunner.tasks.codec import MAX_RESULT_BYTES
from jobrunner.worker.thread_pool import Threads
from tests.support.engine import Gate, ThreadGate, soon
from tests.support.executing import Run, end_of

tasks = TaskRouter(wait=wait_fixed(60), max_attempts=3)


# -- values --------------------------------------------------------------------------------------------


@tasks.task
async def double(number: int) -> int:
    return 2 * number


@tasks.task
def double_in_thread(number: int) -> dict[str, int]:
    return {"twice": 2 * number}


@tasks.task
async def nothing() -> None: ...


async def test_returns_value_of_async_def_is_success(threads: Threads) -> None:
    outcome = await end_of(double, threads, args='{"number": 21}')
    assert isinstance(outcome, Succeeded)
    assert (outcome.result, outcome.result_omitted) == ("42", None)
    assert outcome.ended.outcome == "succeeded"


async def test_returns_value_of_def_is_success(threads: Threads) -> None:
    outcome = await end_of(double_in_thread, threads, args='{"number": 21}')
    assert isinstance(outcome, Succeeded)
    assert outcome.result == '{"twice":42}'


async def test_returns_none_is_success_without_result(threads: Threads) -> None:
    outcome = await end_of(nothing, threads)
    assert isinstance(outcome, Succeeded)
    assert (outcome.result, outcome.result_omitted) == (None, None)


async def test_runs_def_in_another_thread_with_callers_context(threads: Threads) -> None:
    router = TaskRouter()
    here: ContextVar[str] = ContextVar("here", default="nowhere")
    seen: list[tuple[bool, str]] = []

    @router.task
    def look() -> None:
        seen.append((threading.current_thread() is threading.main_thread(), here.get()))
        here.set("changed")

    here.set("test")
    await end_of(look, threads)
    assert seen == [(False, "test")]
    assert here.get() == "test"


@tasks.task
async def too_large() -> str:
    return "x" * (MAX_RESULT_BYTES + 1)


@tasks.task
async def unstorable() -> Any:
    return {1, 2}


@pytest.mark.parametrize("task", [too_large, unstorable], ids=["too large", "not JSON"])
async def test_F10_returns_what_cannot_be_stored_is_success_without_result(
    threads: Threads, task: Task[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "jobrunner"):
        outcome = await end_of(task, threads)
    assert isinstance(outcome, Succeeded)
    assert outcome.result is None
    assert outcome.result_omitted is not None
    assert task.name in outcome.result_omitted
    assert outcome.result_omitted in caplog.text


# -- time-outs -----------------------------------------------------------------------------------------------


async def test_exceeds_timeout_is_a_time_out_that_names_its_source(
    threads: Threads, frozen: FrozenDateTimeFactory
) -> None:
    router = TaskRouter(timeout=0.01, wait=wait_fixed(60))

    @router.task
    async def hang() -> None:
        await asyncio.Event().wait()

    outcome = await end_of(hang, threads)
    assert isinstance(outcome, RetryAt)
    assert outcome.run_at == now_us() + 60 * SECOND_US
    ended = outcome.ended
    assert (ended.outcome, ended.error_type) == ("timed_out", "TimedOut")
    assert ended.error == "no end after 0.01 s (the task's timeout)"

    own = await end_of(hang, threads, timeout=20_000)
    assert own.ended.error == "no end after 0.02 s (the job's own timeout)"


async def test_exceeds_timeout_in_last_attempt_is_dead_letter(threads: Threads) -> None:
    router = TaskRouter(timeout=0.01, max_attempts=1)

    @router.task
    async def hang() -> None:
        await asyncio.Event().wait()

    outcome = await end_of(hang, threads)
    assert isinstance(outcome, Dead)
    assert (outcome.reason, outcome.ended.outcome) == ("exhausted", "timed_out")


async def test_exceeds_no_timeout_where_the_job_has_none(threads: Threads) -> None:
    router = TaskRouter(timeout=0.000_001)
    gate = Gate()

    @router.task
    async def hang() -> None:
        await gate.enter()

    run = Run(hang, threads, timeout=0)
    await gate.arrival()
    assert run.attempt._timer is None
    gate.open()
    assert isinstance(await soon(run.outcome), Succeeded)


@pytest.mark.parametrize("late", ["value", "error"])
async def test_C12_returns_late_after_its_time_out_is_a_time_out(
    threads: Threads, late: str
) -> None:
    router = TaskRouter(timeout=0.01)

    @router.task
    async def dawdle() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if late == "error":
                raise LookupError("late") from None
        return "late"

    outcome = await end_of(dawdle, threads)
    assert isinstance(outcome, RetryAt)
    assert (outcome.ended.outcome, outcome.ended.error_type) == ("timed_out", "TimedOut")


async def test_C13_exceeds_timeout_in_a_thread_is_a_time_out_though_it_goes_on(
    threads: Threads,
) -> None:
    router = TaskRouter(timeout=0.01)
    gate = ThreadGate()

    @router.task
    def hang() -> None:
        gate.enter()

    run = Run(hang, threads)
    outcome = await soon(run.outcome)
    assert isinstance(outcome, RetryAt)
    assert outcome.ended.outcome == "timed_out"
    assert run.attempt.thread is not None
    assert not run.attempt.thread.done()
    gate.open()
    await soon(run.attempt.thread)


# -- being stopped ---------------------------------------------------------------------------------------------


async def test_stopped_by_cancel_is_cancelled(threads: Threads) -> None:
    router = TaskRouter()
    gate = Gate()

    @router.task
    async def hang() -> None:
        await gate.enter()

    run = Run(hang, threads)
    await gate.arrival()
    run.attempt.stop("cancel")
    outcome = await soon(run.outcome)
    assert isinstance(outcome, Cancelled)
    assert outcome.ended.outcome == "cancelled"


async def test_stopped_by_shutdown_is_released(threads: Threads) -> None:
    router = TaskRouter()
    gate = Gate()

    @router.task
    async def hang() -> None:
        await gate.enter()

    run = Run(hang, threads)
    await gate.arrival()
    run.attempt.stop("shutdown")
    outcome = await soon(run.outcome)
    assert isinstance(outcome, Released)
    assert outcome.ended.outcome == "released"


async def test_stopped_twice_obeys_the_first_reason(threads: Threads) -> None:
    router = TaskRouter()
    gate = Gate()

    @router.task
    async def hang() -> None:
        await gate.enter()

    run = Run(hang, threads)
    await gate.arrival()
    run.attempt.warn("cancel")
    run.attempt.stop("shutdown")
    assert isinstance(await soon(run.outcome), Cancelled)


@pytest.mark.parametrize(("reason", "kind"), [("cancel", Cancelled), ("shutdown", Released)])
@pytest.mark.parametrize("task", [double, double_in_thread], ids=["async def", "def"])
async def test_stopped_before_its_first_step_runs_nothing(
    threads: Threads, task: Task[[int], Any], reason: Any, kind: type[Outcome]
) -> None:
    run = Run(task, threads, args='{"number": 1}')
    run.attempt.stop(reason)
    assert isinstance(await soon(run.outcome), kind)
    assert threads._started == 0


@pytest.mark.parametrize(
    ("reason", "kind"), [("cancel", Cancelled), ("shutdown", Released), ("timeout", RetryAt)]
)
async def test_sees_that_it_should_end_and_returns_is_no_success(
    threads: Threads, reason: Any, kind: type[Outcome]
) -> None:
    router = TaskRouter()
    gate = ThreadGate()

    @router.task
    def count(job: JobContext) -> str:
        gate.enter()
        return "cut short" if job.cancelled else "whole"

    run = Run(count, threads)
    await gate.arrival()
    run.attempt.warn(reason)
    gate.open()
    assert isinstance(await soon(run.outcome), kind)


@pytest.mark.parametrize("reason", ["cancel", "shutdown"])
async def test_finishes_without_looking_whether_it_should_end_is_success(
    threads: Threads, reason: Any
) -> None:
    router = TaskRouter()
    gate = ThreadGate()

    @router.task
    def count(job: JobContext) -> str:
        gate.enter()
        return "whole"

    run = Run(count, threads)
    await gate.arrival()
    run.attempt.stop(reason)
    gate.open()
    outcome = await soon(run.outcome)
    assert isinstance(outcome, Succeeded)
    assert outcome.result == '"whole"'


# -- arguments that no longer fit ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    ["{}", '{"number": "x"}', '{"number": 1, "old": 2}', "[]", "not JSON", '{"number": NaN}'],
)
async def test_D18_arguments_that_no_longer_fit_are_a_dead_letter_at_once(
    threads: Threads, args: str
) -> None:
    outcome = await end_of(double, threads, args=args)
    assert isinstance(outcome, Dead)
    assert outcome.reason == "invalid_args"
    assert outcome.ended.error_type == "InvalidArguments"
    assert outcome.job.args == args
