"""Runs one attempt of a task's function, and returns its outcome as a value.

Only the task's own transactions (``transactions``) touch the store here.
"""

import asyncio
import contextlib
import functools
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from jobrunner.core.clock import now_us
from jobrunner.core.errors import InvalidArguments, NotAwaited, ResultNotStored
from jobrunner.core.logs import log_of
from jobrunner.core.model import Dead, Ended, Outcome, Returned, Snoozed, Succeeded
from jobrunner.worker.attempt import Attempt
from jobrunner.worker.dependencies import AttemptScope, LeftBehind, Resolved
from jobrunner.worker.handed import with_results
from jobrunner.worker.outcomes import OUR_FILES, ended_by, extra, failed
from jobrunner.worker.parking import parked_by
from jobrunner.worker.steps import AttemptSteps, StepRuntime
from jobrunner.worker.thread_pool import Threads
from jobrunner.worker.transactions import Transaction, Transactions
from jobrunner.worker.unawaited import refuse_dropped, refuse_unfinished, refuse_unfinished_inside

logger = log_of("jobrunner")

_NOWHERE: Final = AttemptScope()

AGAIN_US: Final = (10_000, 200_000)
"""The time until an attempt whose transaction was broken off for another one's sake is made again: at random."""

OUR_FILES.add(__file__)


async def execute(
    attempt: Attempt,
    threads: Threads,
    around: AttemptScope = _NOWHERE,
    transactions: Transactions | None = None,
    steps: StepRuntime | None = None,
) -> Outcome:
    """Run an attempt and return its outcome; errors of the task are outcomes too.

    Its dependencies (``attempt.resolved``) are still open afterwards: call ``clean_up``.
    """
    spec, context = attempt.spec, attempt.context
    attempt.begun_at = asyncio.get_running_loop().time()
    try:
        if attempt.stopped_at is not None:
            return attempt.outcome_of_stop()
        if around.hooks:
            await _enter_hooks(attempt, around)
        try:
            args = attempt.job.args
            if attempt.job.handed is not None:
                args = await with_results(attempt.job, transactions)
                _heed_stop(attempt)
            kwargs: dict[str, Any] = spec.args.decode(args)
        except InvalidArguments as error:
            attempt.keep(error)
            return Dead(attempt.job, ended_by(error, now_us(), "failed"), "invalid_args")
        if spec.wants_context and transactions is not None:
            _equip(attempt, threads, around, transactions, steps)
        if spec.injected:
            kwargs |= await _inject(attempt, threads, around)
        value = await (
            spec.call(context, kwargs) if spec.is_async else _in_thread(attempt, kwargs, threads)
        )
        if value is not None or attempt.dropped is not None:
            _refuse_left(attempt, value)
    except BaseException as error:  # noqa: BLE001 - SystemExit in a task must not end the worker
        return _broken_off(attempt, error, transactions)
    finally:
        attempt.end()
        context._transact = context._make_steps = None  # noqa: SLF001 - as above
    # The function has returned, and its dependencies are still open.
    try:
        # Nearly all attempts have no step and no dependency, and are spared a call.
        is_plain = context._steps is None and attempt.resolved is None  # noqa: SLF001 - made there, read here
        return (
            _returned(attempt, value)
            if is_plain
            else await _finished(attempt, value, threads, transactions)
        )
    except NotAwaited as error:
        return _broken_off(attempt, error)


def _equip(
    attempt: Attempt,
    threads: Threads,
    around: AttemptScope,
    transactions: Transactions,
    steps: StepRuntime | None,
) -> None:
    """Let the task use the methods of its context that need the worker."""
    context = attempt.context
    context._batches = around.batches  # noqa: SLF001 - written here, called by the task
    context._transact = functools.partial(  # noqa: SLF001 - written here, called by the task
        Transaction, attempt, transactions, threads, around
    )
    context._as_write = transactions.store.as_write  # noqa: SLF001 - as above
    if steps is not None:
        context._make_steps = functools.partial(AttemptSteps, attempt, steps)  # noqa: SLF001 - as above


