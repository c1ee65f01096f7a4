"""What a running task may know of its job."""

import functools
import inspect
import logging
from collections.abc import Callable, MutableMapping
from contextvars import copy_context
from datetime import datetime
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Protocol

from jobrunner.core.clock import from_us
from jobrunner.core.errors import InvalidWrite, NotRunning
from jobrunner.core.exports import exported
from jobrunner.core.hints import answers_foreign_words
from jobrunner.core.model import Claimed, Write

P = ParamSpec("P")

_logger = logging.getLogger("jobrunner.task")


class JobTransaction(Protocol):
    """What ``job.transaction()`` returns; it gives the application's session."""

    async def __aenter__(self) -> Any: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...
    def __enter__(self) -> Any: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...


class JobLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose records carry the job; what the caller hands over as ``extra`` is kept beside it."""

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the job to a record's ``extra``."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


@exported
@answers_foreign_words("context", name="job")
class JobContext:
    """The job that is running; a task that takes it as its first parameter is handed it.

    Attributes:
        id: the job's id, the same at every attempt: the idempotency key for the world outside.
        attempt: 1 for the first run.
        max_attempts: runs in total; None if the task's ``stop=`` alone decides.
        task: the stored name it was enqueued under.
        queue: the queue it came from.
        scheduled_for: the tick that a schedule made the job for; None for a job that was enqueued.
    """

    __slots__ = (
        "_cancelled",
        "_logger",
        "_told",
        "_transact",
        "_writes",
        "attempt",
        "id",
        "max_attempts",
        "queue",
        "scheduled_for",
        "task",
    )

    def __init__(self, job: Claimed, max_attempts: int | None) -> None:
        self.id: str = job.id
        self.attempt: int = job.attempt
        self.max_attempts: int | None = max_attempts
        self.task: str = job.task
        self.queue: str = job.queue
        self.scheduled_for: datetime | None = (
            None if job.scheduled_for is None else from_us(job.scheduled_for)
        )
        self._cancelled = False  # the executor sets it
        self._told = False
        self._logger: JobLogger | None = None
        self._writes: list[Write] = []
        self._transact: Callable[[], JobTransaction] | None = None  # the executor sets it

    @property
    def cancelled(self) -> bool:
        """Whether the attempt should end: its job was cancelled, its time is out, or the process shuts down.

        An ``async`` task is cancelled by itself at the latest when the shutdown's grace is over; a ``def`` task runs
        in a thread and has to look. A task that has been told so and then returns has cut its work short: its attempt
        counts as cancelled, timed out or given back, and not as a success.
        """
        if self._cancelled:
            self._told = True
        return self._cancelled

    def transaction(self) -> "JobTransaction":
        """Open the application's session in a write transaction whose commit settles the job.

        ``async with job.transaction() as tx:``, in a ``def`` task ``with job.transaction() as tx:``. What is written
        through ``tx`` is there exactly if the job has succeeded; jobs that are enqueued inside are part of it. An error
        in the block rolls it back; a ``rollback()`` inside takes the end of the job along, and fails the attempt;
        a ``commit()`` inside settles the job with what was written so far.

        Nobody else writes to the database meanwhile: do what takes time before it. What is read inside stays as it was
        read, so that a value may be read, changed and written back.

        What the task returns is stored after it, and is lost if the process dies in between: ``result()`` then raises
        ``ResultNotStored``. What must not be lost is a row to be written in the block.

        Raises:
            ConfigurationError: the runner has no ``session=``.
            LeaseLost: the job was taken away from this worker, or a transaction has settled it already.
        """
        if self._transact is None:
            raise NotRunning("job.transaction() is for the task that runs the job")
        return self._transact()

    def write(
        self, function: Callable[Concatenate[Any, P], object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Have ``function(connection, *args)`` write rows in the transaction that settles the job.

        It is called once the task has returned, and what it writes is there exactly if the job has succeeded: exactly
        once, however often the task ran. An attempt that fails, snoozes or is cancelled writes nothing. Many jobs share
        a transaction: there is no faster way.

        Args:
            function: a ``def`` that takes a ``sqlite3.Connection`` first. It runs in another thread, within 250 ms,
                leaves commit, rollback, PRAGMAs and jobrunner's own tables alone, enqueues nothing, and is called again
                if the transaction was rolled back.
            *args: its other arguments.
            **kwargs: the same by name.

        Raises:
            InvalidWrite: it is no such function.
        """
        if not callable(function) or inspect.iscoroutinefunction(function):
            raise InvalidWrite(f"job.write() takes a `def` with its arguments, not {function!r}")
        call = functools.partial(function, **kwargs) if kwargs else function
        self._writes.append(Write(call, args, copy_context()))

    @property
    def logger(self) -> JobLogger:
        """A logger named ``jobrunner.task`` whose records carry ``job_id``, ``task`` and ``attempt``."""
        if self._logger is None:
            extra = {"job_id": self.id, "task": self.task, "attempt": self.attempt}
            self._logger = JobLogger(_logger, extra)
        return self._logger

    def __repr__(self) -> str:
        return f"<JobContext {self.task} {self.id} attempt {self.attempt}>"
