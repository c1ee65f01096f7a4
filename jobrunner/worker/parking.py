"""Turns the end of an attempt that has parked its job into its outcome."""

import asyncio
from collections.abc import Sequence

from jobrunner.core.errors import InvalidStep
from jobrunner.core.logs import log_of
from jobrunner.core.model import Memo, Parked
from jobrunner.worker.attempt import Attempt
from jobrunner.worker.outcomes import extra
from jobrunner.worker.steps import AttemptSteps, Suspend

logger = log_of("jobrunner")


def attempt_steps_of(attempt: Attempt) -> AttemptSteps:
    """Return the steps of a running attempt, which are made at the first use."""
    steps = attempt.context._opened("transaction(step=...)")  # noqa: SLF001 - as a task does it
    assert isinstance(steps, AttemptSteps)  # noqa: S101 - set by the executor
    return steps


def parked_by(attempt: Attempt, error: BaseException | None) -> Parked | None:
    """Return the outcome of an attempt that has parked its job; None if it has not.

    Args:
        attempt: The attempt, whose function has ended.
        error: The error by which it ended; None if it returned.
    """
    steps = attempt.context._steps  # noqa: SLF001 - made for the attempt, by the executor's order
    if not isinstance(steps, AttemptSteps) or steps.parked is None:
        return None
    if attempt.stopped in ("timeout", "cancel"):
        return None
    if not _lets_pass(error, is_stopped=attempt.stopped is not None):
        job = attempt.job
        logger.error(
            "%s %s waits, and its task has swallowed the signal that ends the attempt (%s): it waits all the same. Do"
            " not catch BaseException around `await job.sleep(...)` and the like, or raise it again",
            job.task,
            job.id,
            "it returned" if error is None else f"it raised {error!r}",
            extra=extra(job),
            like=job.task,
        )
    # What its dependencies see, also if the task swallowed it.
    attempt.keep(error if isinstance(error, Suspend) else Suspend())
    return steps.parked._replace(memos=(*steps.parked.memos, *unsaved(attempt)))


def unsaved(attempt: Attempt) -> Sequence[Memo]:
    """Return the cursors of an attempt that are to be stored with its end."""
    steps = attempt.context._steps  # noqa: SLF001 - as above
    if not isinstance(steps, AttemptSteps):
        return ()
    try:
        return steps.unsaved()
    except InvalidStep as error:
        job = attempt.job
        logger.error("%s %s: %s", job.task, job.id, error, extra=extra(job), like=job.task)
        return ()


def _lets_pass(error: BaseException | None, *, is_stopped: bool) -> bool:
    """Return whether a task has let ``Suspend`` pass, alone or in an exception group."""
    if isinstance(error, BaseExceptionGroup):
        return all(_lets_pass(one, is_stopped=is_stopped) for one in error.exceptions)
    return isinstance(error, Suspend) or (is_stopped and isinstance(error, asyncio.CancelledError))
