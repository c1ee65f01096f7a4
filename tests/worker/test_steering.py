"""``Retry``, ``Snooze`` and ``Bury``, which a task raises to say what becomes of its job."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from freezegun.api import FrozenDateTimeFactory

from jobrunner import Bury, Retry, Snooze, TaskRouter
from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.core.model import Dead, RetryAt, Snoozed
from jobrunner.worker.thread_pool import Threads
from tests.support.clocks import MOMENT
from tests.support.executing import end_of, task_raising


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
    outcome = await end_of(task_raising(error), threads)
    assert isinstance(outcome, RetryAt)
    assert outcome.run_at == now_us() + wait_s * SECOND_US
    assert outcome.ended.outcome == "failed"
    assert outcome.ended.error_type == "Retry"


async def test_raises_retry_in_last_attempt_is_dead_letter(threads: Threads) -> None:
    outcome = await end_of(task_raising(lambda: Retry(5)), threads, attempt=3)
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
    outcome = await end_of(task_raising(error), threads, attempt=3)
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
    outcome = await end_of(task_raising(lambda: kind(delay)), threads)
    assert isinstance(outcome, RetryAt)
    assert outcome.ended.error_type == "InvalidOptions"
    assert outcome.run_at == now_us() + 60 * SECOND_US


@pytest.mark.parametrize("kind", [Retry, Snooze])
@pytest.mark.parametrize("run_at", [NAIVE, "2026-01-01", 1_700_000_000])
async def test_E7_raises_with_a_bad_instant_is_a_failure_with_the_usual_wait(
    threads: Threads, frozen: FrozenDateTimeFactory, kind: type[Retry | Snooze], run_at: Any
) -> None:
    outcome = await end_of(task_raising(lambda: kind(run_at=run_at)), threads)
    assert isinstance(outcome, RetryAt)
    assert outcome.ended.error_type == "InvalidOptions"
    assert outcome.run_at == now_us() + 60 * SECOND_US


async def test_raises_bury_is_dead_letter_at_once(threads: Threads) -> None:
    outcome = await end_of(task_raising(lambda: Bury("no such customer")), threads)
    assert isinstance(outcome, Dead)
    assert outcome.reason == "buried"
    assert (outcome.ended.error_type, outcome.ended.error) == ("Bury", "no such customer")


async def test_bury_with_words_and_a_cause_keeps_the_words_and_the_causes_type(
    threads: Threads,
) -> None:
    def refused() -> Bury:
        why = Bury("the address does not exist")
        why.__cause__ = ConnectionRefusedError("550 5.1.1 unknown")
        return why

    outcome = await end_of(task_raising(refused), threads)

    assert isinstance(outcome, Dead)
    assert outcome.ended.error_type == "ConnectionRefusedError"
    assert outcome.ended.error == "the address does not exist"
    assert "550 5.1.1 unknown" in (outcome.ended.traceback or "")
