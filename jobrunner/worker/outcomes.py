"""Turns exceptions into outcomes, and formats and logs their texts."""

import contextlib
import re
import traceback
from collections.abc import Hashable, Sequence
from contextvars import copy_context
from typing import Final, Literal

from jobrunner.core.clock import from_us
from jobrunner.core.errors import StepError, TimedOut
from jobrunner.core.escape import escaped
from jobrunner.core.logs import log_of
from jobrunner.core.model import (
    Cancelled,
    Claimed,
    Dead,
    Ended,
    Outcome,
    Parked,
    Raised,
    Released,
    RetryAt,
    Snoozed,
)
from jobrunner.core.steering import Bury, Retry, Snooze, Steering
from jobrunner.core.units import duration_us, instant_us
from jobrunner.tasks.spec import TaskSpec
from jobrunner.worker.dependencies import Resolved
from jobrunner.worker.thread_pool import Threads

logger = log_of("jobrunner")

MAX_ERROR: Final = 8 * 1024
MAX_TRACEBACK: Final = 32 * 1024
"""The most characters kept of an attempt's error (``MAX_ERROR``) and traceback."""
MAX_FRAMES: Final = 50
MOST_NAMED: Final = 10
"""The most attempts that the log names when a shutdown waits for them."""

_NUMBER: Final = re.compile(r"\d+")

OUR_FILES: Final = {
    contextlib.__file__,  # enters `yield` dependencies
    Resolved.open.__code__.co_filename,
    TaskSpec.call.__code__.co_filename,
    Threads.run.__code__.co_filename,
}
"""Files whose frames are removed from the top of a task's traceback."""


def failed(job: Claimed, spec: TaskSpec, error: BaseException, now: int) -> Outcome:
    """Return the outcome of an exception: a retry, a snooze or a dead letter."""
    outcome: Literal["failed", "timed_out"] = (
        "timed_out" if isinstance(error, TimedOut) else "failed"
    )
    delay: int | None = None
    match error:
        case Bury():
            return Dead(job, ended_by(error, now, "failed"), "buried")
        case StepError():
            # Its memos stay: another attempt would end in the same way.
            return Dead(job, ended_by(error, now, "failed"), "not_retryable")
        case Snooze() | Retry():
            try:
                delay = _delay_us(error, now)
            except ValueError as wrong:
                error = wrong
            else:
                if isinstance(error, Snooze):
                    return Snoozed(job, Ended("snoozed", now), now + (delay or 0))
    ended = ended_by(error, now, outcome)
    decided = spec.options.policy.decide(
        error,
        attempt=job.attempt,
        first_started_at=job.first_started_at,
        now=now,
        max_attempts=job.max_attempts,
        delay_us=delay,
    )
    if isinstance(decided, int):
        return RetryAt(job, ended, decided)
    return Dead(job, ended, decided)


def _delay_us(steering: Snooze | Retry, now: int) -> int | None:
    if steering.run_at is not None:
        return max(0, instant_us(steering.run_at, "run_at") - now)
    if steering.delay is not None:
        return duration_us(steering.delay, "delay")
    return None


def ended_by(error: BaseException, now: int, outcome: Literal["failed", "timed_out"]) -> Ended:
    # With `raise Retry() from error` the cause is the error to show. With `raise Bury("why") from error` the text is
    # that of the Bury.
    shown = error.__cause__ if isinstance(error, Steering) and error.__cause__ else error
    said = error if isinstance(error, Bury) and error.why else shown
    trace = _traceback(error)
    return Ended(outcome, now, _type_name(shown), _text(said), trace, Raised(shown, copy_context()))


def _type_name(error: BaseException) -> str:
    kind = type(error)
    if kind.__module__ in {"builtins", "jobrunner"}:
        return escaped(kind.__qualname__)
    return escaped(f"{kind.__module__}.{kind.__qualname__}")


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException as wrong:  # noqa: BLE001 - a broken __str__ must not break the failure path
        text = f"<its message cannot be shown: {type(wrong).__name__}>"
    return _storable(text, MAX_ERROR)


def _traceback(error: BaseException) -> str:
    trace = error.__traceback__
    # Remove our own frames: the reader wants those of the task, and ours refer to the attempt, which would then live as
    # long as the error.
    while trace is not None and trace.tb_frame.f_code.co_filename in OUR_FILES:
        trace = trace.tb_next
    error.__traceback__ = trace
    try:
        text = "".join(traceback.format_exception(error, limit=-MAX_FRAMES))
    except Exception as wrong:  # noqa: BLE001 - as above
        text = f"<its traceback cannot be shown: {type(wrong).__name__}>"
    return _storable(text, MAX_TRACEBACK, keep_end=True)


def _storable(text: str, most: int, *, keep_end: bool = False) -> str:
    """Shorten a text, and escape lone surrogates and control characters."""
    if len(text) > most:
        cut = len(text) - most
        text = (
            f"[{cut} characters cut]{text[-most:]}"
            if keep_end
            else f"{text[:most]}[{cut} characters cut]"
        )
    return escaped(text, lines=True)


def extra(job: Claimed) -> dict[str, object]:
    return {"job_id": job.id, "task": job.task, "attempt": job.attempt}


def _alike(outcome: RetryAt | Dead) -> Hashable:
    """Return a key that is equal for failures with the same cause.

    The numbers in their texts do not count.
    """
    ended = outcome.ended
    return outcome.job.task, ended.error_type, _NUMBER.sub("0", (ended.error or "")[:200])


def log(outcome: Outcome) -> None:
    """Log the end of an attempt; a failure with its error, in the context where it was raised."""
    raised = outcome.ended.raised
    if raised is None:
        _log(outcome, None)
    else:
        raised.context.run(_log, outcome, raised.error)


def _log(outcome: Outcome, error: BaseException | None) -> None:
    job, ended = outcome.job, outcome.ended
    match outcome:
        case RetryAt():
            logger.warning(
                "%s %s %s in attempt %d (%s: %s); it runs again at %s",
                job.task,
                job.id,
                "timed out" if ended.outcome == "timed_out" else "failed",
                job.attempt,
                ended.error_type,
                ended.error,
                from_us(outcome.run_at).isoformat(timespec="milliseconds"),
                extra=extra(job),
                exc_info=error,
                trace=ended.traceback,
                like=_alike(outcome),
            )
        case Dead():
            logger.error(
                "%s %s is a dead letter (%s) after attempt %d: %s: %s",
                job.task,
                job.id,
                outcome.reason,
                job.attempt,
                ended.error_type,
                ended.error,
                extra=extra(job),
                exc_info=error,
                trace=ended.traceback,
                like=_alike(outcome),
            )
        case Snoozed():
            logger.debug("%s %s is snoozed", job.task, job.id, extra=extra(job))
        case Parked():
            logger.debug("%s %s waits, without a slot", job.task, job.id, extra=extra(job))
        case Released():
            logger.info("%s %s is given back", job.task, job.id, extra=extra(job))
        case Cancelled():
            logger.info("%s %s is cancelled", job.task, job.id, extra=extra(job))


def log_wait(jobs: Sequence[Claimed], wait_s: float) -> None:
    """Log the attempts for which a shutdown waits."""
    if jobs:
        names = [f"{job.task} {job.id}" for job in jobs[:MOST_NAMED]]
        if len(jobs) > MOST_NAMED:
            names.append(f"{len(jobs) - MOST_NAMED} more")
        logger.warning(
            "the process shuts down: %d attempt(s) %s: %s",
            len(jobs),
            f"get {wait_s:g} s to end" if wait_s else "are given back",
            ", ".join(names),
        )
