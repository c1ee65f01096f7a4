"""Specifies what every store does; each sentence has a test in ``tests/conformance``.

Rules for every method:

- The caller passes ``now`` (µs); a store never reads a clock.
- A method that writes is one transaction: it stores everything or nothing.
- Cancelling a caller while it waits does not undo its write.
- Errors are ``StoreError`` and its subclasses; a driver's own errors never reach the caller.
- A call that would wait for the transaction it is made in raises ``WouldDeadlock``.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol, runtime_checkable

from jobrunner.core.audit import Action, AuditRow
from jobrunner.core.model import WorkerRow
from jobrunner.core.schedule import ScheduleChange, ScheduleRow, TickRow
from jobrunner.core.wait_graph import Snapshot, WaitReport
from jobrunner.store.job_protocol import DeadLetterStore, JobStore
from jobrunner.store.limit_protocol import LimitStore
from jobrunner.store.round import Round, Written
from jobrunner.store.session import Session
from jobrunner.store.statistics import StatisticsStore
from jobrunner.store.workflow_protocol import WorkflowStore

WATCH_US: Final = 60_000_000
"""The time for which a watcher is read after its last call; a killed process is no watcher for longer."""


Standing = Literal["held", "doubtful", "lost"]
"""The proof that a store has of a joined worker's life.

It is ``held`` while its lock is. If the lock may be free it is ``doubtful``: it claims nothing, its attempts go on, and
their outcomes are kept until it is ``held`` again. If others may have taken its jobs over it is ``lost``: the store has
forgotten it, and nothing may be settled under its number.
"""


class Recovered(NamedTuple):
    """The result of one search for dead workers."""

    workers: Sequence[int]
    """Ids of the workers that were found dead."""
    requeued: int
    buried: Sequence[str]
    """Ids of jobs that became dead letters (``lost``)."""


class AuditPage(NamedTuple):
    """A page of the audit log; ``next`` and ``complete`` mean the same as in ``RowPage``."""

    rows: Sequence[AuditRow]
    next: int | None
    complete: bool = True


class ScheduleStore(Protocol):
    """The schedules of a store, and the record of their ticks."""

    async def get(self, id: str) -> ScheduleRow | None:
        """Return a schedule by its id."""
        ...

    async def list(
        self, *, task: str | None, after: str | None, limit: int
    ) -> Sequence[ScheduleRow]:
        """Return the schedules with an id above ``after``, ordered by id.

        ``task`` restricts the list to one task; None lists the schedules of all tasks.
        """
        ...

    async def declared(self) -> Sequence[ScheduleRow]:
        """Return every schedule that was declared in code, including disabled ones."""
        ...

    async def due(self, tasks: frozenset[str], *, now: int, limit: int) -> Sequence[ScheduleRow]:
        """Return the tasks' schedules whose next tick is due, the longest overdue first."""
        ...

    async def change(self, changes: Sequence[ScheduleChange]) -> bool:
        """Write, replace and remove schedules, all or none.

        A written schedule gets the edition of the seen one plus one. Removing a schedule removes its ticks; its jobs
        stay.

        Returns:
            False if one of the schedules has changed since it was read; then nothing was written.
        """
        ...

    async def ticks(self, id: str, *, before: int | None = None, limit: int) -> Sequence[TickRow]:
        """Return the recorded ticks of a schedule with an ``instant`` below ``before``, newest first.

        None begins at the newest tick.
        """
        ...

    async def prune_ticks(self, *, before: int, limit: int) -> int:
        """Delete one slice of the ticks handled before ``before``; return the number of deleted ticks.

        The last tick of each schedule stays, however old it is.
        """
        ...


class WorkerStart(NamedTuple):
    """The start of a worker that may have left since."""

    at: int
    revision: int | None


