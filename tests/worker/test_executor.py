"""Every ending of a task's function, and the outcome that the executor makes of it."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any

import pytest
from freezegun.api import FrozenDateTimeFactory
from tenacity import retry_if_not_exception_type, stop_after_delay, wait_fixed

from jobrunner import Bury, JobContext, Retry, Snooze, Task, TaskRouter
from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.core.model import Cancelled, Dead, Outcome, Released, RetryAt, Snoozed, Succeeded
from jobrunner.tasks.codec import MAX_RESULT_BYTES
from jobrunner.worker.attempt import Attempt
from jobrunner.worker.executor import execute
from jobrunner.worker.outcomes import MAX_ERROR, MAX_TRACEBACK
from jobrunner.worker.thread_pool import Threads
from tests.support.clocks import MOMENT
from tests.support.engine import Gate, ThreadGate, claimed, soon

tasks = TaskRouter(wait=wait_fixed(60), max_attempts=3)


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    pool = Threads(2)
    yield pool
    pool.close()


class Run:
    """An attempt under way, as the supervisor runs it."""

    def __init__(self, task: Task[..., Any], threads: Threads, **job: Any) -> None:
        self.attempt = Attempt(claimed(task=task.name, **job), task.spec)
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._threads = threads
        self.attempt.task = asyncio.create_task(self._run())
        asyncio.get_running_loop().call_soon(self.attempt.start_timer)

    async def _run(self) -> None:
        self.outcome.set_result(await execute(self.attempt, self._threads))


async def end_of(task: Task[..., Any], threads: Threads, **job: Any) -> Outcome:
    run = Run(task, threads, **job)
    outcome = await soon(run.outcome)
    assert run.attempt._timer is None, "a timer was left behind"
    return outcome


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


# -- errors ---------------------------------------------------------------------------------------------


@tasks.task
async def fail() -> None:
    raise LookupError("no such order")


@tasks.task
def fail_in_thread() -> None:
    raise LookupError("no such order")


@pytest.mark.parametrize("task", [fail, fail_in_thread])
async def test_raises_with_attempts_left_is_retry_after_wait(
    threads: Threads, task: Task[[], None], frozen: FrozenDateTimeFactory
) -> None:
    outcome = await end_of(task, threads, attempt=2)
    assert isinstance(outcome, RetryAt)
    assert outcome.run_at == now_us() + 60 * SECOND_US
    ended = outcome.ended
    assert (ended.outcome, ended.error_type, ended.error, ended.at) == (
        "failed",
        "LookupError",
        "no such order",
        now_us(),
    )
    assert ended.traceback is not None
    assert 'raise LookupError("no such order")' in ended.traceback


async def test_raises_in_last_attempt_is_dead_letter(threads: Threads) -> None:
    outcome = await end_of(fail, threads, attempt=3)
    assert isinstance(outcome, Dead)
    assert (outcome.reason, outcome.ended.error) == ("exhausted", "no such order")


async def test_raises_with_jobs_own_max_attempts_holds_it(threads: Threads) -> None:
    assert isinstance(await end_of(fail, threads, attempt=3, max_attempts=4), RetryAt)
    assert isinstance(await end_of(fail, threads, attempt=1, max_attempts=1), Dead)


async def test_raises_past_stop_is_dead_letter(
    threads: Threads, frozen: FrozenDateTimeFactory
) -> None:
    router = TaskRouter(stop=stop_after_delay(3600))

    @router.task
    async def give_up() -> None:
        raise LookupError

    began = now_us() - 3601 * SECOND_US
    outcome = await end_of(give_up, threads, attempt=2, first_started_at=began)
    assert isinstance(outcome, Dead)
    assert outcome.reason == "exhausted"


async def test_raises_what_retry_refuses_is_dead_letter_at_once(threads: Threads) -> None:
    router = TaskRouter(retry=retry_if_not_exception_type(LookupError))

    @router.task
    async def refuse() -> None:
        raise LookupError("never again")

    outcome = await end_of(refuse, threads)
    assert isinstance(outcome, Dead)
    assert outcome.reason == "not_retryable"


async def test_raises_own_timeout_error_is_a_failure_and_no_time_out(threads: Threads) -> None:
    router = TaskRouter(timeout=30)

    @router.task
    async def ask() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    outcome = await end_of(ask, threads)
    assert isinstance(outcome, RetryAt)
    assert (outcome.ended.outcome, outcome.ended.error_type) == ("failed", "TimeoutError")


class Odd(BaseException):
    """An error of the kind that ends programs."""


BASE_ERRORS = [SystemExit(3), KeyboardInterrupt(), Odd()]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        *(("async def", error) for error in BASE_ERRORS),
        *(("def", error) for error in BASE_ERRORS),
        ("async def", GeneratorExit()),
    ],
)
async def test_C15_raises_base_exception_is_a_failure(
    threads: Threads, error: BaseException, kind: str
) -> None:
    router = TaskRouter()

    @router.task
    async def quit_program() -> None:
        raise error

    @router.task
    def quit_program_in_thread() -> None:
        raise error

    task = quit_program if kind == "async def" else quit_program_in_thread
    outcome = await end_of(task, threads)
    # `retry` means Exceptions unless told otherwise.
    assert isinstance(outcome, Dead)
    assert outcome.reason == "not_retryable"
    assert outcome.ended.outcome == "failed"
    assert outcome.ended.error_type is not None
    assert outcome.ended.error_type.endswith(type(error).__name__)


@pytest.mark.parametrize(
    ("kind", "error"),
    [("async def", StopIteration), ("def", StopIteration), ("def", GeneratorExit)],
)
async def test_C15_raises_what_ends_generators_is_a_failure(
    threads: Threads, kind: str, error: type[BaseException]
) -> None:
    router = TaskRouter()

    @router.task
    async def stop() -> None:
        raise error

    @router.task
    def stop_in_thread() -> None:
        raise error

    outcome = await end_of(stop if kind == "async def" else stop_in_thread, threads)
    assert isinstance(outcome, RetryAt)
    assert outcome.ended.error_type == "RuntimeError"
    assert outcome.ended.traceback is not None
    assert error.__name__ in outcome.ended.traceback


# -- errors that are hard to keep -------------------------------------------------------------------------


class BrokenText(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class QuittingText(Exception):
    def __str__(self) -> str:
        raise SystemExit


class EndlessText(Exception):
    def __repr__(self) -> str:
        return repr(self)

    __str__ = __repr__


def a_group() -> Exception:
    return ExceptionGroup("two", [LookupError("one"), ExceptionGroup("in", [ValueError("deep")])])


def a_chain() -> Exception:
    error = LookupError("first")
    for number in range(2_000):
        later = ValueError(f"{number}")
        later.__cause__ = error
        error = later  # type: ignore[assignment]
    return error


HARD: dict[str, Callable[[], Exception]] = {
    "group": a_group,
    "huge": lambda: ValueError("x" * 5_000_000),
    "broken text": BrokenText,
    "text that quits": QuittingText,
    "endless text": EndlessText,
    "surrogate": lambda: ValueError("caf\ud800é"),
    "NUL": lambda: ValueError("a\0b"),
    "object": lambda: ValueError(object(), threading.Lock()),
    "chain": a_chain,
    "recursion": RecursionError,
}


@pytest.mark.parametrize("make", HARD.values(), ids=HARD)
async def test_C16_raises_what_is_hard_to_keep_is_kept_cut_and_storable(
    threads: Threads, make: Callable[[], Exception]
) -> None:
    router = TaskRouter()
    error = make()

    @router.task
    async def raise_it() -> None:
        raise error

    outcome = await end_of(raise_it, threads)
    assert isinstance(outcome, RetryAt)
    ended = outcome.ended
    assert ended.error_type is not None
    assert ended.error_type.endswith(type(error).__name__)
    for text, most in ((ended.error, MAX_ERROR), (ended.traceback, MAX_TRACEBACK)):
        assert text is not None
        assert len(text.encode()) < 4 * most + 100


async def test_C16_raises_group_keeps_every_error_in_the_traceback(threads: Threads) -> None:
    router = TaskRouter()

    @router.task
    async def raise_both() -> None:
        raise a_group()

    outcome = await end_of(raise_both, threads)
    assert outcome.ended.traceback is not None
    assert "LookupError: one" in outcome.ended.traceback
    assert "ValueError: deep" in outcome.ended.traceback


async def test_C16_raises_huge_error_keeps_its_beginning_and_says_how_much_went(
    threads: Threads,
) -> None:
    router = TaskRouter()

    @router.task
    async def shout() -> None:
        raise ValueError("begin" + "x" * 20_000)

    outcome = await end_of(shout, threads)
    assert outcome.ended.error is not None
    assert outcome.ended.error.startswith("beginx")
    assert outcome.ended.error.endswith(f"[{20_005 - MAX_ERROR} characters cut]")


# -- what a task says of its own job ------------------------------------------------------------------------


def router_of(error: Callable[[], BaseException]) -> Task[[], None]:
    router = TaskRouter(wait=wait_fixed(60), max_attempts=3)

    @router.task
    async def steer() -> None:
        raise error()

    return steer


@pytest.mark.parametrize(
    ("error", "wait_s"),
    [
        (lambda: Retry(5), 5),
        (lambda: Retry(0), 0),
        (lambda: Retry(0.25), 0.25),
        (lambda: Retry(timedelta(minutes=2)), 120),
        (lambda: Retry(run_at=MOMENT + timedelta(seconds=7)), 7),
        (lambda: Retry(run_at=MOMENT - timedelta(days=1)), 0),
        (Retry, 60),
    ],
)
async def test_raises_retry_runs_again_when_it_says(
    threads: Threads,
    frozen: FrozenDateTimeFactory,
    error: Callable[[], BaseException],
    wait_s: float,
) -> None:
    outcome = await end_of(router_of(error), threads)
    assert isinstance(outcome, RetryAt)
    assert outcome.run_at == now_us() + wait_s * SECOND_US
    assert outcome.ended.outcome == "failed"
    assert outcome.ended.error_type == "Retry"


async def test_raises_retry_in_last_attempt_is_dead_letter(threads: Threads) -> None:
    outcome = await end_of(router_of(lambda: Retry(5)), threads, attempt=3)
    assert isinstance(outcome, Dead)
    assert outcome.reason == "exhausted"


async def test_raises_retry_from_an_error_keeps_that_error(threads: Threads) -> None:
    router = TaskRouter()

    @router.task
    async def ask() -> None:
        try:
            raise ConnectionError("down")
        except ConnectionError as error:
            raise Retry(5) from error

    outcome = await end_of(ask, threads)
    assert isinstance(outcome, RetryAt)
    assert (outcome.ended.error_type, outcome.ended.error) == ("ConnectionError", "down")


@pytest.mark.parametrize(
    ("error", "wait_s"),
    [
        (lambda: Snooze(5), 5),
        (lambda: Snooze(timedelta(hours=1)), 3600),
        (lambda: Snooze(run_at=MOMENT + timedelta(seconds=7)), 7),
        (lambda: Snooze(run_at=MOMENT - timedelta(days=1)), 0),
    ],
)
async def test_raises_snooze_runs_later_and_keeps_no_error(
    threads: Threads,
    frozen: FrozenDateTimeFactory,
    error: Callable[[], BaseException],
    wait_s: float,
) -> None:
    # In the last attempt: it costs none.
    outcome = await end_of(router_of(error), threads, attempt=3)
    assert isinstance(outcome, Snoozed)
    assert outcome.run_at == now_us() + wait_s * SECOND_US
    assert outcome.ended.outcome == "snoozed"
    assert outcome.ended.error is None


BAD_DELAYS: dict[str, Any] = {
    "negative": -1,
    "NaN": float("nan"),
    "infinite": float("inf"),
    "a thousand years": timedelta(days=365_000),
    "negative timedelta": timedelta(seconds=-1),
    "text": "soon",
    "True": True,
}
NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001 - what is to be refused


@pytest.mark.parametrize("kind", [Retry, Snooze])
@pytest.mark.parametrize("delay", BAD_DELAYS.values(), ids=BAD_DELAYS)
async def test_E7_raises_with_a_bad_delay_is_a_failure_with_the_usual_wait(
    threads: Threads, frozen: FrozenDateTimeFactory, kind: type[Retry | Snooze], delay: Any
) -> None:
    outcome = await end_of(router_of(lambda: kind(delay)), threads)
    assert isinstance(outcome, RetryAt)
    assert outcome.ended.error_type == "InvalidOptions"
    assert outcome.run_at == now_us() + 60 * SECOND_US


@pytest.mark.parametrize("kind", [Retry, Snooze])
@pytest.mark.parametrize("run_at", [NAIVE, "2026-01-01", 1_700_000_000])
async def test_E7_raises_with_a_bad_instant_is_a_failure_with_the_usual_wait(
    threads: Threads, frozen: FrozenDateTimeFactory, kind: type[Retry | Snooze], run_at: Any
) -> None:
    outcome = await end_of(router_of(lambda: kind(run_at=run_at)), threads)
    assert isinstance(outcome, RetryAt)
    assert outcome.ended.error_type == "InvalidOptions"
    assert outcome.run_at == now_us() + 60 * SECOND_US


async def test_raises_bury_is_dead_letter_at_once(threads: Threads) -> None:
    outcome = await end_of(router_of(lambda: Bury("no such customer")), threads)
    assert isinstance(outcome, Dead)
    assert outcome.reason == "buried"
    assert (outcome.ended.error_type, outcome.ended.error) == ("Bury", "no such customer")


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


async def test_bury_with_words_and_a_cause_keeps_the_words_and_the_causes_type(
    threads: Threads,
) -> None:
    def refused() -> Bury:
        why = Bury("the address does not exist")
        why.__cause__ = ConnectionRefusedError("550 5.1.1 unknown")
        return why

    outcome = await end_of(router_of(refused), threads)

    assert isinstance(outcome, Dead)
    assert outcome.ended.error_type == "ConnectionRefusedError"
    assert outcome.ended.error == "the address does not exist"
    assert "550 5.1.1 unknown" in (outcome.ended.traceback or "")


async def test_T19_error_with_control_characters_is_kept_and_logged_escaped(
    threads: Threads,
) -> None:
    outcome = await end_of(router_of(lambda: ValueError("a\x1b[31mred\x00\r\nb\tc")), threads)

    assert outcome.ended.error == "a\\x1b[31mred\\x00\\r\nb\tc"
    assert "\x1b" not in (outcome.ended.traceback or "")


async def test_C15_cancel_from_inside_the_task_is_a_failure_and_retried(threads: Threads) -> None:
    router = TaskRouter()

    @router.task
    async def wait_for_a_cancelled_one() -> None:
        subtask = asyncio.create_task(asyncio.Event().wait())
        subtask.cancel()
        await subtask

    outcome = await end_of(wait_for_a_cancelled_one, threads)

    assert isinstance(outcome, RetryAt)
    assert outcome.ended.error == "the task was cancelled from inside, and nobody asked for that"
    assert "CancelledError" in (outcome.ended.traceback or "")
