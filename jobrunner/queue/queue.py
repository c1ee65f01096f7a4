"""Offers ``JobQueue``: the public API to store, read, cancel and reschedule jobs."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, ParamSpec, TypeVar, Unpack, overload

from jobrunner.core.batch import Batch
from jobrunner.core.clock import now_us
from jobrunner.core.counts import CancelCounts, RescheduleCounts
from jobrunner.core.errors import JobNotFound
from jobrunner.core.exports import exported
from jobrunner.core.health import Health
from jobrunner.core.hints import answers_foreign_words
from jobrunner.core.job import CancelStatus, Job, Payload, job_of, payload_of
from jobrunner.core.model import FINISHED, JobRow, OnDead
from jobrunner.core.units import Seconds
from jobrunner.queue import slices
from jobrunner.queue.audit import AuditLog
from jobrunner.queue.batches import Batches, enqueue_batch
from jobrunner.queue.dead_letters import DeadLetters
from jobrunner.queue.enqueuer import Enqueuer, call_of
from jobrunner.queue.filters import (
    DEFAULT_ROWS,
    CancelFilter,
    JobFilter,
    RescheduleFilter,
    cancel_filter,
    check_words,
    checked_id,
    checked_limit,
    due_us,
    job_filter,
    read_cursor,
    reschedule_filter,
    write_cursor,
)
from jobrunner.queue.limits import Limits
from jobrunner.queue.page import Page
from jobrunner.queue.queues import Queues
from jobrunner.queue.results import no_job, waits_of
from jobrunner.queue.schedules import Schedules
from jobrunner.queue.signals import checked_signal, signal_text
from jobrunner.queue.stats import Stats, StatsQuery, stats_of
from jobrunner.store.session_writer import Caller
from jobrunner.tasks.call import Call
from jobrunner.tasks.graph import Callbacks
from jobrunner.tasks.task import Task

P = ParamSpec("P")
R = TypeVar("R")


@exported
@answers_foreign_words("queue", name="queue")
class JobQueue:
    """Stores, reads and cancels the jobs of an open runner.

    A route gets it with ``queue: Queue`` or ``Depends(jobs.queue)``::

        @app.post("/register")
        async def register(email: str, queue: Queue) -> str:
            job = await queue.enqueue(send_welcome_email, email)
            return job.id
    """

    def __init__(self, enqueuer: Enqueuer) -> None:
        self._enqueuer = enqueuer
        self._parts = enqueuer.parts

    # -- storing ------------------------------------------------------------------

    async def enqueue(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Store a call of a task as a job.

        When the call returns, the job is on disk; with a session, it is in the session's transaction and is stored by
        its commit.

        Options are set on the task::

            await queue.enqueue(remind.options(delay=3600), email)

        Args:
            task: The task, or ``task.options(...)``.
            *args: The positional arguments of the call.
            **kwargs: The keyword arguments of the call.

        Returns:
            The stored job. If an unfinished job of the task has the same ``key``, that job, with ``created`` False.

        Raises:
            InvalidArguments: The arguments do not fit the task; nothing was stored.
            UnknownTask: The task is not registered with this runner.
            UnknownQueue: The runner does not have the queue that the options name.
            StoreError: The job could not be stored; after a ``StoreOutcomeUnknown`` it may be stored all the same.
        """
        return await self._enqueuer.enqueue_call(call_of(task, args, kwargs))

    async def enqueue_many(self, calls: Iterable[Call[R]]) -> list[Job[R]]:
        """Store many calls in one transaction: all of them, or none.

        ::

            await queue.enqueue_many([send_welcome_email.call(email) for email in emails])

        Args:
            calls: At most 10,000 calls, each made with ``task.call(...)``.

        Returns:
            The jobs, in the order of the calls.

        Raises:
            InvalidOptions: A value is not a call, the calls name different sessions, or there are more than 10,000.
            InvalidArguments: The arguments of a call do not fit its task; nothing was stored.
            UnknownTask: A task is not registered with this runner.
            UnknownQueue: The runner does not have a queue that the options name.
            StoreError: The jobs could not be stored; after a ``StoreOutcomeUnknown`` they may be stored all the same.
        """
        return await self._enqueuer.enqueue_calls("enqueue_many", calls)

    async def enqueue_chain(
        self, calls: Iterable[Call[R]], *, on_dead: OnDead = "continue"
    ) -> list[Job[R]]:
        """Store calls that run one after another, in one transaction: all of them, or none.

        ::

            await queue.enqueue_chain([resize.call(photo), publish.call(photo)])

        The first job is due as if it were alone. Each later job is ``blocked`` until the job before it has succeeded or
        is a dead letter, after all its retries. Then it is due, or later if its own ``delay`` or ``run_at`` is later.
        If a job is cancelled or expires, the jobs behind it are cancelled. So a chain goes on after a dead letter,
        unless it has ``on_dead="cancel"``; a job in a batch that waits for another one always needs its success, and
        a replay revives it (see ``enqueue_batch``).

        If an unfinished job of a task has the ``key`` of a call, nothing is stored for that call: the unfinished job is
        returned in its place, with ``created`` False, and the chain continues without it.

        Args:
            calls: At most 10,000 calls, each made with ``task.call(...)``, in the order in which they run.
            on_dead: ``"continue"``: the next job starts after a dead letter too. ``"cancel"``: the jobs behind a dead
                letter are cancelled, and a replay of the dead letter does not revive them.

        Returns:
            The jobs, in the order of the calls.

        Raises:
            InvalidOptions: A value is not a call, the calls name different sessions, there are more than 10,000, or
                ``on_dead`` has another value.
            InvalidArguments: The arguments of a call do not fit its task; nothing was stored.
            UnknownTask: A task is not registered with this runner.
            UnknownQueue: The runner does not have a queue that the options name.
            StoreError: The jobs could not be stored; after a ``StoreOutcomeUnknown`` they may be stored all the same.
        """
        return await self._enqueuer.enqueue_calls("enqueue_chain", calls, on_dead=on_dead)

    async def enqueue_batch(
        self,
        calls: Iterable[Call[R]],
        *,
        then: Call[Any] | None = None,
        otherwise: Call[Any] | None = None,
        at_end: Call[Any] | None = None,
        name: str | None = None,
    ) -> Batch[R]:
        """Store calls as a batch with callbacks, in one transaction: all of it, or nothing.

        ::

            await queue.enqueue_batch([resize.call(page) for page in pages], then=publish.call(doc))

            paid = charge.call(order_id)
            await queue.enqueue_batch([paid, ship.call(paid.result), mail.call(paid.result)])

        The calls run side by side, except for those that wait for others: by taking a result (``Call.result``), or by
        ``Call.after``. If a job that others need dies or is cancelled, these are cancelled; the rest of the batch goes
        on. (In a chain, the next job starts after a dead letter too.) A replay of the dead letter revives them.

        The batch ends when no member is unfinished. Then its callbacks start, which read the members' results with
        ``job.batch``. An empty batch succeeds at once.

        If an unfinished job of a task has the ``key`` of a call, nothing is stored for that call: the unfinished job is
        returned in its place, with ``created`` False, and is no member. If another call or a callback depends on it,
        that is ``KeyTaken``.

        Args:
            calls: At most 10,000 calls, each made with ``task.call(...)`` and used once.
            then: The call that runs when all members have succeeded. It may take their results.
            otherwise: The call that runs when the batch has ended without success. Once only: not again after a retry.
            at_end: The call that runs when the batch has ended in any way. Once only, as ``otherwise``.
            name: A name for people and for ``batches.list``; it need not be unique. Default: none.

        Returns:
            The batch, with its jobs in the order of the calls.

        Raises:
            InvalidBatch: Calls wait for each other in a circle or for a call that is not in the list, or are too many.
            InvalidOptions: A value is not a call, the calls name different sessions, or the name is too long.
            InvalidArguments: The arguments of a call do not fit its task; nothing was stored.
            KeyTaken: An unfinished job has the key of a call that others depend on; nothing was stored.
            UnknownTask: A task is not registered with this runner.
            UnknownQueue: The runner does not have a queue that the options name.
            StoreError: The batch could not be stored; after a ``StoreOutcomeUnknown`` it may be stored all the same.
        """
        return await enqueue_batch(self._enqueuer, calls, Callbacks(then, otherwise, at_end), name)

    # -- reading -------------------------------------------------------------------

    @overload
    async def get(self, id: str) -> Job[Any]: ...
    @overload
    async def get(self, id: str, task: Task[..., R]) -> Job[R]: ...
    async def get(self, id: str, task: Task[..., R] | None = None) -> Job[Any]:
        """Return a job with its arguments and its history.

        A dead letter is returned too, with the state ``dead``.

        Args:
            id: The id of the job.
            task: The task of the job. With it, ``result()`` has the type that the task returns. Default: any task.

        Raises:
            JobNotFound: No job has this id (it may be past its retention), or the job is of another task.
        """
        row = await self._row(id)
        if task is not None and row.task not in {task.name, *task.spec.aliases}:
            raise JobNotFound(f"job {id} is one of {row.task}, not of {task.name}")
        attempts = await self._parts.store.jobs.attempts(row.seq)
        store = self._parts.store
        waits = await waits_of(store, [row], now_us())
        wait = waits.get(row.seq)
        steps = await store.workflows.steps(row.seq)
        return job_of(row, attempts, self._enqueuer.reader, args=row.args, wait=wait, steps=steps)

    async def payload(self, id: str) -> Payload:
        """Return the stored arguments, result and steps of a job, as plain JSON values.

        This also works for dead letters, and for jobs of tasks that the runner does not have.

        Raises:
            JobNotFound: No job has this id; it may be past its retention.
        """
        row = await self._row(id)
        return payload_of(row, await self._parts.store.workflows.steps(row.seq))

    async def _row(self, id: str) -> JobRow:
        row = await self._parts.store.jobs.get(checked_id(id))
        if row is None:
            raise no_job(id)
        return row

    async def list(
        self,
        *,
        limit: int = DEFAULT_ROWS,
        cursor: str | None = None,
        **where: Unpack[JobFilter],
    ) -> Page[Job[Any]]:
        """Return a page of jobs, newest first.

        With ``state="dead"`` it returns the dead letters, most recent death first; without it they are left out. With
        ``state="retrying"`` it returns the scheduled jobs that wait for another attempt.

        If few of many jobs match, the search stops after about 100 ms. Then the page has fewer jobs, perhaps none, and
        its ``complete`` is False. The last page has no ``next_cursor``.

        Args:
            limit: The most jobs on the page, 1 to 1,000. Default: 50.
            cursor: The ``next_cursor`` of the previous page; None for the first page.
            **where: Only jobs with this ``task``, ``queue``, ``state``, ``tag``, ``key`` or ``batch``, created at
                ``since`` or later and before ``until`` (aware datetimes). With ``state="dead"`` the two mean the time
                of death.

        Raises:
            InvalidCursor: The cursor does not come from a page.
            InvalidOptions: A datetime is naive, the limit is out of range, or a filter has an invalid value.
        """
        meant = job_filter(where)
        lister = self._parts.store.jobs.list
        if meant.state == "dead":
            # Their table has no state column: each of its rows is dead.
            meant, lister = meant._replace(state=None), self._parts.store.dead_letters.list
        page = await lister(meant, before=read_cursor(cursor), limit=checked_limit(limit))
        waits = await waits_of(self._parts.store, page.rows, now_us())
        reader = self._enqueuer.reader
        return Page(
            [job_of(row, (), reader, wait=waits.get(row.seq)) for row in page.rows],
            write_cursor(page.next),
            page.complete,
        )

    # -- cancelling ----------------------------------------------------------------------

    async def cancel(self, id: str) -> CancelStatus | None:
        """Cancel a waiting job, or ask a running one to stop, in any process.

        Returns:
            ``"cancelled"`` if the job was waiting: it will not run, and neither will the jobs behind it in its chain.
            ``"requested"`` if the job is running and was asked to stop. None if it had already finished or died.

        Raises:
            JobNotFound: No job has this id; it may be past its retention.
        """
        before = await self._parts.store.jobs.cancel(checked_id(id), now=now_us())
        if before is None:
            raise no_job(id)
        if before.state in FINISHED:
            return None
        if before.state == "running":
            self._parts.worker.cancel_requested([before.seq])
            return "requested"
        self._parts.events.wake(id)
        return "cancelled"

    async def cancel_all(
        self,
        *,
        dry_run: bool = False,
        on_slice: Callable[[int], None] | None = None,
        **where: Unpack[CancelFilter],
    ) -> CancelCounts:
        """Cancel all unfinished jobs that match the filters, each as ``cancel`` does.

        ::

            counts = await queue.cancel_all(task=send_newsletter, tag="campaign:7")
            print(counts.cancelled, counts.requested)

        Each transaction cancels up to 500 of them, newest first, so that other writers do not wait long. Jobs that are
        enqueued during the call stay. If the call is broken off, the rest stays too; call it again to go on.

        Args:
            dry_run: True to count only, without changing anything.
            on_slice: Called after each transaction with the number of jobs that it cancelled or asked to stop.
            **where: Only jobs with this ``task``, ``queue``, ``state``, ``tag`` or ``key``, created at ``since`` or
                later and before ``until`` (aware datetimes); none for all unfinished jobs.

        Raises:
            InvalidOptions: A datetime is naive, or a filter has an invalid value.
        """
        meant = cancel_filter(where)
        if dry_run:
            plan = await self._parts.store.jobs.plan_cancel_all(meant)
            return CancelCounts(plan.cancelled, plan.requested)
        return await slices.cancel_all(self._parts, meant, on_slice)

    # -- rescheduling --------------------------------------------------------------------

    async def reschedule(
        self, id: str, delay: Seconds | None = None, *, run_at: datetime | None = None
    ) -> Job[Any]:
        """Make a waiting job due at another time; it may also wait for a retry.

        ::

            await queue.reschedule(job.id, 3600)  # in an hour
            await queue.reschedule(job.id, 0)  # now

        A job that becomes due starts at once, in any process with a free slot. Its attempts stay as they are.

        Args:
            id: The id of a job that is scheduled or queued, and not asleep: the task decides when that goes on.
            delay: Seconds, or a timedelta, from now.
            run_at: An aware datetime, instead of ``delay``; the past means now.

        Returns:
            The job as it is now.

        Raises:
            JobNotFound: No job has this id; it may be past its retention.
            JobNotWaiting: The job is running, blocked, asleep, finished or dead; it did not change.
            InvalidOptions: Neither or both of the two times are given, one of them is invalid, or the job would expire
                before it is due.
        """
        now = now_us()
        due = due_us(delay, run_at, now)
        row = await self._parts.store.jobs.reschedule(checked_id(id), run_at=due, now=now)
        self._parts.worker.wake()
        return job_of(row, (), self._enqueuer.reader)

    async def reschedule_all(
        self,
        delay: Seconds | None = None,
        *,
        run_at: datetime | None = None,
        dry_run: bool = False,
        on_slice: Callable[[int], None] | None = None,
        **where: Unpack[RescheduleFilter],
    ) -> RescheduleCounts:
        """Move all waiting jobs that match the filters to another time.

        Each is moved as ``reschedule`` does it. Jobs that are in ``job.sleep()`` or ``job.wait_for()`` are left out.

        ::

            await queue.reschedule_all(0, task=charge, state="retrying")  # the bank is back: do not wait

        Each transaction changes up to 500 of them, newest first, so that other writers do not wait long. Jobs that are
        enqueued during the call stay. If the call is broken off, the rest stays too; call it again to go on.

        Args:
            delay: Seconds, or a timedelta, from now; 0 means now.
            run_at: An aware datetime, instead of ``delay``; the past means now.
            dry_run: True to count only, without changing anything.
            on_slice: Called after each transaction with the number of jobs that it rescheduled.
            **where: Only jobs with this ``task``, ``queue``, ``state`` (``"scheduled"``, ``"queued"`` or
                ``"retrying"``), ``tag`` or ``key``, created at ``since`` or later and before ``until`` (aware
                datetimes); none for all waiting jobs.

        Raises:
            InvalidOptions: Neither or both of the two times are given, a datetime is naive, or a filter has an invalid
                value.
        """
        meant = reschedule_filter(where)
        due = due_us(delay, run_at, now_us(), "reschedule_all({})")
        return await slices.reschedule_all(self._parts, meant, due, on_slice, dry_run=dry_run)

    # -- signals -------------------------------------------------------------------------

    async def signal(self, id: str, name: str, value: object = None) -> bool:
        """Send a signal to a job, which gets it from ``await job.wait_for(name, ...)``.

        ::

            await queue.signal(job.id, "approved", Approval(by="ann", ok=True))

        A job that waits for it goes on at once, in any process with a free slot. A job that does not wait for it yet
        keeps it. When the call returns, the signal is on disk.

        Args:
            id: The id of the job.
            name: The name of the signal: letters, digits and ``_ . : @ + -``, at most 200.
            value: A pydantic model, or what JSON can express, up to 1 MiB. Default: None.

        Returns:
            False if the job has a signal of this name already, or its wait has timed out: nothing changed.

        Raises:
            JobNotFound: No job has this id; it may be past its retention.
            JobFinished: The job has ended or is a dead letter.
            InvalidOptions: The name or the value is invalid.
        """
        text = signal_text(value)
        workflows = self._parts.store.workflows
        is_kept = await workflows.signal(checked_id(id), checked_signal(name), text, now=now_us())
        if is_kept:
            self._parts.worker.wake()
            self._parts.events.watches.changed((id,))
        return is_kept

    # -- queues, dead letters, schedules, audit log, health ---------------------------------------------

    @property
    def queues(self) -> Queues:
        """Lists, pauses and resumes queues."""
        return self._parts.queues

    @property
    def batches(self) -> Batches:
        """Lists, retries and cancels batches."""
        return Batches(self._enqueuer)

    @property
    def dead_letters(self) -> DeadLetters:
        """Lists, replays and deletes dead letters."""
        return self._parts.dead_letters

    @property
    def schedules(self) -> Schedules:
        """Lists, stores, pauses and removes schedules."""
        return self._parts.schedules

    @property
    def limits(self) -> Limits:
        """Lists, sets and resets limits."""
        return self._parts.limits

    @property
    def audit(self) -> AuditLog:
        """Lists what operators changed over HTTP and on the command line."""
        return self._parts.audit

    async def health(self) -> Health:
        """Return the health of the runner and its store, with the problems found."""
        return await self._parts.worker.health()

    async def stats(self, **query: Unpack[StatsQuery]) -> Stats:
        """Return what ended in a window of time: attempts, dead letters, and percentiles of waits and runs.

        ::

            hour = await jobs.stats()                          # a bucket for each minute of the last hour
            day = await jobs.stats(per="hour", by="queue")     # a bucket for each queue, over the last day

        Workers write their statistics about once a second, or every few seconds with hundreds of tasks, so the last
        ones may be missing. A process that is killed loses those, but no jobs.

        Args:
            **query: The window (``since`` and ``until``, aware datetimes), ``per="minute"`` or ``"hour"``, the grouping
                ``by="time"``, ``"queue"`` or ``"task"``, and the filters ``queue`` and ``task``. Default: by time, the
                minutes of the last hour, or the hours of the last day.

        Raises:
            InvalidOptions: A datetime is naive, the window is empty or longer than its minutes or hours are kept (6
                hours, 30 days), or an option has an invalid value.
        """
        check_words("stats", query, StatsQuery.__annotations__)
        return await stats_of(self._parts.store, **query)


def enqueuer_of(queue: JobQueue) -> Enqueuer:
    """Return the internal part of a queue."""
    return queue._enqueuer  # noqa: SLF001 - the only access to it


def joined(queue: JobQueue, source: object, caller: Caller | None = None) -> JobQueue:
    """Return a queue that stores jobs in a session's transaction; see ``Enqueuer.joined``."""
    return JobQueue(enqueuer_of(queue).joined(source, caller))


def joined_by(queue: JobQueue, task: str, source: object) -> JobQueue:
    """Return a queue that stores jobs in the transaction of an attempt's session.

    Args:
        queue: A queue of the runner.
        task: The stored name of the attempt's task, for messages.
        source: The session.
    """
    return joined(queue, source, Caller(task))
