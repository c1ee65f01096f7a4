"""The contract between the queue and a database; each sentence below has a test in ``tests/conformance``.

Rules for every method:

- ``now`` (µs) is handed in; a store never asks a clock.
- A method that writes is one transaction: all of it is there afterwards, or nothing.
- A caller that is cancelled while it waits has not undone the write.
- Errors are ``StoreError`` and its children; nothing of a driver's own passes through.
- What would wait for the transaction that it is called in raises ``WouldDeadlock``.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from jobrunner.core.model import (
    AttemptRow,
    DeadReason,
    Enqueue,
    Enqueued,
    Filter,
    JobRow,
    QueueStats,
    ScheduleChange,
    ScheduleRow,
    TickRow,
    WorkerRow,
)
from jobrunner.core.wait_graph import Snapshot, WaitReport
from jobrunner.store.round import Round, Written
from jobrunner.store.session import Session


class Replayed(NamedTuple):
    """The result of one slice of a replay by filter."""

    replayed: int
    conflicts: int
    """Dead letters left where they are, because their key is taken."""
    cursor: int | None
    """Hand it to the next slice; None when there is no more."""


class Slice(NamedTuple):
    """The result of one slice of a deletion by filter."""

    deleted: int
    cursor: int | None
    """Hand it to the next slice; None when there is no more."""


class Recovered(NamedTuple):
    """The result of one search for dead workers."""

    workers: Sequence[int]
    """Workers that were found dead."""
    requeued: int
    buried: Sequence[str]
    """Ids of jobs that became dead letters (``lost``)."""


class RowPage(NamedTuple):
    """Rows, newest first, and the cursor of the page after (None at the end)."""

    rows: Sequence[JobRow]
    next: int | None
    complete: bool = True
    """False if the page ends before its limit, though there may be more: the next one goes on from there."""


class JobStore(Protocol):
    """The jobs of a store, and the queues that they wait in."""

    async def get(self, id: str) -> JobRow | None:
        """Return a job or dead letter by its id."""
        ...

    async def attempts(self, seq: int) -> Sequence[AttemptRow]:
        """Return a job's attempts, oldest first, the running one last with no end."""
        ...

    async def cancel(self, id: str, *, now: int) -> JobRow | None:
        """Cancel a waiting job at once, ask a running one to stop; return the row as it was before, None if unknown.

        A blocked job is one that waits: those behind it are cancelled with it, those before it go on. A finished or
        dead job is left alone.
        """
        ...

    async def cancel_requests(self, worker: int) -> Sequence[tuple[int, int]]:
        """Return ``(seq, lease)`` of the worker's running jobs that are asked to stop."""
        ...

    async def list(self, where: Filter, *, before: int | None, limit: int) -> RowPage:
        """Return jobs (not dead letters), newest first by ``seq``, older than ``before``.

        Their arguments and results are left out. Where few rows fit, a page ends after about 100 ms with those found,
        not ``complete``; whoever follows ``next`` reaches the end. No list keeps another method waiting.
        """
        ...

    async def queues(self) -> Sequence[QueueStats]:
        """Return every queue that holds unfinished jobs or is paused.

        Counting stops at 10,000 (of scheduled and blocked jobs over all queues), and earlier if it takes too long
        for a list; then the queue is not ``complete``. One that holds only scheduled or blocked jobs is missing if
        counting stopped before they were reached.
        """
        ...

    async def waiting_tasks(self) -> Sequence[tuple[str, str, int]]:
        """Return ``(queue, task, due_since)`` for each pair with queued jobs."""
        ...

    async def pause(self, queue: str, *, now: int) -> None:
        """Let no worker claim from the queue until ``resume``; running jobs go on."""
        ...

    async def resume(self, queue: str) -> None:
        """Undo ``pause``."""
        ...

    async def prune(
        self,
        *,
        finished_before: int,
        by_task: Mapping[str, int],
        died_before: int,
        keep_finished: int,
        limit: int,
    ) -> int:
        """Delete one slice of finished jobs and dead letters that are past their time; return how many.

        A job that waits, blocked ones too, is never deleted, however old.

        Args:
            finished_before: succeeded, cancelled and expired jobs older than this go.
            by_task: the same, for tasks with a retention of their own.
            died_before: dead letters older than this go.
            keep_finished: of the finished, the newest that many stay at most.
            limit: rows in this slice, at most.
        """
        ...