class WorkerStore(Protocol):
    """The workers on a store: each proves by a lock that it is alive."""

    async def join(
        self,
        worker: WorkerRow,
        on_notify: Callable[[], None],
        on_standing: Callable[[Standing], None] | None = None,
    ) -> None:
        """Register a worker: take its liveness lock, then store its row.

        A worker that was ``lost`` joins again under a new number; nobody joins under a number for a second time.

        Args:
            worker: the row; the store fills in ``doorbell``.
            on_notify: called on the loop when another process announces work. This is only a hint: calls may get lost.
            on_standing: called on the loop when the store can prove less or more than before: see ``Standing``. A store
                whose locks cannot be cut off from its workers never calls it.
        """
        ...

    def notify(self) -> None:
        """Notify the other workers that the last ``list`` returned; never waits or raises."""
        ...

    async def leave(self, worker: int, *, now: int) -> None:
        """Unregister a worker: queue the jobs it holds, remove its row and release its lock.

        The jobs' running attempts are given back: they do not count.
        """
        ...

    async def lags(self) -> Mapping[int, int]:
        """Return the delay (µs) of each worker's loop, as last recorded."""
        ...

    async def beat(self, worker: int, *, now: int, lag: int | None = None) -> bool:
        """Record that the worker's loop runs.

        Args:
            worker: the worker.
            now: the current time.
            lag: the longest delay (µs) of a timer on its loop since the beat before; None if there was no timer.

        Returns:
            True if the worker's row had been deleted and was stored again. A worker that was found dead, or that has
            lost its lock, gets no new row.
        """
        ...

    async def recover(self, *, now: int, thorough: bool) -> Recovered:
        """Queue the jobs of dead workers again, or bury them as ``lost``.

        A job is buried when its attempts are used up: its own ``max_attempts``, else its task's in the dead worker's
        ``tasks``, else ``LOST_LIMIT`` deaths. A job whose process died twice, or that has one attempt left, becomes a
        suspect. A live worker keeps its jobs, however slow it is.

        Args:
            now: the current time.
            thorough: also check workers whose lock the cheap search cannot find and, once a worker with tasks has
                joined, recover the jobs of workers that claimed them without joining or after they were found dead.
        """
        ...

    async def starts(self) -> Sequence[WorkerStart]:
        """Return the latest starts of workers, also of those that have left, oldest first.

        Of several in one minute only the last is kept, and of all the last 120.
        """
        ...

    async def busy(self) -> Mapping[int, int]:
        """Return the number of running jobs of each worker that has any."""
        ...

    async def watch(
        self, watcher: int, jobs: Collection[str], on_change: Callable[[], None], *, now: int
    ) -> None:
        """Ask other processes to notify this one when one of the jobs changes.

        Replaces the jobs of the watcher's previous call; without jobs nothing is watched any more. A watcher is read
        for a minute (``WATCH_US``) after its last call.

        Args:
            watcher: a number of this process alone.
            jobs: ids of jobs.
            on_change: called on the loop when one of the jobs may have changed. This is only a hint: calls may get
                lost.
            now: the current time.
        """
        ...

    async def watched(self, watcher: int, *, now: int) -> frozenset[str]:
        """Return the ids of the jobs that other watchers than this one watch."""
        ...

    def notify_watchers(self, jobs: Collection[str]) -> None:
        """Notify those that watch one of the jobs, as the last ``watched`` returned them; never waits or raises."""
        ...

    async def report_waits(
        self, worker: int, report: WaitReport, *, snapshot: Snapshot | None = None
    ) -> bool:
        """Store the report of the worker's attempts that wait for jobs.

        The report lies in the worker's row, where the other workers read it.

        Args:
            worker: the worker that reports.
            report: replaces the worker's previous report.
            snapshot: store the report only if this holds in the same transaction: the store has exactly these workers,
                they report these attempts, every attempt runs and was not asked to stop, and every job that they wait
                for is waiting.

        Returns:
            True if the report was stored; False also if the worker has no row.
        """
        ...

    async def list(self) -> Sequence[WorkerRow]:
        """Return the workers that have joined and have not left or been found dead."""
        ...

    def close(self) -> None:
        """Abandon the workers of this process that have not left.

        To every process, this one included, they are dead, as after a kill.
        """
        ...


