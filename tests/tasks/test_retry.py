"""Retry decisions: made once, from stored numbers, without sleeping, whatever a strategy does."""

import asyncio
import functools
import logging
import math
import statistics
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
import tenacity
from tenacity import RetryCallState

from jobrunner.core.errors import InvalidTask
from jobrunner.core.steering import Retry
from jobrunner.tasks.retry import DEFAULT_MAX_ATTEMPTS, MAX_DELAY_US, RetryPolicy, Verdict

S = 1_000_000
START = 1_795_000_000 * S
BOOM = ConnectionError("boom")


def decide(
    policy: RetryPolicy,
    *,
    error: BaseException = BOOM,
    attempt: int = 1,
    elapsed_s: float = 1,
    max_attempts: int | None = None,
    delay_us: int | None = None,
) -> Verdict:
    return policy.decide(
        error,
        attempt=attempt,
        first_started_at=START,
        now=START + round(elapsed_s * S),
        max_attempts=max_attempts,
        delay_us=delay_us,
    )


def wait_of(policy: RetryPolicy, **more: Any) -> float:
    verdict = decide(policy, elapsed_s=0, **more)
    assert isinstance(verdict, int)
    return (verdict - START) / S


class Recorder:
    """Three strategies that note when they are asked and what they are shown."""

    def __init__(self, *, retry: bool = True, wait: float = 5, stop: bool = False) -> None:
        self.asked: list[str] = []
        self.sleep_seen_by_stop: float | None = None
        self._answers = (retry, wait, stop)

    def retry(self, state: RetryCallState) -> bool:
        self.asked.append("retry")
        return self._answers[0]

    def wait(self, state: RetryCallState) -> float:
        self.asked.append("wait")
        return self._answers[1]

    def stop(self, state: RetryCallState) -> bool:
        self.asked.append("stop")
        self.sleep_seen_by_stop = state.upcoming_sleep
        return self._answers[2]

    def policy(self, max_attempts: int | None = None) -> RetryPolicy:
        return RetryPolicy(self.wait, self.stop, self.retry, max_attempts)


# the order


def test_decide_asks_each_strategy_once_in_the_order_of_tenacity() -> None:
    recorder = Recorder()
    assert decide(recorder.policy()) == START + 6 * S
    assert recorder.asked == ["retry", "wait", "stop"]
    assert recorder.sleep_seen_by_stop == 5


def test_decide_an_error_that_is_not_retryable_asks_nothing_more() -> None:
    recorder = Recorder(retry=False)
    assert decide(recorder.policy()) == "not_retryable"
    assert recorder.asked == ["retry"]


def test_decide_an_error_that_is_not_retryable_at_the_last_attempt_says_so() -> None:
    assert decide(Recorder(retry=False).policy(max_attempts=1)) == "not_retryable"


def test_decide_with_stop_saying_yes_is_exhausted() -> None:
    assert decide(Recorder(stop=True).policy()) == "exhausted"


def test_decide_with_a_delay_asked_by_the_task_skips_retry_and_wait_but_not_stop() -> None:
    recorder = Recorder(retry=False)
    assert decide(recorder.policy(), delay_us=9 * S) == START + 10 * S
    assert recorder.asked == ["stop"]
    assert recorder.sleep_seen_by_stop == 9


def test_decide_with_a_delay_asked_by_the_task_keeps_max_attempts() -> None:
    assert decide(RetryPolicy(), attempt=5, delay_us=S) == "exhausted"
    assert decide(Recorder(stop=True).policy(), delay_us=S) == "exhausted"


@pytest.mark.parametrize("error", [Retry(), tenacity.TryAgain()])
def test_decide_an_explicit_retry_without_a_delay_asks_wait_but_not_the_predicate(
    error: Exception,
) -> None:
    recorder = Recorder(retry=False)
    assert decide(recorder.policy(), error=error) == START + 6 * S
    assert recorder.asked == ["wait", "stop"]


# how many


@pytest.mark.parametrize("attempt", [1, 2, 3, 4])
def test_decide_by_default_before_the_fifth_attempt_runs_again(attempt: int) -> None:
    assert isinstance(decide(RetryPolicy(), attempt=attempt), int)


@pytest.mark.parametrize("attempt", [5, 6, 2000])
def test_decide_by_default_from_the_fifth_attempt_on_is_exhausted(attempt: int) -> None:
    assert decide(RetryPolicy(), attempt=attempt) == "exhausted"