class DeadLetterStore(Protocol):
    """The dead letters of a store."""

    async def list(self, where: Filter, *, before: int | None, limit: int) -> RowPage:
        """Return dead letters not replayed with edited arguments, last died first; the cursor is opaque.

        A page ends, not ``complete``, as one of jobs does; also when its rows hold about four million letters.
        """
        ...

    async def count(self, where: Filter, *, cap: int) -> int:
        """Count the dead letters that ``where`` means, at most ``cap``; keeps no other method waiting."""
        ...

    async def replay(self, id: str, *, now: int) -> Enqueued:
        """Put a dead letter back under its own id, with fresh attempts, due now; its history stays.

        One of a chain keeps its place there, but those behind it were let go when it died, and do not wait again.

        Raises:
            JobNotFound: no dead letter has this id (it may have been replayed a moment ago).
            KeyTaken: an unfinished job of the task holds its key.
            AlreadyReplayed: it was replayed with edited arguments.
        """
        ...

    async def replay_edited(self, id: str, job: Enqueue) -> Enqueued:
        """Store ``job`` and mark the dead letter as replayed by it, in one transaction; raises as ``replay``."""
        ...

    async def replay_all(
        self,
        where: Filter,
        *,
        before: int | None,
        now: int,
        limit: int,
        tasks: Collection[str] | None = None,
    ) -> Replayed:
        """Replay one slice of the dead letters that ``where`` means, last died first.

        Args:
            before: the cursor of the slice before; None begins.
            now: the present; the jobs are due at once.
            limit: dead letters in this slice, at most.
            tasks: those of other tasks are left where they are; None takes all.
        """
        ...

    async def delete(self, id: str) -> bool:
        """Delete a dead letter and its history; return whether it was there."""
        ...

    async def delete_all(self, where: Filter, *, before: int | None, limit: int) -> Slice:
        """Delete one slice of the dead letters that ``where`` means, last died first, with their histories."""
        ...

    async def bury_waiting(
        self,
        queue: str,
        task: str,
        *,
        due_before: int,
        reason: DeadReason,
        error: str,
        now: int,
        limit: int,
    ) -> Sequence[str]:
        """Make dead letters of queued jobs of the task that have been due since before ``due_before``.

        None if a worker that has joined knows the task: it may have come since the caller looked.
        """
        ...


class ScheduleStore(Protocol):
    """The schedules of a store, and the record of their ticks."""

    async def get(self, id: str) -> ScheduleRow | None:
        """Return a schedule by its id."""
        ...

    async def list(
        self, *, task: str | None, after: str | None, limit: int
    ) -> Sequence[ScheduleRow]:
        """Return schedules by id, of one task or of all, those whose id comes after ``after``."""
        ...

    async def declared(self) -> Sequence[ScheduleRow]:
        """Return every schedule that was declared in code, the disabled ones too."""
        ...

    async def due(self, tasks: frozenset[str], *, now: int, limit: int) -> Sequence[ScheduleRow]:
        """Return schedules of the tasks whose next tick is due, the longest overdue first."""
        ...

    async def change(self, changes: Sequence[ScheduleChange]) -> bool:
        """Write, replace and remove schedules, all or none; return False if one is not as it was seen.

        A schedule that was written has the edition after the seen one's. One that is removed takes its ticks along;
        its jobs stay.
        """
        ...

    async def ticks(self, id: str, *, limit: int) -> Sequence[TickRow]:
        """Return the ticks of a schedule that are on record, newest first."""
        ...

    async def prune_ticks(self, *, before: int, limit: int) -> int:
        """Delete one slice of the ticks dealt with before ``before``; return how many.

        The last tick of each schedule stays, however old.
        """
        ...


