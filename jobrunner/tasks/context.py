"""Gives a running task its job: id, attempt, logger, cancellation, transaction."""

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
    """A context manager that yields the application's session, as ``job.transaction()`` returns it.

    Use ``async with`` in an ``async def`` task and ``with`` in a ``def`` task.
    """

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
    """A logger that adds the job to each record, beside the caller's ``extra``."""

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the job to a record's ``extra``."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


@exported
@answers_foreign_words("context", name="job")
class JobContext:
    """The running job, passed to a task whose first parameter is a ``JobContext``.

    Callers do not pass it: it is not a parameter of ``enqueue``.

    ::

        @jobs.task
        async def charge(job: JobContext, order_id: int) -> None:
            job.logger.info("charging order %s, attempt %d", order_id, job.attempt)
            await payments.capture(order_id, idempotency_key=job.id)

    Attributes:
        id: The job's id, a UUIDv7. It is the same in every attempt and after a replay, unless the replay changes the
            arguments. Use it as the idempotency key of outside effects.
        attempt: The number of this run; 1 for the first.
        max_attempts: Runs in total; None if the task's ``stop=`` alone decides.
        task: The stored name under which the job was enqueued.
        queue: The name of the job's queue.
        scheduled_for: The tick for which a schedule made the job, in UTC; for a job of ``run_now()``, the time of that
            call. None if no schedule made the job.
    """

    __slots__ = (
        "_cancelled",
        "_logger",
        "_saw_stop",
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
        self._saw_stop = False
        self._logger: JobLogger | None = None
        self._writes: list[Write] = []
        self._transact: Callable[[], JobTransaction] | None = None  # the executor sets it

    @property
    def cancelled(self) -> bool:
        """True if the attempt should end: cancelled, timed out, or the process shuts down.

        An ``async def`` task need not check it: it is cancelled, at a shutdown at the latest when the grace is over. A
        ``def`` task runs in a thread, which cannot be cancelled, so a long one should check it now and then::

            for row in rows:
                if job.cancelled:
                    return
                export(row)

        A task that has read True and then returns has ended early: its attempt counts as cancelled, timed out or given
        back, not as a success.
        """
        if self._cancelled:
            self._saw_stop = True
        return self._cancelled

    def transaction(self) -> "JobTransaction":
        """Open the application's session in a write transaction that settles the job.

        Rows that are written through the session exist if and only if the job has succeeded. Jobs that are enqueued in
        the block are part of the transaction. In a ``def`` task write ``with`` instead of ``async with``::

            async with job.transaction() as tx:
                account = await tx.get(Account, account_id)
                account.balance += amount

        An error in the block rolls everything back. A ``rollback()`` in the block also undoes the end of the job and
        fails the attempt. A ``commit()`` in the block settles the job with the rows written so far.

        Nobody else can write to the database during the block, so do slow work before it. For the same reason a value
        can safely be read, changed and written back.

        The result of the task is stored after the transaction. It is lost if the process dies in between:
        ``job.result()`` then raises ``ResultNotStored``. Write data that must not be lost as a row in the block.

        Returns:
            A context manager that yields the session.

        Raises:
            ConfigurationError: The runner has no ``session=``.
            LeaseLost: The job was taken away from this worker, or a transaction has already settled it.
        """
        if self._transact is None:
            raise NotRunning("job.transaction() is for the task that runs the job")
        return self._transact()

    def write(
        self, function: Callable[Concatenate[Any, P], object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Write rows in the transaction that settles the job.

        ``function(connection, *args, **kwargs)`` is called after the task has returned. Its rows exist if and only if
        the job has succeeded, so they are written exactly once, however often the task ran. If the attempt fails,
        snoozes or is cancelled, the function is not called. This is the fastest way to write rows, since many jobs
        share one transaction.

        ::

            def add_total(conn: sqlite3.Connection, day: str, total: int) -> None:
                conn.execute("INSERT INTO totals VALUES (?, ?)", (day, total))

            job.write(add_total, "2026-11-22", 17)

        Args:
            function: A ``def`` whose first parameter is a ``sqlite3.Connection``. It runs in another thread and must
                return within 250 ms. It may not commit, roll back, run PRAGMAs, change jobrunner's own tables or
                enqueue. It is called again if the transaction was rolled back.
            *args: Its further arguments.
            **kwargs: Its further arguments by name.

        Raises:
            InvalidWrite: ``function`` is not callable or is an ``async def``.
        """
        if not callable(function) or inspect.iscoroutinefunction(function):
            raise InvalidWrite(f"job.write() takes a `def` with its arguments, not {function!r}")
        call = functools.partial(function, **kwargs) if kwargs else function
        self._writes.append(Write(call, args, copy_context()))

    @property
    def logger(self) -> JobLogger:
        """The logger ``jobrunner.task``; its records carry ``job_id``, ``task`` and ``attempt``."""
        if self._logger is None:
            extra = {"job_id": self.id, "task": self.task, "attempt": self.attempt}
            self._logger = JobLogger(_logger, extra)
        return self._logger

    def __repr__(self) -> str:
        return f"<JobContext {self.task} {self.id} attempt {self.attempt}>"