def test_decide_with_a_limit_of_the_job_takes_it_in_place_of_the_policys() -> None:
    assert decide(RetryPolicy(max_attempts=2), attempt=2, max_attempts=3) != "exhausted"
    assert decide(RetryPolicy(max_attempts=9), attempt=2, max_attempts=2) == "exhausted"


def test_decide_with_stop_alone_lifts_the_default_limit() -> None:
    policy = RetryPolicy(stop=tenacity.stop_never)
    assert policy.max_attempts is None
    assert isinstance(decide(policy, attempt=2000), int)


def test_decide_with_stop_and_max_attempts_takes_the_first_that_says_stop() -> None:
    policy = RetryPolicy(stop=tenacity.stop_after_attempt(3), max_attempts=5)
    assert isinstance(decide(policy, attempt=2), int)
    assert decide(policy, attempt=3) == "exhausted"
    late = RetryPolicy(stop=tenacity.stop_after_attempt(7), max_attempts=5)
    assert decide(late, attempt=5) == "exhausted"


def test_decide_by_default_waits_about_2_12_72_432_seconds() -> None:
    for attempt, base in enumerate([2, 12, 72, 432], start=1):
        assert base <= wait_of(RetryPolicy(), attempt=attempt) <= base + 1


# the table of shapes: what tenacity itself would say for these numbers


@pytest.mark.parametrize(
    ("policy", "attempt", "elapsed_s", "error", "verdict"),
    [
        (RetryPolicy(tenacity.wait_fixed(3)), 1, 0, BOOM, 3),
        (RetryPolicy(tenacity.wait_fixed(timedelta(minutes=1))), 4, 0, BOOM, 60),
        (RetryPolicy(tenacity.wait_exponential(multiplier=1, max=60)), 4, 0, BOOM, 8),
        (RetryPolicy(tenacity.wait_exponential(max=60), max_attempts=99), 50, 0, BOOM, 60),
        (RetryPolicy(tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_fixed(9))), 2, 0, BOOM, 9),
        (RetryPolicy(tenacity.wait_fixed(1) + tenacity.wait_fixed(2)), 1, 0, BOOM, 3),
        (RetryPolicy(tenacity.wait_none()), 1, 0, BOOM, 0),
        (RetryPolicy(tenacity.wait_fixed(1), tenacity.stop_after_delay(60)), 9, 59, BOOM, 1),
        (RetryPolicy(tenacity.wait_fixed(1), tenacity.stop_after_delay(60)), 9, 60, BOOM, "exhausted"),
        (RetryPolicy(tenacity.wait_fixed(9), tenacity.stop_before_delay(60)), 2, 50, BOOM, 9),
        (RetryPolicy(tenacity.wait_fixed(11), tenacity.stop_before_delay(60)), 2, 50, BOOM, "exhausted"),
        (
            RetryPolicy(tenacity.wait_fixed(1), tenacity.stop_after_attempt(3) | tenacity.stop_after_delay(60)),
            3, 1, BOOM, "exhausted",
        ),
        (
            RetryPolicy(tenacity.wait_fixed(1), tenacity.stop_after_attempt(3) & tenacity.stop_after_delay(60)),
            3, 1, BOOM, 1,
        ),
        (RetryPolicy(tenacity.wait_fixed(1), retry=tenacity.retry_if_exception_type(OSError)), 1, 0, BOOM, 1),
        (
            RetryPolicy(tenacity.wait_fixed(1), retry=tenacity.retry_if_exception_type(KeyError)),
            1, 0, BOOM, "not_retryable",
        ),
        (
            RetryPolicy(tenacity.wait_fixed(1), retry=tenacity.retry_if_not_exception_type(OSError)),
            1, 0, BOOM, "not_retryable",
        ),
        (RetryPolicy(tenacity.wait_fixed(1), retry=tenacity.retry_if_exception_message(match="bo+m")), 1, 0, BOOM, 1),
        (
            RetryPolicy(
                tenacity.wait_fixed(1),
                retry=tenacity.retry_if_exception_type(KeyError) | tenacity.retry_if_exception_message("boom"),
            ),
            1, 0, BOOM, 1,
        ),
        (RetryPolicy(retry=tenacity.retry_never), 1, 0, BOOM, "not_retryable"),
        (RetryPolicy(), 1, 0, asyncio.CancelledError(), "not_retryable"),
        (RetryPolicy(), 1, 0, SystemExit(1), "not_retryable"),
        (RetryPolicy(lambda state: state.attempt_number * 10), 3, 0, BOOM, 30),
    ],
)  # fmt: skip
def test_decide_a_policy_of_tenacity_gives_what_it_says(
    policy: RetryPolicy, attempt: int, elapsed_s: float, error: BaseException, verdict: float | str
) -> None:
    expected = verdict
    if not isinstance(verdict, str):
        expected = START + round((elapsed_s + verdict) * S)
    assert decide(policy, attempt=attempt, elapsed_s=elapsed_s, error=error) == expected


