"""Gives a running task its job: id, attempt, logger, cancellation, transaction."""

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextvars import copy_context
from datetime import datetime
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar, overload

from jobrunner.core.clock import from_us
from jobrunner.core.errors import InvalidWrite, NotRunning
from jobrunner.core.exports import exported
from jobrunner.core.hints import answers_foreign_words
from jobrunner.core.model import Claimed, Write
from jobrunner.core.progress import MAX_TOTAL, Report, report_of
from jobrunner.core.units import Seconds
from jobrunner.tasks.job_batch import BatchReader, JobBatch
from jobrunner.tasks.job_logger import LOGGER, JobLogger
from jobrunner.tasks.job_transaction import JobTransaction
from jobrunner.tasks.steps import Returning, Steps, SyncSteps

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M")
C = TypeVar("C")
T = TypeVar("T")

_NUMBERS: Final = frozenset({float, int})

AsWrite = Callable[[Any, Sequence[Any]], tuple[Callable[..., object], Sequence[Any]]]
"""Returns what ``job.write()`` was given as a function and its arguments; see ``Store.as_write``."""


class Statement(Protocol):
    """A statement of SQLAlchemy Core, such as ``insert(...)``."""

    def compile(self, *args: Any, **kwargs: Any) -> Any:
        """Return its text for a database."""
        ...


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
        "_announce",
        "_announced",
        "_as_write",
        "_batch",
        "_batches",
        "_cancelled",
        "_claimed",
        "_logger",
        "_make_steps",
        "_progress",
        "_saw_stop",
        "_steps",
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
        self._claimed = job
        self._announce: Callable[[JobContext], None] | None = None  # the supervisor sets it
        self._announced = False
        self._progress: Report | None = None
        self._cancelled = False  # the executor sets it
        self._saw_stop = False
        self._logger: JobLogger | None = None
        self._writes: list[Write] = []
        self._batches: BatchReader | None = None  # the executor sets it
        self._batch: JobBatch | None = None  # made when the task first uses it
        self._transact: Callable[[str | None], JobTransaction] | None = None  # the executor sets it
        self._make_steps: Callable[[], Steps] | None = None  # the executor sets it
        self._as_write: AsWrite | None = None  # the executor sets it
        self._steps: Steps | None = None  # made when the task first uses it

    @property
    def batch(self) -> JobBatch:
        """The batch of which the job is a member or a callback.

        ::

            @jobs.task
            async def publish(job: JobContext, doc: int) -> None:
                async for page in job.batch.results(resize):
                    ...

        See ``jobrunner.tasks.job_batch.JobBatch``: ``results(task)``, ``members()``, ``add(*calls)`` and ``get()``. If
        the job belongs to no batch, these raise ``BatchNotFound`` or ``InvalidBatch``.

        Raises:
            NotRunning: No runner runs the job.
        """
        if self._batch is None:
            if self._batches is None:
                raise NotRunning("job.batch is for the task that runs the job")
            self._batch = JobBatch(self._claimed, self._batches)
        return self._batch

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

    def transaction(self, *, step: str | None = None) -> JobTransaction:
        """Open the application's session in a write transaction that settles the job.

        Rows that are written through the session exist if and only if the job has succeeded. Jobs that are enqueued in
        the block are part of the transaction. In a ``def`` task write ``with`` instead of ``async with``::

            async with job.transaction() as tx:
                account = await tx.get(Account, account_id)
                account.balance += amount

        An error in the block rolls everything back. A ``rollback()`` in the block also undoes the end of the job and
        fails the attempt. A ``commit()`` in the block settles the job with the rows written so far.

        With ``step=`` the job goes on after the block, and the rows are written exactly once: they are committed
        together with the memory that the step is done. In a later run the block gets None, and must leave out its
        work::

            async with job.transaction(step="reserve") as tx:
                if tx is not None:
                    tx.add(Reservation(order_id=order_id))

        Nobody else can write to the database during the block, so do slow work before it. For the same reason a value
        can safely be read, changed and written back.

        The result of the task is stored after the transaction. It is lost if the process dies in between:
        ``job.result()`` then raises ``ResultNotStored``. Write data that must not be lost as a row in the block.

        Args:
            step: The name of a step, which no other step of the run has. Default: none, and the block settles the job.

        Returns:
            A context manager that yields the session; None if the step is done.

        Raises:
            ConfigurationError: The runner has no ``session=``.
            InvalidStep: The name was used before in this run.
            LeaseLost: The job was taken away from this worker, or a transaction has already settled it.
        """
        if self._transact is None:
            raise NotRunning("job.transaction() is for the task that runs the job")
        return self._transact(step)

    # -- steps and waits ------------------------------------------------------------------

    def _opened(self, call: str) -> Steps:
        if self._make_steps is None:
            raise NotRunning(f"job.{call} is for the task that runs the job, while it runs")
        if self._steps is None:
            self._steps = self._make_steps()
        return self._steps

    @overload
    async def step(
        self,
        name: str,
        function: Callable[P, Coroutine[Any, Any, R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...
    @overload
    async def step(
        self, name: str, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    async def step(
        self, name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """Run a part of the job, and remember its result for later runs.

        When the call returns, the result is on disk. If the job runs again, after an error, a wait or the death of its
        process, the function is not called again, and the stored result is returned. Only a process that dies between
        the function's end and the commit makes it run twice, so give effects outside the database a key::

            receipt = await job.step("charge", charge_card, order_id, key=f"{job.id}/charge")

        The name is what is remembered, whatever the order of the steps. A step that is renamed runs again. In a loop
        write ``f"charge-{number}"``.

        Args:
            name: A name that no other step of this run has: letters, digits and ``_ . : @ + -``, at most 200.
            function: An ``async def``, or a ``def`` that does not block. Its return annotation says how the stored
                result is read; without one it is plain JSON.
            *args: The arguments of the function.
            **kwargs: The arguments of the function by name.

        Returns:
            The result of the function, of this run or of an earlier one.

        Raises:
            InvalidStep: The name was used before in this run, or the result cannot be stored.
            StepMismatch: The stored result does not fit the present return annotation.
            LeaseLost: The job was taken away from this worker; the result was not stored.
        """
        return await self._opened("step(...)").step(name, function, args, kwargs)

    async def sleep(self, delay: Seconds, *, name: str = "sleep") -> None:
        """Let the job go on after a time; meanwhile it holds no slot.

        The attempt ends here. After the time the task runs again from its beginning: its finished steps return their
        stored results, and this call returns. The time is stored, so a restart does not begin it again.

        Args:
            delay: Seconds, or a timedelta, from the first call in this job.
            name: A name that no other sleep of this run has. Default: ``"sleep"``.

        Raises:
            InvalidStep: The name was used before in this run.
            InvalidOptions: ``delay`` is negative or not a duration.
        """
        await self._opened("sleep(...)").sleep(delay, name)

    @overload
    async def wait_for(self, name: str, *, timeout: Seconds | None = None) -> None: ...
    @overload
    async def wait_for(self, name: str, model: type[M], *, timeout: Seconds | None = None) -> M: ...
    async def wait_for(
        self, name: str, model: Any = None, *, timeout: Seconds | None = None
    ) -> Any:
        """Wait for a signal from outside; meanwhile the job holds no slot.

        ::

            try:
                approval = await job.wait_for("approved", Approval, timeout=timedelta(days=2))
            except WaitTimedOut:
                return "not approved in time"

        ``await jobs.signal(job_id, "approved", Approval(by="ann"))`` sends it, in any process and also before the job
        waits for it. The first signal of a name counts. Like ``sleep``, the wait ends the attempt, and the task runs
        again from its beginning.

        Args:
            name: The name of the signal. No other wait of this run has it.
            model: The type of the signal's value. Default: none, and the value is not read.
            timeout: The longest wait, from the first call in this job, in seconds or as a timedelta. Default: for ever.

        Returns:
            The value of the signal; None without a ``model``.

        Raises:
            WaitTimedOut: No signal came in time. A later one is refused, and later runs raise this too.
            StepMismatch: The value of the signal does not fit ``model``.
            InvalidStep: The name was used before in this run.
        """
        return await self._opened("wait_for(...)").wait_for(name, model, timeout)

    @overload
    async def run(self, name: str, calls: Returning[R], /) -> R: ...
    @overload
    async def run(self, name: str, calls: Sequence[Returning[R]], /) -> list[R]: ...
    async def run(self, name: str, calls: Any, /) -> Any:
        """Run other tasks as children and return their results; meanwhile the job holds no slot.

        ::

            pages = await job.run("pages", [resize.call(page) for page in pages])

        The calls are stored as a batch, once: later runs wait for it or return its results. The attempt ends here, and
        the task runs again from its beginning when every child has ended. If the job is cancelled, so are its children.

        Args:
            name: A name that no other ``run`` of this run has.
            calls: At most 10,000 calls of tasks, or a single one.

        Returns:
            The results, in the order of the calls; the result itself for a single call.

        Raises:
            ChildrenFailed: A child died, was cancelled or expired.
            InvalidStep: The name was used before in this run, or a value is not a call or has a ``key`` or a session.
            ResultNotStored: A child's result was not stored, or no longer fits the child's return annotation.
        """
        return await self._opened("run(...)").run(name, calls)

    def iterate(
        self,
        name: str,
        source: Callable[[C | None], AsyncIterator[tuple[C, T]]],
        *,
        every: int = 100,
        seconds: Seconds = 5,
    ) -> AsyncIterator[T]:
        """Go through many items, from where the last attempt ended.

        ::

            async def users_after(cursor: int | None) -> AsyncIterator[tuple[int, User]]:
                async for row in fetch("SELECT ... WHERE id > ? ORDER BY id", cursor or 0):
                    yield row.id, User(row)

            async for user in job.iterate("users", users_after, every=500):
                await update(user)

        The cursor of the last finished item is stored after ``every`` items, after ``seconds``, and with every end of
        the attempt: an error, a wait, a shutdown, a time-out. Only a process that dies repeats items, and at most
        ``every`` of them.

        Args:
            name: A name that no other ``iterate`` of this run has.
            source: An ``async def`` with a ``yield``. It gets the stored cursor, None at first, and yields pairs of a
                cursor and an item. The annotation of its parameter says how the stored cursor is read.
            every: The number of items after which the cursor is stored. Default: 100.
            seconds: The time after which it is stored, in seconds or as a timedelta. Default: 5.

        Raises:
            InvalidStep: The name was used before in this run, or a cursor cannot be stored.
            StepMismatch: The stored cursor does not fit the annotation.
        """
        return self._opened("iterate(...)").iterate(name, source, every, seconds)

    @property
    def sync(self) -> SyncSteps:
        """The blocking forms of ``step``, ``sleep``, ``wait_for``, ``run`` and ``iterate``, for ``def`` tasks."""
        return SyncSteps(self._opened)

    # -- rows, progress and the log -------------------------------------------------------

    @overload
    def write(
        self, function: Callable[Concatenate[Any, P], object], /, *args: P.args, **kwargs: P.kwargs
    ) -> None: ...
    @overload
    def write(self, statement: Statement, /) -> None: ...

    def write(self, function: Any, /, *args: Any, **kwargs: Any) -> None:
        """Write rows in the transaction that settles the job.

        ``function(connection, *args, **kwargs)`` is called after the task has returned, or the statement is run. Its
        rows exist if and only if the job has succeeded, so they are written exactly once, however often the task ran.
        If the attempt fails, snoozes or is cancelled, nothing is called. This is the fastest way to write rows, since
        many jobs share one transaction.

        ::

            job.write(insert(Total).values(day="2026-11-22", total=17))     # SQLAlchemy, on SQLite and PostgreSQL

            def add_total(conn: sqlite3.Connection, day: str, total: int) -> None:
                conn.execute("INSERT INTO totals VALUES (?, ?)", (day, total))

            job.write(add_total, "2026-11-22", 17)

        Args:
            function: A statement of SQLAlchemy Core, with its values. Or a ``def`` whose first parameter is a
                ``sqlite3.Connection``, and on PostgreSQL an ``async def`` whose first parameter is an
                ``asyncpg.Connection``. It must return within 250 ms. It may not commit, roll back, run PRAGMAs, change
                jobrunner's own tables or enqueue. It is called again if the transaction was rolled back.
            *args: Its further arguments.
            **kwargs: Its further arguments by name.

        Raises:
            InvalidWrite: The runner's store cannot call ``function``; the message says what to write.
        """
        call = functools.partial(function, **kwargs) if kwargs and callable(function) else function
        given: Sequence[Any] = args
        if self._as_write is not None:
            call, given = self._as_write(call, args)
        elif not callable(call):
            raise InvalidWrite(f"job.write() takes a function with its arguments, not {function!r}")
        self._writes.append(Write(call, tuple(given), copy_context()))

    @overload
    def progress(self, done: float, message: str | None = None, /) -> None: ...
    @overload
    def progress(self, done: float, total: float = 1, message: str | None = None) -> None: ...

    def progress(self, done: float, total: Any = 1, message: str | None = None) -> None:
        """Report how far the task is.

        Others read it as ``Job.progress``, over HTTP, on the pages and on the command line. Call it as often as you
        like, from any thread: the last report is stored twice a second, and once more when the attempt ends. The next
        attempt begins without progress.

        ::

            job.progress(0.4)
            job.progress(0.4, "rendering")
            job.progress(1240, 5000)
            job.progress(1240, 5000, "rows")

        Args:
            done: From 0 to ``total``.
            total: Above 0. Default: 1, so that ``done`` is a fraction.
            message: A few words for people; cut at 200 characters.

        Raises:
            InvalidOptions: A number is negative or not a number, or ``done`` is more than ``total``; also a ValueError.
            TypeError: ``done`` or ``total`` is no number, or ``message`` no text.
        """
        # A task may call this a thousand times a second: an ordinary report is checked here and at once, and nothing is
        # done that can wait for the next round.
        if (
            type(done) in _NUMBERS
            and type(total) in _NUMBERS
            and (message is None or type(message) is str)
            and 0 <= done <= total <= MAX_TOTAL
            and total
        ):
            self._progress = (done, total, message)
        else:
            self._progress = report_of(done, total, message)
        if not self._announced:
            announce = self._announce
            if announce is not None:
                self._announced = True
                announce(self)

    @property
    def logger(self) -> JobLogger:
        """The logger ``jobrunner.task``; its records carry ``job_id``, ``task`` and ``attempt``."""
        if self._logger is None:
            extra = {"job_id": self.id, "task": self.task, "attempt": self.attempt}
            self._logger = JobLogger(LOGGER, extra)
        return self._logger

    def __repr__(self) -> str:
        return f"<JobContext {self.task} {self.id} attempt {self.attempt}>"