class AuditStore(Protocol):
    """The audit log of a store: one entry for each act of an operator."""

    async def record(
        self,
        *,
        at: int,
        actor: str,
        action: Action,
        target: str | None,
        filter: str | None,
        reason: str | None,
        form: str | None = None,
    ) -> int | None:
        """Store an entry without a count, and return its number; later entries have larger numbers.

        With a ``form`` for which an act was recorded in the last hour, in whichever process, nothing is stored and the
        result is None.

        Args:
            at: the current time.
            actor: who does it.
            action: what is done.
            target: the id or the name of the one thing that it is done to; None with a filter.
            filter: JSON, which things it is done to; None with a target.
            reason: at most 500 characters; None if none is given.
            form: names a form of one page, so that a form that is sent twice acts once.
        """
        ...

    async def forget_form(self, form: str) -> None:
        """Let a form act again, whose act has failed."""
        ...

    async def finish(self, entry: int, count: int) -> None:
        """Store how many things the act was done to; does nothing if the entry has been pruned."""
        ...

    async def list(
        self, *, actor: str | None, action: Action | None, before: int | None, limit: int
    ) -> AuditPage:
        """Return entries with a number below ``before``, newest first.

        None begins at the newest entry. A page may end before it is ``complete``, as a page of jobs may.

        Args:
            actor: only entries of this actor; None for all.
            action: only entries of this action; None for all.
            before: the cursor of the previous page.
            limit: maximum number of entries on the page.
        """
        ...

    async def prune(self, *, before: int, limit: int) -> int:
        """Delete one slice of the entries recorded before ``before``, oldest first; return their number."""
        ...