# the fault catalogue


def test_H1_decide_after_a_restart_needs_only_the_stored_numbers() -> None:
    def made() -> RetryPolicy:
        return RetryPolicy(tenacity.wait_exponential(), tenacity.stop_after_delay(100))

    before, after = made(), made()
    for attempt in range(1, 4):
        decide(before, attempt=attempt)
    assert decide(before, attempt=4, elapsed_s=50) == decide(after, attempt=4, elapsed_s=50)
    assert decide(after, attempt=5, elapsed_s=100) == "exhausted"


def test_H1_decide_shows_strategies_the_time_since_the_first_start() -> None:
    seen: list[float | None] = []

    def stop(state: RetryCallState) -> bool:
        seen.append(state.seconds_since_start)
        return False

    decide(RetryPolicy(stop=stop), elapsed_s=86_400.5)
    assert seen == [86_400.5]


def test_H1_decide_with_a_clock_that_went_back_counts_no_time() -> None:
    policy = RetryPolicy(tenacity.wait_fixed(1), tenacity.stop_after_delay(60))
    assert decide(policy, elapsed_s=-3600) == START - 3599 * S


def test_H3_decide_for_many_failures_at_once_spreads_them() -> None:
    policy = RetryPolicy(tenacity.wait_random_exponential(multiplier=10, max=600))
    waits = [wait_of(policy, attempt=3) for _ in range(500)]
    assert statistics.stdev(waits) > 0.2 * statistics.mean(waits)


@pytest.mark.parametrize(
    "wait",
    [
        tenacity.wait_exponential(),
        tenacity.wait_exponential_jitter(),
        tenacity.wait_fixed(1e30),
        tenacity.wait_fixed(math.inf),
        tenacity.wait_incrementing(increment=1e6),
    ],
)
def test_H4_E7_decide_a_wait_that_overflows_is_clamped_to_a_week(
    wait: tenacity.wait.wait_base,
) -> None:
    verdict = decide(RetryPolicy(wait, tenacity.stop_never), attempt=2000, elapsed_s=0)
    assert verdict == START + MAX_DELAY_US


@pytest.mark.parametrize("delay_us", [10**30, MAX_DELAY_US + 1])
def test_E7_decide_a_delay_of_the_task_is_clamped_to_a_week(delay_us: int) -> None:
    assert decide(RetryPolicy(), elapsed_s=0, delay_us=delay_us) == START + MAX_DELAY_US


def test_E7_decide_a_negative_wait_means_now() -> None:
    assert wait_of(RetryPolicy(lambda _: -5.0)) == 0
    assert decide(RetryPolicy(), elapsed_s=0, delay_us=-5) == START


def raiser(error: Exception) -> Callable[[RetryCallState], Any]:
    def strategy(state: RetryCallState) -> Any:
        raise error

    return strategy


