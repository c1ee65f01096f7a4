"""One attempt: run the task's function to whatever end, and say as a value what follows from it.

Nothing here touches the store.  Whoever stops an attempt writes the reason into it first (``Attempt.stop``), so that
the end is read and not guessed from the exception.
"""

import asyncio
import contextlib
import functools
import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from jobrunner.clock import SECOND_US, now_us
from jobrunner.context import JobContext
from jobrunner.errors import (
    Bury,
    InvalidArguments,
    ResultNotStored,
    Retry,
    Snooze,
    Steering,
    TimedOut,
)
from jobrunner.injection import Dependency
from jobrunner.model import (
    Cancelled,
    Claimed,
    Dead,
    Ended,
    Enqueue,
    Outcome,
    Released,
    RetryAt,
    Snoozed,
    Succeeded,
)
from jobrunner.resolution import LeftBehind, Resolved, Surroundings
from jobrunner.spec import TaskSpec, duration_us, instant_us
from jobrunner.threads import Threads

logger = logging.getLogger("jobrunner")

StopReason = Literal["timeout", "cancel", "shutdown"]

MAX_ERROR: Final = 8 * 1024
MAX_TRACEBACK: Final = 32 * 1024
"""Characters kept of an attempt's error and traceback."""
MAX_FRAMES: Final = 50

_ESCAPES: Final = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"
}

_OUR_FILES: Final = {
    __file__,
    contextlib.__file__,  # through which `yield` dependencies are entered
    Resolved.open.__code__.co_filename,
    TaskSpec.call.__code__.co_filename,
    Threads.run.__code__.co_filename,
}

_NOWHERE: Final = Surroundings()


class Attempt:
    """One claimed job on its way through its task's function."""

    __slots__ = (
        "_timer",
        "abandoned",
        "begun_at",
        "context",
        "decided",
        "ended",
        "error",
        "job",
        "max_attempts",
        "resolved",
        "settled",
        "spec",
        "stopped",
        "stopped_at",
        "task",
        "thread",
        "timeout_us",
    )

    def __init__(self, job: Claimed, spec: TaskSpec) -> None:
        self.job = job
        self.spec = spec
        self.max_attempts = job.max_attempts
        if self.max_attempts is None:
            self.max_attempts = spec.policy.max_attempts
        self.timeout_us: int | None = spec.timeout if job.timeout is None else job.timeout or None
        self.context = JobContext(job, self.max_attempts)
        self.stopped: StopReason | None = None
        """Who stopped it, if somebody did; the first one counts."""
        self.stopped_at: float | None = None
        """When it was told to end at once, in the loop's time."""
        self.task: asyncio.Task[None] | None = None
        self.thread: asyncio.Future[Any] | None = None
        """The ``def`` function's thread, once there is one."""
        self.abandoned = False
        """Its outcome has been settled without it: what it says later counts no more."""
        self.begun_at: float | None = None
        """When its task had its first step, in the loop's time; one that is cancelled before that would never run at
        all, nor settle anything."""
        self.ended = False
        """The function has come to its end."""
        self.resolved: Resolved | None = None
        """Its dependencies, if it has any; they are open until the supervisor has cleaned up."""
        self.error: BaseException | None = None
        """What ended it, for its dependencies."""
        self.decided: Outcome | None = None
        """What follows from it, once it is but for the clean-up of its dependencies."""
        self.settled = False
        """Its outcome has been handed in."""
        self._timer: asyncio.TimerHandle | None = None

    def warn(self, reason: StopReason) -> None:
        """Let the function know that it should end: ``job.cancelled`` turns true."""
        if self.stopped is None:
            self.stopped = reason
            self.context._cancelled = True  # noqa: SLF001 - written here, read by the task

    def stop(self, reason: StopReason) -> None:
        """Make the function end: ``job.cancelled`` turns true, and an ``async def`` is cancelled.

        A thread cannot be interrupted. It is waited for, except after a time-out, when the attempt has failed.
        A clean-up is let to its end, unless the process goes down.
        """
        if self.decided is not None and reason != "shutdown":
            return
        self.warn(reason)
        if self.stopped_at is None:
            self.stopped_at = asyncio.get_running_loop().time()
        can_be_told = self.thread is None or reason == "timeout"
        if self.task is not None and self.begun_at is not None and can_be_told:
            self.task.cancel()

    def end_clean_up(self) -> None:
        """Cancel the clean-up of its dependencies, which is on the loop."""
        if self.stopped_at is None:
            self.stopped_at = asyncio.get_running_loop().time()
        if self.task is not None:
            self.task.cancel()

    def start_timer(self) -> None:
        """Have it stopped when its timeout is over, if it has begun and not ended: most need no timer at all."""
        if self.timeout_us is not None and self.begun_at is not None and not self.ended:
            at_s = self.begun_at + self.timeout_us / SECOND_US
            self._timer = asyncio.get_running_loop().call_at(at_s, self.stop, "timeout")

    def end(self) -> None:
        """Measure its time no longer."""
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def keep(self, error: BaseException) -> None:
        """Keep what ended it, if a dependency is to be told."""
        if self.resolved is not None:
            self.error = error

    def outcome_of_stop(self) -> Outcome:
        """Return what follows from having been stopped."""
        now = now_us()
        match self.stopped:
            case "cancel":
                return Cancelled(self.job, Ended("cancelled", now))
            case "shutdown":
                return Released(self.job, Ended("released", now))
            case _:
                seconds = (self.timeout_us or 0) / SECOND_US
                source = (
                    "the task's timeout" if self.job.timeout is None else "the job's own timeout"
                )
                return failed(
                    self.job, self.spec, TimedOut(f"no end after {seconds:g} s ({source})"), now
                )