async def _finished(
    attempt: Attempt, value: Any, threads: Threads, transactions: Transactions | None
) -> Outcome:
    """Return the outcome of a returned task."""
    parked = parked_by(attempt, None)
    if parked is not None:
        return parked
    if attempt.resolved is None or transactions is None:
        return _returned(attempt, value)
    return await _returned_with_rows(attempt, value, threads, transactions)


def _broken_off(
    attempt: Attempt, error: BaseException, transactions: Transactions | None = None
) -> Outcome:
    """Return the outcome of an exception from the function or a dependency."""
    if transactions is not None and transactions.were_in_the_way(attempt, error):
        return _in_the_way(attempt, error)
    attempt.keep(error)
    parked = parked_by(attempt, error)
    if parked is not None:
        return parked
    if attempt.transaction_ended is not None:
        return _settled_before(attempt, attempt.transaction_ended, error)
    if isinstance(error, asyncio.CancelledError):
        if attempt.stopped:
            return attempt.outcome_of_stop(error)
        # The task cancelled itself or a subtask. That is a failure; `retry` would not match a CancelledError.
        failure = RuntimeError("the task was cancelled from inside, and nobody asked for that")
        failure.__cause__ = error
        error = failure.with_traceback(error.__traceback__)
    elif attempt.stopped == "timeout":
        return attempt.outcome_of_stop(error)
    return failed(attempt.job, attempt.spec, error, now_us())


def _settled_before(attempt: Attempt, ended: Ended, error: BaseException) -> Outcome:
    """Return the outcome of an error after the transaction that settled the job."""
    job = attempt.job
    if not attempt.stopped:
        logger.error(
            "%s %s failed after its transaction had settled it, and counts as succeeded: let the block be its last"
            " part",
            job.task,
            job.id,
            exc_info=error,
            extra=extra(job),
            like=(job.task, type(error)),
        )
    return Returned(job, ended, None, f"the task raised {error!r} after its transaction")


async def _returned_with_rows(
    attempt: Attempt, value: Any, threads: Threads, transactions: Transactions
) -> Outcome:
    """Return the outcome of a returned task; commit its session's rows with the job's end."""
    job = attempt.job
    if attempt.transaction_ended is not None:
        try:
            await transactions.check_behind(attempt, threads)
        except asyncio.CancelledError as error:
            attempt.keep(error)
        success = _succeeded(attempt, value)
        return Returned(job, attempt.transaction_ended, success.result, success.result_omitted)
    outcome = _returned(attempt, value)
    if type(outcome) is not Succeeded:
        return outcome
    try:
        await transactions.settle(attempt, outcome, threads)
    except asyncio.CancelledError as error:
        # The cancellation came during the commit, which has ended.
        attempt.keep(error)
    except BaseException as error:  # noqa: BLE001 - as above
        attempt.keep(error)
        if transactions.were_in_the_way(attempt, error):
            return _in_the_way(attempt, error)
        return failed(job, attempt.spec, error, now_us())
    return outcome


def _in_the_way(attempt: Attempt, error: BaseException) -> Outcome:
    """Return the outcome of an attempt whose transaction met another one."""
    attempt.keep(error)
    job, now = attempt.job, now_us()
    logger.info(
        "%s %s: another transaction was in the way (%s), and it runs again",
        job.task,
        job.id,
        error,
        extra=extra(job),
        like=job.task,
    )
    # Apart, so that the two do not meet again.
    after = random.randrange(*AGAIN_US)  # noqa: S311 - no secret
    return Snoozed(job, Ended("snoozed", now), now + after)


