"""Decides with tenacity's strategies whether and when a failed job runs again.

A strategy is called once per failure and never sleeps.  The decision depends only on stored numbers (attempt, first
start, now), so a restart changes nothing.  A changed policy applies from the next failure on.
"""

import inspect
import math
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal, NoReturn

from tenacity import BaseRetrying, Future, RetryCallState, Retrying, TryAgain
from tenacity.retry import retry_base, retry_if_exception_type
from tenacity.stop import stop_base
from tenacity.wait import wait_base, wait_exponential, wait_random

from jobrunner.core.clock import SECOND_US
from jobrunner.core.errors import InvalidTask
from jobrunner.core.logs import log_of
from jobrunner.core.steering import Retry

logger = log_of("jobrunner")

Wait = wait_base | Callable[[RetryCallState], float]
Stop = stop_base | Callable[[RetryCallState], bool]
RetryIf = retry_base | Callable[[RetryCallState], bool]

Verdict = int | Literal["exhausted", "not_retryable"]
"""The time (µs) at which the job runs again, or the reason why it does not."""

DEFAULT_MAX_ATTEMPTS: Final = 5
# The two parts of wait_exponential_jitter, whose first parameter was renamed between releases of tenacity.
DEFAULT_WAIT: Final[Wait] = wait_exponential(multiplier=2, exp_base=6, max=3600) + wait_random(0, 1)
DEFAULT_RETRY: Final[RetryIf] = retry_if_exception_type(Exception)

MAX_DELAY_US: Final = 7 * 24 * 3600 * SECOND_US
"""The longest wait between two attempts: an exponential wait without ``max=`` grows without limit."""

_BASES: Final[dict[str, type]] = {"wait": wait_base, "stop": stop_base, "retry": retry_base}
_EXAMPLES: Final = {
    "wait": "wait=wait_exponential_jitter(max=300)",
    "stop": "stop=stop_after_delay(3600)",
    "retry": "retry=retry_if_exception_type(ConnectionError)",
}
_INSIDE: Final = ("predicate", "retries", "strategies", "wait_funcs", "stops")
"""The attributes in which tenacity's composite strategies keep their parts."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The retry policy of a task.

    Args:
        wait: Returns the seconds until the next attempt. Called once per failure; the answer becomes ``run_at``.
        stop: Called after ``wait``; returns True if the failed attempt was the last one.
        retry: Returns True for the errors to retry.
        max_attempts: Runs in total. None leaves it to ``stop``, or means 5 if there is no ``stop``.

    Raises:
        InvalidTask: An argument is not a strategy that can be called in this way.
    """

    wait: Wait = DEFAULT_WAIT
    stop: Stop | None = None
    retry: RetryIf = DEFAULT_RETRY
    max_attempts: int | None = None

    def __post_init__(self) -> None:
        _check_strategy("wait", self.wait)
        _check_strategy("retry", self.retry)
        if self.stop is not None:
            _check_strategy("stop", self.stop)
        elif self.max_attempts is None:
            object.__setattr__(self, "max_attempts", DEFAULT_MAX_ATTEMPTS)

    def decide(
        self,
        error: BaseException,
        *,
        attempt: int,
        first_started_at: int,
        now: int,
        max_attempts: int | None,
        delay_us: int | None = None,
    ) -> Verdict:
        """Decide whether and when a job runs again after a failed attempt.

        The order is that of tenacity: ``retry``, ``wait``, ``stop``.

        Args:
            error: The error of the attempt. A ``Retry`` is retried even if ``retry`` returns False for it.
            attempt: The number of the attempt, 1 for the first.
            first_started_at: The time at which the first attempt started (µs).
            now: The time at which this attempt ended (µs).
            max_attempts: The limit of this job, instead of the policy's; None if the job has none.
            delay_us: The delay that the task set with ``raise Retry``. Then ``retry`` and ``wait`` are not called;
                ``stop`` and ``max_attempts`` still apply.

        Returns:
            The time of the next attempt (µs), at most a week away. Or ``not_retryable`` if ``retry`` returned False. Or
            ``exhausted`` if ``stop`` returned True or the attempts are used up.
        """
        state = self._state(error, attempt, max(0, now - first_started_at))
        if delay_us is None:
            if not isinstance(error, (Retry, TryAgain)) and not self._wants_retry(state):
                return "not_retryable"
            delay_us = self._delay_us(state)
        delay_us = min(max(0, delay_us), MAX_DELAY_US)
        limit = self.max_attempts if max_attempts is None else max_attempts
        if limit is not None and attempt >= limit:
            return "exhausted"
        # After wait, as in tenacity: stop_before_delay reads upcoming_sleep.
        state.upcoming_sleep = delay_us / SECOND_US
        if self._wants_stop(state):
            return "exhausted"
        return now + delay_us

    def _state(self, error: BaseException, attempt: int, elapsed_us: int) -> RetryCallState:
        # The state as tenacity would pass it to a strategy; its clock begins at 0.
        retrying = Retrying(sleep=_never_sleep, wait=self.wait, retry=self.retry)
        state = RetryCallState(retrying, None, (), {})
        state.attempt_number = attempt
        state.start_time = 0.0
        state.outcome = Future.construct(attempt, error, has_exception=True)
        state.outcome_timestamp = elapsed_us / SECOND_US
        return state

    def _wants_retry(self, state: RetryCallState) -> bool:
        try:
            return _said(self.retry(state))
        except Exception:
            logger.exception("retry=%s failed; the error is taken as one to retry", self.retry)
            return _said(DEFAULT_RETRY(state))

    def _delay_us(self, state: RetryCallState) -> int:
        try:
            return _microseconds(self.wait(state))
        except Exception:
            logger.exception("wait=%s failed; the default wait is used", self.wait)
            return _microseconds(DEFAULT_WAIT(state))

    def _wants_stop(self, state: RetryCallState) -> bool:
        if self.stop is None:
            return False
        try:
            return _said(self.stop(state))
        except Exception:
            # Not False: with a stop that always raises the job would be retried for ever.
            logger.exception("stop=%s failed; the default number of attempts is used", self.stop)
            return state.attempt_number >= DEFAULT_MAX_ATTEMPTS