@pytest.mark.parametrize("answer", [math.nan, None, "5", True, [1]])
def test_H5_E7_decide_with_a_wait_that_answers_nonsense_uses_the_default(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert 2 <= wait_of(RetryPolicy(lambda _: answer)) <= 3
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "the default wait is used" in caplog.text


@pytest.mark.parametrize("error", [ValueError("x"), OverflowError(), RecursionError()])
def test_H5_decide_with_a_wait_that_raises_uses_the_default_and_logs(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    assert 2 <= wait_of(RetryPolicy(raiser(error))) <= 3
    assert caplog.records[0].exc_info is not None


def test_H5_decide_with_a_predicate_that_raises_retries_any_exception(
    caplog: pytest.LogCaptureFixture,
) -> None:
    policy = RetryPolicy(retry=tenacity.retry_if_exception(lambda error: error.status == 503))  # type: ignore[attr-defined]
    assert isinstance(decide(policy), int)
    assert decide(policy, error=KeyboardInterrupt()) == "not_retryable"
    assert "retry=" in caplog.text


def test_H5_decide_with_a_stop_that_raises_ends_at_the_default_number_of_attempts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    policy = RetryPolicy(stop=raiser(ValueError("x")))
    assert isinstance(decide(policy, attempt=DEFAULT_MAX_ATTEMPTS - 1), int)
    assert decide(policy, attempt=DEFAULT_MAX_ATTEMPTS) == "exhausted"
    assert "stop=" in caplog.text


def test_H5_decide_with_a_strategy_that_returns_a_coroutine_uses_the_default(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def later() -> float:
        return 5

    def wait(state: RetryCallState) -> Any:
        return later()

    assert 2 <= wait_of(RetryPolicy(wait)) <= 3  # and no warning of a coroutine never awaited
    assert "awaitable" in caplog.text


def test_R29_decide_never_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(seconds: float) -> None:
        raise AssertionError(f"slept for {seconds} s")

    monkeypatch.setattr(time, "sleep", refuse)
    monkeypatch.setattr(threading.Event, "wait", refuse)
    assert isinstance(decide(RetryPolicy(tenacity.wait_fixed(60))), int)


def test_R29_decide_with_a_strategy_that_lets_tenacity_sleep_uses_the_default(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def wait(state: RetryCallState) -> float:
        state.retry_object.sleep(1)
        return 1

    assert 2 <= wait_of(RetryPolicy(wait)) <= 3
    assert "only asked" in caplog.text


# declaring


async def async_predicate(error: BaseException) -> bool:
    return True


async def async_strategy(state: RetryCallState) -> Any:
    return True


class AsyncCallable:
    async def __call__(self, state: RetryCallState) -> Any:
        return True


@pytest.mark.parametrize(
    ("role", "strategy"),
    [
        ("wait", 5),
        ("wait", timedelta(seconds=5)),
        ("wait", tenacity.wait_fixed),
        ("wait", tenacity.stop_after_attempt(3)),
        ("wait", tenacity.sleep),
        ("wait", tenacity.sleep_using_event(threading.Event())),
        ("wait", async_strategy),
        ("wait", AsyncCallable()),
        ("wait", functools.partial(async_strategy)),
        ("wait", lambda: 5),
        ("wait", lambda a, b: 5),
        ("stop", 3),
        ("stop", tenacity.wait_fixed(1)),
        ("stop", async_strategy),
        ("stop", tenacity.stop_after_attempt(3) | async_strategy),  # type: ignore[operator]
        ("retry", ConnectionError),
        ("retry", (ConnectionError, OSError)),
        ("retry", 3),
        ("retry", True),
        ("retry", tenacity.retry),
        ("retry", tenacity.retry(wait=tenacity.wait_fixed(1))),
        ("retry", tenacity.Retrying()),
        ("retry", tenacity.AsyncRetrying()),
        ("retry", tenacity.retry_if_exception(async_predicate)),  # type: ignore[arg-type]
        ("retry", tenacity.retry_if_exception_type(OSError) | tenacity.retry_if_exception(async_predicate)),  # type: ignore[arg-type]
        ("retry", tenacity.asyncio.retry_if_exception(async_predicate)),
    ],
)  # fmt: skip
def test_declare_what_cannot_be_asked_is_refused_with_what_to_write(
    role: str, strategy: Any
) -> None:
    with pytest.raises(InvalidTask, match=f"^{role}=.*; write for example {role}="):
        RetryPolicy(**{role: strategy})


@pytest.mark.parametrize(
    "strategy", [lambda state: 5, functools.partial(max, 3), Recorder().wait, int]
)  # fmt: skip
def test_declare_a_plain_callable_is_taken_unless_it_is_a_class(strategy: Any) -> None:
    if isinstance(strategy, type):
        with pytest.raises(InvalidTask):
            RetryPolicy(strategy)
    else:
        assert RetryPolicy(strategy).wait is strategy


def test_declare_a_policy_is_a_value() -> None:
    wait: Callable[[RetryCallState], float | Awaitable[float]] = tenacity.wait_fixed(1)
    assert RetryPolicy(wait) == RetryPolicy(wait)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        RetryPolicy().max_attempts = 3  # type: ignore[misc]
