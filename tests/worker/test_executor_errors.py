"""Every error of a task's function, and the outcome that the executor makes of it."""

import asyncio
import threading
from collections.abc import Callable

import pytest
from freezegun.api import FrozenDateTimeFactory
from tenacity import retry_if_not_exception_type, stop_after_delay, wait_fixed

from jobrunner import Task, TaskRouter
from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.core.model import Dead, RetryAt
from jobrunner.worker.outcomes import MAX_ERROR, MAX_TRACEBACK
from jobrunner.worker.thread_pool import Threads
from tests.support.executing import end_of, task_raising

tasks = TaskRouter(wait=wait_fixed(60), max_attempts=3)


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


async def test_T19_error_with_control_characters_is_kept_and_logged_escaped(
    threads: Threads,
) -> None:
    outcome = await end_of(task_raising(lambda: ValueError("a\x1b[31mred\x00\r\nb\tc")), threads)

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