async def clean_up(
    attempt: Attempt,
    resolved: Resolved,
    threads: Threads,
    report: Callable[[str, BaseException], None],
) -> None:
    """Clean up the dependencies of an attempt whose outcome is decided.

    None of its threads may be running.

    Args:
        attempt: The attempt.
        resolved: Its dependencies.
        threads: The worker's threads.
        report: Called with the name and the error of each clean-up that has failed.

    Raises:
        LeftBehind: The process shuts down, and a thread does not end.
    """
    attempt.thread = None
    attempt.stopped_at = None
    await _forget_cancels()
    error = attempt.error
    is_success = type(attempt.decided) in (Succeeded, Returned)
    if not is_success:
        attempt.take_added(
            "this attempt has ended without success, and stores nothing that it added"
        )
    if error is None and not is_success:
        # It returned early because it read `job.cancelled`, or it returned after its timeout.
        error = asyncio.CancelledError(f"stopped: {attempt.stopped}")

    async def in_thread(function: Callable[[], Any]) -> Any:
        thread = attempt.thread = threads.run(function)
        while not thread.done():
            if attempt.abandoned:
                raise LeftBehind
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([thread])
        attempt.thread = None
        return thread.result()

    await resolved.close(error, in_thread, report)


async def _forget_cancels() -> None:
    """Undo the task's cancellations, so that timeouts inside the clean-up work."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        # A cancellation during the function's last step, with no await after it, is still to be delivered.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        while task.cancelling():
            task.uncancel()


async def _inject(attempt: Attempt, threads: Threads, around: AttemptScope) -> Mapping[str, Any]:
    """Return the values of the dependencies by parameter name."""

    async def in_thread(function: Callable[[], Any]) -> Any:
        attempt.thread = threads.run(function)
        # Shielded like a `def` function: see `_in_thread`.
        value = await asyncio.shield(attempt.thread)
        attempt.thread = None
        _heed_stop(attempt)
        return value

    values = await _resolved(attempt, around).open(in_thread)
    _heed_stop(attempt)
    return values


async def _enter_hooks(attempt: Attempt, around: AttemptScope) -> None:
    await _resolved(attempt, around).enter(around.hooks, attempt.context)
    _heed_stop(attempt)


def _resolved(attempt: Attempt, around: AttemptScope) -> Resolved:
    if attempt.resolved is None:
        spec = attempt.spec
        attempt.resolved = Resolved(f"{spec.name} ({spec.where})", spec.injected, around)
    return attempt.resolved


def _heed_stop(attempt: Attempt) -> None:
    """Raise CancelledError if the attempt was stopped meanwhile.

    The stop may have come while a thread made a dependency, or a dependency has swallowed the cancellation.
    """
    if attempt.stopped_at is not None:
        raise asyncio.CancelledError


def _in_thread(
    attempt: Attempt, kwargs: Mapping[str, Any], threads: Threads
) -> asyncio.Future[Any]:
    """Call a ``def`` function in a thread."""
    attempt.thread = threads.run(functools.partial(attempt.spec.call, attempt.context, kwargs))
    # Shielded: the future must survive a timeout, because it shows when the thread has ended.
    return asyncio.shield(attempt.thread)


def _refuse_left(attempt: Attempt, value: object) -> None:
    """Refuse awaitables that the function has left unfinished."""
    if value is not None:
        refuse_unfinished(value, is_async=attempt.spec.is_async)
    if attempt.dropped is not None:
        refuse_dropped(attempt.dropped)


def _returned(attempt: Attempt, value: Any) -> Outcome:
    """Return the outcome of a returned task.

    A stopped task that has read ``job.cancelled`` ended early, which is not a success. One that never read it has done
    its work; it fails only if it returned after its timeout.
    """
    saw_stop = attempt.context._saw_stop  # noqa: SLF001 - written there, read here
    if attempt.stopped == "timeout" or (attempt.stopped and saw_stop):
        return attempt.outcome_of_stop()
    return _succeeded(attempt, value)


def _succeeded(attempt: Attempt, value: Any) -> Succeeded:
    job = attempt.job
    ended = Ended("succeeded", now_us())
    writes = attempt.context._writes  # noqa: SLF001 - written there, read here
    result, omitted = None, None
    try:
        result = attempt.spec.result.encode(value)
    except ResultNotStored as error:
        refuse_unfinished_inside(value, is_async=attempt.spec.is_async)
        # Not a failure: the work is done, and another attempt would return the same result.
        logger.warning("%s %s: %s", job.task, job.id, error, extra=extra(job), like=job.task)
        omitted = str(error)
    added = attempt.take_added("the task has returned, and what it added goes with its success")
    return Succeeded(job, ended, result, omitted, writes, added)