class WorkerStore(Protocol):
    """The workers on a store: each proves by a lock that it is alive."""

    async def join(self, worker: WorkerRow, on_notify: Callable[[], None]) -> None:
        """Announce a worker: take its liveness lock, then store its row.

        Args:
            worker: its row; the store fills in ``doorbell``.
            on_notify: called on the loop when another process says that there is work. A hint only: some get lost.
        """
        ...

    def notify(self) -> None:
        """Notify the other workers that the last ``list`` returned; never waits, never fails."""
        ...

    async def leave(self, worker: int, *, now: int) -> None:
        """Queue what the worker still holds (attempts given back), remove its row, release its lock."""
        ...

    async def beat(self, worker: int, *, now: int) -> bool:
        """Note that the worker's loop turns.

        Returns:
            Whether its row had been deleted beneath it, and is stored anew. A worker that has been found dead, or whose
            lock is lost, stays without a row.
        """
        ...

    async def recover(self, *, now: int, thorough: bool) -> Recovered:
        """Take the jobs of dead workers away from them: queued again at once, or dead letters (``lost``).

        A job is lost for good when its attempts are used up (its own ``max_attempts``, else those of its task in the
        dead worker's ``tasks``, else ``LOST_LIMIT`` deaths). One whose process died twice, or that has one attempt
        left, becomes a suspect. A live worker's jobs are never touched, however slow it is.

        Args:
            now: the present.
            thorough: also try workers whose lock cannot be found by the cheap search, and, once a worker with tasks
                has joined, take the jobs of those that claimed without having joined or after they were found dead.
        """
        ...

    async def report_waits(
        self, worker: int, report: WaitReport, *, snapshot: Snapshot | None = None
    ) -> bool:
        """Store in the worker's row which of its attempts wait for jobs, for the other workers to see.

        Args:
            worker: whose row.
            report: takes the place of the one before.
            snapshot: store it only if this holds in the same transaction: the workers are these, they report these very
                attempts, each of which runs and nobody has asked to stop it, and all jobs that they wait for wait.

        Returns:
            Whether it was stored; not if the worker has no row.
        """
        ...

    async def list(self) -> Sequence[WorkerRow]:
        """Return the workers that have joined and neither left nor been found dead."""
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

    # -- life ---------------------------------------------------------------

    async def open(self) -> None:
        """Open the store, making or migrating its tables; on any error everything is closed again.

        Raises:
            AlreadyRunning: this process has the same store open.
            NotADatabase, SchemaTooNew, StoreUnsupported, StoreUnavailable: see ``errors``.
        """
        ...

    async def close(self) -> None:
        """Close every connection and give up what ``join`` took; safe to call twice."""
        ...

    # -- the hot path ---------------------------------------------------------

    async def write(self, request: Round) -> Written:
        """Carry out a round in one durable transaction.

        An outcome is written only while its ``(seq, lease, worker)`` still runs; otherwise it is reported as stale.
        The writes of a success are done with it or not at all; of one whose write fails nothing is written.
        A keyed enqueue whose key an unfinished job of the task holds stores nothing and returns that job with
        ``created`` False. The jobs of a chain are stored together or not at all; an error concerns the whole chain. A
        claim takes only tasks in ``claim.tasks``, only from queues that are not paused, never
        more than the free slots, and nothing that has expired; it counts the attempt and raises the lease. Before that,
        a claim with ``held`` returns, as they are, the jobs that run under its worker and are not among these: they
        were claimed in a round whose answer was lost.

        A fire is carried out only while the schedule's next tick, revision and edition are as they were seen and it
        is neither paused nor disabled; otherwise nothing of it is written. The step to the next tick, the record of
        each tick and its job are there together or not at all, and no tick of a schedule is ever recorded twice.
        With ``overlap="skip"`` a tick makes no job while a job of the schedule is unfinished.

        Of a chain, each job but the first is ``blocked`` until the one before it has succeeded or is dead; the same
        transaction makes it scheduled if its ``run_at`` is still ahead, else queued and due now, so that the round that
        ends a job claims the next one. A job that is cancelled or expires takes along all that wait behind it. In place
        of one whose key is taken, the one after it follows the last one that was stored. This holds for every method
        that ends a job.

        Raises:
            StoreBusy, StoreFull, StoreUnavailable: nothing of the round was stored.
            StoreOutcomeUnknown: all of it may have been.
            StoreFailed: stop.
        """
        ...

    # -- the application's own transactions ---------------------------------------

    def session(self, source: object) -> Session:
        """Return a session of the application's as one that jobs can be stored through.

        Raises:
            InvalidSession: it is of no kind that this store knows.
            StoreUnavailable: the store is not open.
        """
        ...

    def refuse_wait(self, what: object) -> None:
        """Raise if the calling code holds a transaction that keeps others from writing, as far as the store can know.

        Args:
            what: what is about to wait for a write, or the function that would do it; for the error.

        Raises:
            WouldDeadlock: it would wait for itself.
        """
        ...

    def detached(self) -> AbstractContextManager[None]:
        """Start tasks inside the block that belong to no transaction of the calling code, and may wait for its end."""
        ...

    def write_lock(self, holder: str) -> AbstractAsyncContextManager[None]:
        """Hold the write lock inside the block, for a transaction on a connection of the application's.

        Args:
            holder: who writes, for the log and the errors of those who wait too long.

        Raises:
            WouldDeadlock: the caller's own transaction has the lock.
            StoreBusy: others write for too long.
        """
        ...

    def blocking_write_lock(self, holder: str) -> AbstractContextManager[None]:
        """Do as ``write_lock``, and block the thread meanwhile."""
        ...

    async def upkeep(self) -> None:
        """Do the store's own chores (the file's identity, the log); cheap when there are none."""
        ...


class FileStore(Store, Protocol):
    """A store that is one file: ``backup`` and ``vacuum`` of the command line work on it."""

    path: Path

    async def backup(self, destination: Path, on_progress: Callable[[int, int], None]) -> None:
        """Write a whole and consistent copy, while everybody goes on writing.

        Args:
            destination: a file, which is replaced.
            on_progress: called with the pages done and the pages in all.
        """
        ...

    async def vacuum(self) -> None:
        """Give back the room that deleted rows have left; other writers wait meanwhile."""
        ...