class Store(Protocol):
    """A database of jobs, shared by any number of processes."""

    @property
    def jobs(self) -> JobStore: ...
    @property
    def dead_letters(self) -> DeadLetterStore: ...
    @property
    def schedules(self) -> ScheduleStore: ...
    @property
    def workers(self) -> WorkerStore: ...
    @property
    def audit(self) -> AuditStore: ...
    @property
    def statistics(self) -> StatisticsStore: ...
    @property
    def limits(self) -> LimitStore: ...
    @property
    def workflows(self) -> WorkflowStore: ...

    # -- open and close -----------------------------------------------------

    async def open(self) -> None:
        """Open the store and create or migrate its tables; an error closes everything again.

        Raises:
            AlreadyRunning: This process has the same store open.
            NotADatabase, SchemaTooNew, StoreUnsupported, StoreUnavailable: The store cannot be used; see ``errors``.
        """
        ...

    async def close(self) -> None:
        """Close every connection and release what ``join`` took; safe to call twice."""
        ...

    # -- the hot path ---------------------------------------------------------

    async def write(self, request: Round) -> Written:
        """Carry out a round in one durable transaction.

        Outcomes: an outcome is written only while its ``(seq, lease, worker)`` still runs; otherwise it is reported as
        stale. The writes of a success are stored with it or not at all; if one of them fails, nothing of that success
        is written.

        Enqueues: if an unfinished job of the task holds the key, the enqueue stores nothing and returns that job with
        ``created`` False. The jobs of a chain are stored together or not at all; an error concerns the whole chain. If
        a call (``Round.calls``) would bring the jobs that are due and wait in a queue above its ``max_waiting``,
        nothing of that call is stored and each of its jobs gets ``QueueFull``. The jobs of successes, schedules and
        replays are stored all the same.

        The claim takes only tasks in ``claim.tasks``, only from queues that are not paused, at most as many jobs as
        there are free slots, and no expired job. It counts the attempt and raises the lease. A claim with ``held``
        first returns, unchanged, the jobs that run under its worker and are not in ``held``: they were claimed in a
        round whose answer was lost.

        Limits: after the commit of a claim at most as many jobs run, over all workers, as the concurrency of each
        queue, task and lane says, unless they ran before it was lowered. A rate lets jobs start evenly spaced after a
        burst, with at most 50 ms' worth more, whatever the clock does. A job that may not start stays as it is: neither
        its attempt nor its lease changes. The lanes of one priority take turns, job by job. In an ordered lane a job
        starts only when every older one, retries, snoozes and suspects too, has ended; jobs that are blocked in a chain
        do not count. Every method that ends, moves or adds a job of a lane lets the lane's next jobs start in the same
        transaction. Numbers that were set or declared hold from the next claim on.

        Fires: a fire is carried out only if the schedule's next tick, revision and edition have not changed since they
        were read and the schedule is neither paused nor disabled; otherwise nothing of it is written. The step to the
        next tick, the record of each tick and its job are stored together or not at all, and no tick of a schedule is
        recorded twice. With ``overlap="skip"`` a tick makes no job while a job of the schedule is unfinished.

        Chains: each job but the first is ``blocked`` until the job before it has succeeded or is dead. The same
        transaction makes it scheduled if its ``run_at`` is in the future, else queued and due now, so that the round
        that ends a job claims the next one. A job that is cancelled or expires cancels all jobs behind it. If a job was
        not stored because its key was taken, the next job follows the last stored one. This holds for every method that
        ends a job.

        Batches: the jobs and edges of a ``BatchEnqueue`` are stored together or not at all. If an unfinished job holds
        the key of a member, the member is not stored, but the whole call is refused with ``KeyTaken`` if an edge names
        it or if it is a callback. Members are added only to a batch that has not ended and was not cancelled, else
        ``BatchEnded``; those that a success adds (``Enqueue.batch``) are stored all the same. A job with an edge is
        ``blocked``. An edge is met once the job that it needs has succeeded, or has ended in any way if that is its
        need; the transaction that meets the last edge of a job unblocks it as in a chain. If the success that a job
        needs cannot come, because the needed job is dead, cancelled or expired, the job is cancelled, and what needs
        its success too. A batch ends in the transaction after which none of its members is unfinished: ``cancelled`` if
        that was requested, ``failed`` if a member is dead, cancelled or expired, else ``succeeded``. Edges to a batch
        follow its end in the same transaction: a callback that needs success starts if it succeeded and is cancelled if
        it cannot succeed any longer, but stays blocked while a replay can still make it succeed; one that needs failure
        starts if it did not succeed and else is cancelled; one that needs the end starts. This holds for every method
        that ends a job. What one transaction would change beyond a few hundred jobs is left to the next rounds that
        promote due jobs, and the batch does not end before; ``more_due`` says that something is left.

        Statistics are added to their minutes, with the round or not at all.

        Raises:
            StoreBusy, StoreFull, StoreUnavailable: Nothing of the round was stored.
            StoreOutcomeUnknown: The round was stored whole or not at all; the store cannot find out which.
            StoreFailed: An operator must check the file; the worker stops.
        """
        ...

    # -- the application's own transactions ---------------------------------------

    def session(self, source: object) -> Session:
        """Return a ``Session`` that stores jobs through a session of the application.

        Raises:
            InvalidSession: This store does not support this type of session.
            StoreUnavailable: The store is not open.
        """
        ...

    def as_write(
        self, what: object, args: Sequence[object]
    ) -> tuple[Callable[..., object], Sequence[object]]:
        """Return what ``job.write()`` was given as the function and the arguments of a ``Write``.

        Args:
            what: a function that takes the store's connection first, or a statement of SQLAlchemy.
            args: its further arguments.

        Raises:
            InvalidWrite: The store cannot call it; the message says what to write.
        """
        ...

    def refuse_wait(self, what: object) -> None:
        """Raise if the calling code holds a transaction that blocks other writers.

        The store refuses only the transactions that it can detect.

        Args:
            what: name of the call that would wait for a write, or its function; used in the error.

        Raises:
            WouldDeadlock: The call would wait for the caller's own transaction.
        """
        ...

    def detached(self) -> AbstractContextManager[None]:
        """Detach the tasks started inside the block from the caller's transactions.

        Such a task may wait for the end of these transactions.
        """
        ...

    def write_lock(self, holder: str) -> AbstractAsyncContextManager[None]:
        """Hold the write lock inside the block, for a transaction of the application.

        The transaction runs on a connection of the application.

        Args:
            holder: name of the writer, for the log and for the errors of writers that wait too long.

        Raises:
            WouldDeadlock: The caller's own transaction holds the lock.
            StoreBusy: Other writers hold the lock for too long.
        """
        ...

    def blocking_write_lock(self, holder: str) -> AbstractContextManager[None]:
        """Hold the write lock as ``write_lock`` does, but block the thread while waiting."""
        ...

    async def change_counter(self) -> int:
        """Return a number that differs after every commit, by whichever process.

        While it stays the same, the store holds the same rows. Numbers have no order, and are compared only while the
        store stays open.
        """
        ...

    async def upkeep(self) -> None:
        """Check the store's files and locks and maintain its log; cheap if nothing has changed."""
        ...


@runtime_checkable
class FileStore(Store, Protocol):
    """A store in one file, which the commands ``backup`` and ``vacuum`` support; other stores are none."""

    path: Path

    async def backup(self, destination: Path, on_progress: Callable[[int, int], None]) -> None:
        """Write a complete, consistent copy; other writers do not wait.

        Args:
            destination: the file to write; an existing one is replaced.
            on_progress: called with the number of copied pages and the total number of pages.
        """
        ...

    async def vacuum(self) -> None:
        """Return the space of deleted rows to the file system; other writers wait meanwhile."""
        ...
