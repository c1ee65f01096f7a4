"""Keeps one claimed job's way through its task's function, and stops it.

The reason is written into an attempt before it is stopped, so that the end is read and not guessed from the exception.
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

StopReason = Literal["timeout", "cancel", "shutdown"]


class Wait:
    """One job whose result an attempt waits for."""

    __slots__ = ("front", "id", "refused", "seq", "timed", "trail")

    def __init__(self, id: str, timed: bool) -> None:
        self.id = id
        self.timed = timed
        """Whether the wait ends by itself."""
        self.front: JobRow | None = None
        """The job that must move first, as it was last read: itself, or one before it in its chain."""
        self.trail: list[str] = []
        """The way there, by id."""
        self.seq = 0
        """Of the job itself, once it has been read."""
        self.refused: str | None = None
        """Why it is to end, if it was chosen to, so that all other attempts can go on."""


class Attempt:
    """One claimed job on its way through its task's function."""

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
            self.max_attempts = spec.policy.max_attempts
        self.timeout_us: int | None = spec.timeout if job.timeout is None else job.timeout or None
        self.context = JobContext(job, self.max_attempts)
        self.stopped: StopReason | None = None
        """The reason why it was stopped; the first one counts."""
        self.stopped_at: float | None = None
        """When it was stopped, in the loop's time."""
        self.task: asyncio.Task[None] | None = None
        self.thread: asyncio.Future[Any] | None = None
        """The ``def`` function's thread, once there is one."""
        self.abandoned = False
        """Its outcome has been settled without it, and its later outcome is ignored."""
        self.begun_at: float | None = None
        """When its task had its first step, in the loop's time; one that is cancelled before that would never run at
        all, nor settle anything."""
        self.ended = False
        """The function has come to its end."""
        self.resolved: Resolved | None = None
        """Its dependencies, if it has any; they are open until the supervisor has cleaned up."""
        self.error: BaseException | None = None
        """The error that ended it, for its dependencies."""
        self.decided: Outcome | None = None
        """The outcome, while only the clean-up of its dependencies is under way."""
        self.settled = False
        """Its outcome has been handed in."""
        self.transaction_ended: Ended | None = None
        """How the job was settled by a transaction of the attempt's own, if it was."""
        self.has_committed = False
        """Its outcome was committed together with the rows of an injected session."""
        self.dropped: list[str] | None = None
        """The lines to write in place of async verbs that its code called and did not await."""
        self.waits: list[Wait] = []
        """The jobs whose results it waits for just now."""
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

    def leave_behind(self) -> None:
        """Stop waiting for its code, and let ``asyncio.run`` not wait for it either."""
        self.abandoned = True
        self.take_added("this attempt was left behind, and stores nothing that it added")
        if self.task is not None:
            self.task.cancel()
            if self.thread is None:
                asyncio._unregister_task(self.task)  # noqa: SLF001 - documented, for those who make tasks

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
        """Keep the error that ended it, if a dependency needs it."""
        if self.resolved is not None:
            self.error = error

    def take_added(self, over: str) -> Sequence[Enqueue]:
        """Return the jobs added to its ``Background``, and close that with the error ``over``."""
        background = None if self.resolved is None else self.resolved.own.get("background")
        if background is None:
            return ()
        jobs: Sequence[Enqueue] = background.take(over)
        return jobs

    def outcome_of_stop(self, error: BaseException | None = None) -> Outcome:
        """Return the outcome of a stopped attempt; ``error`` has the place where the stop met the function."""
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
                timed_out = TimedOut(f"no end after {seconds:g} s ({source})")
                if error is not None:
                    timed_out.__traceback__ = error.__traceback__
                return failed(self.job, self.spec, timed_out, now)