async def execute(attempt: Attempt, threads: Threads, around: Surroundings = _NOWHERE) -> Outcome:
    """Run an attempt to its end; every end is a value, none an exception.

    The dependencies that it was handed (``attempt.resolved``) are still open when this returns; see ``clean_up``.
    """
    job, spec = attempt.job, attempt.spec
    attempt.begun_at = asyncio.get_running_loop().time()
    try:
        if attempt.stopped_at is not None:
            return attempt.outcome_of_stop()
        try:
            kwargs: Mapping[str, Any] = spec.args.decode(job.args)
        except InvalidArguments as error:
            return Dead(job, _ended(error, now_us(), "failed"), "invalid_args")
        if spec.injected:
            kwargs = await _inject(attempt, kwargs, threads, around)
        value = await _call(attempt, kwargs, threads)
    except asyncio.CancelledError as error:
        attempt.keep(error)
        if attempt.stopped:
            return attempt.outcome_of_stop()
        # A subtask of its own was cancelled: a failure like others, which `retry` would not take for an Exception.
        failure = RuntimeError("the task was cancelled from inside, and nobody asked for that")
        failure.__cause__ = error
        return failed(job, spec, failure.with_traceback(error.__traceback__), now_us())
    except BaseException as error:  # noqa: BLE001 - SystemExit in a task must not end the worker
        attempt.keep(error)
        timed_out = attempt.stopped == "timeout"
        return attempt.outcome_of_stop() if timed_out else failed(job, spec, error, now_us())
    finally:
        attempt.end()
    # The function has returned, and what it was handed is still open.
    return _returned(attempt, value)


async def clean_up(
    attempt: Attempt,
    resolved: Resolved,
    threads: Threads,
    tell: Callable[[Dependency, BaseException], None],
) -> None:
    """Clean up the dependencies of an attempt whose outcome is decided; no thread of it is running.

    Args:
        tell: is told of each clean-up that fails, and with what.

    Raises:
        LeftBehind: the process goes down, and a thread does not end.
    """
    attempt.thread = None
    attempt.stopped_at = None
    await _forget_cancels()
    error = attempt.error
    if error is None and type(attempt.decided) is not Succeeded:
        # It returned early because it saw `job.cancelled`, or too late.
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

    await resolved.close(error, in_thread, tell)