def _microseconds(wait: object) -> int:
    _refuse_awaitable(wait)
    seconds = wait.total_seconds() if isinstance(wait, timedelta) else wait
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or math.isnan(seconds):
        raise TypeError(f"a wait is a number of seconds, not {wait!r}")
    return round(min(max(0.0, seconds), MAX_DELAY_US / SECOND_US) * SECOND_US)


def _said(answer: object) -> bool:
    _refuse_awaitable(answer)
    return bool(answer)


def _refuse_awaitable(answer: object) -> None:
    """Raise TypeError for an awaitable answer, whose ``bool()`` would be True."""
    if isinstance(answer, Awaitable):
        if inspect.iscoroutine(answer):
            answer.close()
        raise TypeError("it returned an awaitable: strategies are asked, not awaited")


def _never_sleep(seconds: float) -> NoReturn:
    raise RuntimeError(
        f"a strategy tried to sleep for {seconds} s; it is only asked, its answer is stored"
    )


def _check_strategy(role: str, strategy: object) -> None:
    """Raise InvalidTask for an object that tenacity would reject late or never."""
    fault = _fault_of(role, strategy)
    if fault is not None:
        raise InvalidTask(
            f"{role}={_shown(strategy)}: {fault}; write for example {_EXAMPLES[role]}"
        )


def _fault_of(role: str, strategy: object) -> str | None:
    if isinstance(strategy, type) or not callable(strategy):
        return "this is no strategy of tenacity"
    if isinstance(strategy, BaseRetrying):
        return "a Retrying object sleeps by itself; the job runner asks a strategy and stores its answer"
    if any(_is_coroutine_callable(part) for part in _with_parts(strategy)):
        return "strategies are asked, not awaited: it must not be a coroutine function"
    kind = next((name for name, base in _BASES.items() if isinstance(strategy, base)), None)
    if kind is not None:
        return None if kind == role else f"this is a {kind} strategy"
    if _module_of(strategy).partition(".")[0] == "tenacity":
        return "of tenacity, only strategies can be asked; this one decorates or sleeps"
    return _fault_of_signature(strategy)


def _fault_of_signature(strategy: Callable[..., object]) -> str | None:
    try:
        inspect.signature(strategy).bind(None)
    except TypeError:
        return "it is called with one argument, tenacity's RetryCallState"
    except ValueError:
        return None  # a builtin without a signature
    return None


def _with_parts(strategy: object) -> Iterator[object]:
    yield strategy
    for name in _INSIDE:
        inside = getattr(strategy, name, ())
        for part in inside if isinstance(inside, (tuple, list)) else (inside,):
            yield from _with_parts(part)


def _is_coroutine_callable(value: Any) -> bool:
    if inspect.iscoroutinefunction(inspect.unwrap(value) if inspect.isfunction(value) else value):
        return True
    return inspect.iscoroutinefunction(getattr(type(value), "__call__", None))  # noqa: B004 - not whether, but which


def _module_of(strategy: object) -> str:
    module = getattr(strategy, "__module__", None) or type(strategy).__module__
    return str(module)


def _shown(strategy: object) -> str:
    return getattr(strategy, "__name__", None) or repr(strategy)
