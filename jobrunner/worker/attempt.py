"""Holds the state of one running attempt, and stops it.

The reason of a stop is stored in the attempt first.  Its outcome is then taken from that reason, not guessed from the
exception.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.core.errors import TimedOut
from jobrunner.core.model import Cancelled, Claimed, Ended, Enqueue, JobRow, Outcome, Released
from jobrunner.tasks.context import JobContext
from jobrunner.tasks.spec import TaskSpec
from jobrunner.worker.dependencies import Resolved
from jobrunner.worker.outcomes import failed

StopReason = Literal["timeout", "cancel", "shutdown", "lost"]
"""The last one: others may have taken the job over, and nothing of the attempt is settled."""


class Wait:
    """One job or batch for whose end an attempt waits."""

    __slots__ = ("front", "id", "is_batch", "refused", "seq", "timed", "trail")

    def __init__(self, id: str, timed: bool, *, is_batch: bool = False) -> None:
        self.id = id
        self.timed = timed
        """True if the wait has a time limit."""
        self.is_batch = is_batch
        self.front: JobRow | None = None
        """The job that must run first, as last read: the job itself, an earlier one of its chain, or a member."""
        self.trail: list[str] = []
        """The ids from the job back to ``front``."""
        self.seq = 0
        """The ``seq`` of the job, once it has been read."""
        self.refused: str | None = None
        """The message of the ``Deadlock`` error to raise, if this wait is refused to break a deadlock."""


class Attempt:
    """One running attempt of a claimed job."""

    __slots__ = (
        "_timer",
        "abandoned",
        "begun_at",
        "context",
        "decided",
        "dropped",
        "ended",
        "error",
        "has_committed",
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
        "transaction_ended",
        "waits",
    )

    def __init__(self, job: Claimed, spec: TaskSpec) -> None:
        self.job = job
        self.spec = spec
        self.max_attempts = job.max_attempts
        if self.max_attempts is None:
            self.max_attempts = spec.options.policy.max_attempts
        self.timeout_us: int | None = (
            spec.options.timeout if job.timeout is None else job.timeout or None
        )
        self.context = JobContext(job, self.max_attempts)
        self.stopped: StopReason | None = None
        """The reason of the stop; the first one counts."""
        self.stopped_at: float | None = None
        """The time of the stop, by the loop's clock."""
        self.task: asyncio.Task[None] | None = None
        self.thread: asyncio.Future[Any] | None = None
        """The thread of the ``def`` function, once it runs."""
        self.abandoned = False
        """True once the job was settled without waiting for the code; its later outcome is ignored."""
        self.begun_at: float | None = None
        """The time of its task's first step, by the loop's clock.

        A task that is cancelled before its first step never runs, so it would never settle the job.
        """
        self.ended = False
        """True once the function has ended."""
        self.resolved: Resolved | None = None
        """Its dependencies, if it has any; open until the supervisor has cleaned up."""
        self.error: BaseException | None = None
        """The error that ended it, to raise inside its dependencies."""
        self.decided: Outcome | None = None
        """The outcome, set while only the clean-up of its dependencies is still running."""
        self.settled = False
        """True once its outcome was passed to the committer."""
        self.transaction_ended: Ended | None = None
        """The end of the attempt as its ``job.transaction()`` settled it; None without one."""
        self.has_committed = False
        """True once its outcome was committed together with the rows of an injected session."""
        self.dropped: list[str] | None = None
        """The lines to write instead of async methods that its code called and did not await."""
        self.waits: list[Wait] = []
        """Its current waits for the results of other jobs and the ends of batches."""
        self._timer: asyncio.TimerHandle | None = None

    def warn(self, reason: StopReason) -> None:
        """Set ``job.cancelled``, so that the function can end by itself."""
        if self.stopped is None:
            self.stopped = reason
            self.context._cancelled = True  # noqa: SLF001 - written here, read by the task

    def stop(self, reason: StopReason) -> None:
        """Set ``job.cancelled``, and cancel the function if it is an ``async def``.

        A thread cannot be interrupted: the attempt waits for it, except after a timeout, when the attempt fails at
        once. A clean-up is not interrupted, unless the process shuts down.
        """
        if self.decided is not None and reason != "shutdown":
            return
        self.warn(reason)
        if self.stopped_at is None:
            self.stopped_at = asyncio.get_running_loop().time()
        can_be_cancelled = self.thread is None or reason == "timeout"
        if self.task is not None and self.begun_at is not None and can_be_cancelled:
            self.task.cancel()

    def end_clean_up(self) -> None:
        """Cancel the clean-up of its dependencies, which runs on the event loop."""
        if self.stopped_at is None:
            self.stopped_at = asyncio.get_running_loop().time()
        if self.task is not None:
            self.task.cancel()

    def leave_behind(self) -> None:
        """Stop waiting for its code; ``asyncio.run`` will not wait for it either."""
        self.abandoned = True
        self.take_added("this attempt was left behind, and stores nothing that it added")
        if self.task is not None:
            self.task.cancel()
            if self.thread is None:
                asyncio._unregister_task(self.task)  # noqa: SLF001 - documented, for custom implementations of tasks

    def start_timer(self) -> None:
        """Start the timer of its timeout, if its task has begun and not ended.

        Most attempts end in their first step and need no timer.
        """
        if self.timeout_us is not None and self.begun_at is not None and not self.ended:
            at_s = self.begun_at + self.timeout_us / SECOND_US
            self._timer = asyncio.get_running_loop().call_at(at_s, self.stop, "timeout")

    def end(self) -> None:
        """Note the end of the function, and cancel its timer."""
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def keep(self, error: BaseException) -> None:
        """Keep the error that ended it, if it has dependencies to clean up."""
        if self.resolved is not None:
            self.error = error

    def take_added(self, over: str) -> Sequence[Enqueue]:
        """Return the jobs added to its ``Background`` or its batch; later additions raise the error ``over``."""
        batch = self.context._batch  # noqa: SLF001 - written there, read here
        members: Sequence[Enqueue] = () if batch is None else batch.take(over)
        background = None if self.resolved is None else self.resolved.own.get("background")
        if background is None:
            return members
        jobs: Sequence[Enqueue] = background.take(over)
        return [*jobs, *members] if members else jobs

    def outcome_of_stop(self, error: BaseException | None = None) -> Outcome:
        """Return the outcome of a stopped attempt.

        Args:
            error: The error by which the function ended; its traceback shows where the function was stopped.
        """
        now = now_us()
        match self.stopped:
            case "cancel":
                return Cancelled(self.job, Ended("cancelled", now))
            case "shutdown" | "lost":
                return Released(self.job, Ended("released", now))
            case _:
                seconds = (self.timeout_us or 0) / SECOND_US
                source = (
                    "the task's timeout" if self.job.timeout is None else "the job's own timeout"
                )
                timed_out = TimedOut(f"no end after {seconds:g} s ({source})")
                if error is not None:
                    timed_out.__traceback__ = error.__traceback__
                return failed(self.job, self.spec, timed_out, now)