async def _forget_cancels() -> None:
    """Have the clean-up begin as if its task had never been cancelled, for the sake of time-outs in it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        # One that came in the function's last step, with no await behind it, is still to be delivered.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        while task.cancelling():
            task.uncancel()


async def _inject(
    attempt: Attempt, kwargs: Mapping[str, Any], threads: Threads, around: Surroundings
) -> Mapping[str, Any]:
    """Return the arguments with what the function is handed besides them."""
    spec = attempt.spec

    async def in_thread(function: Callable[[], Any]) -> Any:
        attempt.thread = threads.run(function)
        # Shielded, as a `def` function is: see `_call`.
        value = await asyncio.shield(attempt.thread)
        attempt.thread = None
        _heed_stop(attempt)
        return value

    attempt.resolved = Resolved(f"{spec.name} ({spec.where})", spec.injected, around)
    values = await attempt.resolved.open(in_thread)
    _heed_stop(attempt)
    return {**kwargs, **values}


def _heed_stop(attempt: Attempt) -> None:
    """End an attempt that was stopped while a thread made a dependency, or that swallowed its cancel."""
    if attempt.stopped_at is not None:
        raise asyncio.CancelledError


async def _call(attempt: Attempt, kwargs: Mapping[str, Any], threads: Threads) -> Any:
    spec = attempt.spec
    if spec.is_async:
        return await spec.call(attempt.context, kwargs)
    attempt.thread = threads.run(functools.partial(spec.call, attempt.context, kwargs))
    # Shielded: the future must outlive a time-out, to say when the thread has ended.
    return await asyncio.shield(attempt.thread)


def _returned(attempt: Attempt, value: Any) -> Outcome:
    """Return what follows from the function's having returned.

    One that saw ``job.cancelled`` before has cut its work short: that is no success. One that never looked has done its
    work, and only a time-out still makes it a failure.
    """
    told = attempt.context._told  # noqa: SLF001 - written there, read here
    if attempt.stopped == "timeout" or (attempt.stopped and told):
        return attempt.outcome_of_stop()
    return _succeeded(attempt, value)


def _succeeded(attempt: Attempt, value: Any) -> Succeeded:
    job = attempt.job
    ended = Ended("succeeded", now_us())
    writes = attempt.context._writes  # noqa: SLF001 - written there, read here
    added = _added(attempt)
    try:
        return Succeeded(job, ended, attempt.spec.result.encode(value), None, writes, added)
    except ResultNotStored as error:
        # The work is done, and doing it again would not make the result any smaller.
        logger.warning("%s %s: %s", job.task, job.id, error, extra=_extra(job))
        return Succeeded(job, ended, None, str(error), writes, added)


def _added(attempt: Attempt) -> Sequence[Enqueue]:
    """Return the jobs that the attempt has added to its ``Background``, which takes no more."""
    background = None if attempt.resolved is None else attempt.resolved.own.get("background")
    if background is None:
        return ()
    jobs: Sequence[Enqueue] = background.take(
        "the task has returned, and what it added goes with its success"
    )
    return jobs


def failed(job: Claimed, spec: TaskSpec, error: BaseException, now: int) -> Outcome:
    """Return what follows from an exception."""
    outcome: Literal["failed", "timed_out"] = (
        "timed_out" if isinstance(error, TimedOut) else "failed"
    )
    delay: int | None = None
    match error:
        case Bury():
            return Dead(job, _ended(error, now, "failed"), "buried")
        case Snooze() | Retry():
            try:
                delay = _delay_us(error, now)
            except ValueError as wrong:
                error = wrong
            else:
                if isinstance(error, Snooze):
                    return Snoozed(job, Ended("snoozed", now), now + (delay or 0))
    ended = _ended(error, now, outcome)
    decided = spec.policy.decide(
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


def _ended(error: BaseException, now: int, outcome: Literal["failed", "timed_out"]) -> Ended:
    # `raise Retry() from error`: the cause is what went wrong, the steering only what to do about it; unless, as with
    # `raise Bury("why") from error`, it has words of its own.
    told = error.__cause__ if isinstance(error, Steering) and error.__cause__ else error
    said = error if isinstance(error, Bury) and error.why else told
    return Ended(outcome, now, _type_name(told), _text(said), _traceback(error))


def _type_name(error: BaseException) -> str:
    kind = type(error)
    if kind.__module__ in {"builtins", "jobrunner.errors"}:
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException as wrong:  # noqa: BLE001 - a broken __str__ must not break the failure path
        text = f"<its message cannot be shown: {type(wrong).__name__}>"
    return _storable(text, MAX_ERROR)


def _traceback(error: BaseException) -> str:
    trace = error.__traceback__
    # The reader wants the task's frames, not the ones through which we called it.
    while trace is not None and trace.tb_frame.f_code.co_filename in _OUR_FILES:
        trace = trace.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, trace, limit=-MAX_FRAMES))
    except Exception as wrong:  # noqa: BLE001 - as above
        text = f"<its traceback cannot be shown: {type(wrong).__name__}>"
    return _storable(text, MAX_TRACEBACK, keep_end=True)


def _storable(text: str, most: int, *, keep_end: bool = False) -> str:
    """Cut a text to size, and of anything that UTF-8 cannot hold."""
    if len(text) > most:
        cut = len(text) - most
        text = (
            f"[{cut} characters cut]{text[-most:]}"
            if keep_end
            else f"{text[:most]}[{cut} characters cut]"
        )
    # Nor of what would steer a terminal from inside a log.
    return text.encode("utf-8", "backslashreplace").decode("utf-8").translate(_ESCAPES)


def _extra(job: Claimed) -> dict[str, object]:
    return {"job_id": job.id, "task": job.task, "attempt": job.attempt}
