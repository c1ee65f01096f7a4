"""Specifies what every store does with jobs and dead letters.

The rules of ``store/protocol.py`` hold for each method, and each sentence has a test in ``tests/conformance``.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from jobrunner.core.counts import ReplayCounts
from jobrunner.core.model import (
    AttemptRow,
    DeadReason,
    Enqueue,
    Enqueued,
    Filter,
    JobRow,
    QueueStats,
)
from jobrunner.store.groups import Groups


class CancelledSlice(NamedTuple):
    """The result of one slice of a cancel by filter."""

    cancelled: Sequence[str]
    """Ids of the jobs that were cancelled at once."""
    requested: Sequence[int]
    """``seq`` of the running jobs that were asked to stop."""
    cursor: int | None
    """The cursor for the next slice; None after the last one."""


class Replayed(NamedTuple):
    """The result of one slice of a replay by filter."""

    replayed: int
    conflicts: int
    """Dead letters that were not replayed because their key is taken."""
    cursor: int | None
    """The cursor for the next slice; None after the last one."""


class Slice(NamedTuple):
    """The result of one slice of a deletion by filter."""

    deleted: int
    cursor: int | None
    """The cursor for the next slice; None after the last one."""


class LetterArguments(NamedTuple):
    """The arguments of some dead letters; ``next`` is the cursor of those that follow, None at the end."""

    rows: Sequence[tuple[int, str, str, str | None]]
    """Number, task, stored arguments and ``handed`` of each dead letter."""
    next: int | None


class RowPage(NamedTuple):
    """A page of rows, newest first; ``next`` is the cursor of the next page, None at the end."""

    rows: Sequence[JobRow]
    next: int | None
    complete: bool = True
    """False if the page ended before its limit although more rows may follow on the next page."""


class Count(NamedTuple):
    """The number of rows that match a filter."""

    number: int
    complete: bool = True
    """False if there may be more: the cap was reached, or the time was up."""


class RescheduledSlice(NamedTuple):
    """The result of one slice of a reschedule by filter."""

    rescheduled: int
    expiring: int
    """Jobs that did not change, because they would expire before the new time."""
    cursor: int | None
    """The start of the next slice; None at the end."""


class CancelPlan(NamedTuple):
    """The numbers of jobs that a cancel by filter would change; ``complete`` means the same as in ``Count``."""

    cancelled: int
    requested: int
    complete: bool = True


class JobStore(Protocol):
    """The jobs of a store and their queues."""

    async def get(self, id: str) -> JobRow | None:
        """Return a job or dead letter by its id."""
        ...

    async def attempts(self, seq: int) -> Sequence[AttemptRow]:
        """Return a job's attempts, oldest first; a running one is last and has no end time."""
        ...

    async def cancel(self, id: str, *, now: int) -> JobRow | None:
        """Cancel a waiting job at once; ask a running one to stop.

        A blocked job counts as waiting: the jobs behind it in its chain are cancelled with it, and the jobs before it
        continue. A finished or dead job does not change.

        Returns:
            The job as it was before; None if no job has this id.
        """
        ...

    async def cancel_all(
        self, where: Filter, *, before: int | None, now: int, limit: int
    ) -> CancelledSlice:
        """Cancel one slice of the unfinished jobs that match ``where``, newest first.

        Each job is cancelled as ``cancel`` does: the jobs behind a waiting one in its chain are cancelled with it and
        belong to the slice, even if they do not match. A job that is stored after the first slice is in no slice. If
        few jobs match, a slice may be empty although more may follow. The search delays no other writer.

        Args:
            where: the filter; ``since`` and ``until`` mean the time of creation.
            before: the cursor that the previous slice returned; None for the first slice.
            now: the current time.
            limit: maximum number of matching jobs in this slice.
        """
        ...

    async def plan_cancel_all(
        self, where: Filter, *, cap: int | None = None, seconds: float | None = None
    ) -> CancelPlan:
        """Count what ``cancel_all`` would do in all of its slices, without changing anything.

        Args:
            where: the filter.
            cap: end once so many jobs are counted; None counts all.
            seconds: end after about this time; None sets no limit.
        """
        ...

    async def reschedule(self, id: str, *, run_at: int, now: int) -> JobRow:
        """Make a scheduled or queued job due at ``run_at``, unless it is parked.

        A time in the past means now. A job that becomes due keeps the place of its old time if that is earlier, and
        otherwise does not overtake jobs that are due already.

        Returns:
            The job as it is now.

        Raises:
            JobNotFound: No job has this id.
            JobNotWaiting: The job is running, blocked, parked, finished or dead; it did not change.
            InvalidOptions: The job would expire before ``run_at``; it did not change.
        """
        ...

    async def reschedule_all(
        self,
        where: Filter,
        *,
        before: int | None,
        run_at: int,
        now: int,
        limit: int,
        dry_run: bool = False,
    ) -> RescheduledSlice:
        """Reschedule one slice of the scheduled and queued jobs that match ``where``, newest first.

        Each job is rescheduled as ``reschedule`` does. Those that would expire are counted and do not change, and
        parked jobs are left out. A job
        that is stored after the first slice is in no slice. If few jobs match, a slice may be empty although more may
        follow. The search delays no other writer.

        Args:
            where: the filter; ``since`` and ``until`` mean the time of creation.
            before: the cursor that the previous slice returned; None for the first slice.
            run_at: the new time; in the past it means now.
            now: the current time.
            limit: maximum number of unfinished jobs that this slice reads.
            dry_run: only count, without changing anything or delaying another writer.
        """
        ...

    async def cancel_requests(self, worker: int) -> Sequence[tuple[int, int]]:
        """Return ``(seq, lease)`` of the worker's running jobs that were asked to stop."""
        ...

    async def list(self, where: Filter, *, before: int | None, limit: int) -> RowPage:
        """Return jobs with a ``seq`` below ``before``, newest first; dead letters are excluded.

        None begins at the newest job. Arguments and results are left out. If few rows match, a page ends after about
        100 ms with the rows found so far and is not ``complete``; following ``next`` reaches the end. A list never
        delays another method.
        """
        ...

    async def count(self, where: Filter, *, cap: int, seconds: float | None = None) -> Count:
        """Count the jobs that ``list`` returns on all of its pages, up to ``cap``; never delays another method.

        Args:
            where: the filter.
            cap: the largest number that is counted.
            seconds: end after about this time; None sets no limit.
        """
        ...

    async def chain(self, job: JobRow) -> Sequence[JobRow]:
        """Return the jobs stored in the chain of a job, in their order.

        A job without a chain has none, not even itself. Dead letters are included, arguments and results are left out.
        In a long chain, the 100 jobs on each side of this one are returned.
        """
        ...

    async def counts(self, *, cap: int) -> Mapping[str, int]:
        """Count the jobs in each state but ``dead``, each up to ``cap``.

        ``retrying`` counts the jobs that wait for another attempt. Such a job is scheduled too, and counted in both.
        """
        ...

    async def queues(self) -> Sequence[QueueStats]:
        """Return every queue that has unfinished jobs or is paused.

        Each count stops at 10,000 (for scheduled and blocked jobs: 10,000 over all queues), or earlier if counting
        takes too long for a list; then the queue is not ``complete``. A queue that has only scheduled or blocked jobs
        is missing if counting stopped before reaching them.
        """
        ...

    async def waiting_tasks(self) -> Sequence[tuple[str, str, int]]:
        """Return ``(queue, task, due_since)`` for each pair with queued jobs."""
        ...

    async def pause(self, queue: str, *, now: int) -> None:
        """Stop all claims from the queue until ``resume``; running jobs continue."""
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
        """Delete one slice of the finished jobs and dead letters past their retention.

        A waiting job, also a blocked one, is never deleted, however old it is.

        A batch and its members, dead ones too, are deleted together: once the longest retention of their tasks has
        passed since the end of the batch, its dead letters are old enough, and no callback, nor the job that made the
        batch, is unfinished or dead. A callback that waits for the success of a failed batch is deleted with it.

        Args:
            finished_before: succeeded, cancelled and expired jobs that finished before this are deleted.
            by_task: overrides ``finished_before`` for the tasks with their own retention.
            died_before: dead letters that died before this are deleted.
            keep_finished: finished jobs beyond the newest this many are deleted too.
            limit: maximum number of rows in this slice.

        Returns:
            The number of deleted jobs and dead letters.
        """
        ...


class DeadLetterStore(Protocol):
    """The dead letters of a store."""

    async def list(self, where: Filter, *, before: int | None, limit: int) -> RowPage:
        """Return dead letters, most recent death first.

        Dead letters that were replayed with edited arguments are excluded. The cursor is opaque. A page may end before
        it is ``complete``, as a page of jobs may, and also when its rows hold about four million characters.
        """
        ...

    async def count(self, where: Filter, *, cap: int, seconds: float | None = None) -> Count:
        """Count the dead letters that ``list`` returns, as ``JobStore.count`` does."""
        ...

    async def last_workers(self, letters: Sequence[int]) -> Mapping[int, int]:
        """Count dead letters by the worker of their last attempt.

        They are given by their ``seq``. One that never ran counts for no worker. The most frequent worker is first.
        """
        ...

    async def groups(self, *, now: int, limit: int) -> Groups:
        """Return the groups of dead letters with one fingerprint, most recent death first.

        Replayed dead letters are excluded. Jobs that wait for a retry are counted in the group of their last failure;
        groups that only have such jobs follow, most jobs first. Ends after about 100 ms, as a list does, and is not
        ``complete`` then, nor if there are more than ``limit`` groups or ``RETRYING_CAP`` such jobs.
        """
        ...

    async def fill_groups(self, *, limit: int) -> int:
        """Fill in the fingerprints of one slice of dead letters of older versions.

        Returns:
            The number of dead letters in the slice; 0 if none is left.
        """
        ...

    async def replay(self, id: str, *, now: int, forget: Sequence[str] = ()) -> Enqueued:
        """Put a dead letter back under its own id, due now, with fresh attempts.

        Its history stays. A job of a chain keeps its place in the chain, but the jobs behind it were unblocked when it
        died and do not wait for it again. It keeps its memos, except those of the names in ``forget``, whatever their
        kind; the deadline of a wait goes with its signal.

        Raises:
            JobNotFound: No dead letter has this id (it may have been replayed a moment ago).
            KeyTaken: An unfinished job of the task holds its key.
            AlreadyReplayed: The dead letter was replayed with edited arguments.
            InvalidOptions: The job has no memo of a name in ``forget``; nothing changed.
        """
        ...

    async def replay_edited(self, id: str, job: Enqueue) -> Enqueued:
        """Store ``job`` and mark the dead letter as replayed by it.

        Both happen in one transaction. Raises the same errors as ``replay``.
        """
        ...

    async def replay_all(
        self,
        where: Filter,
        *,
        before: int | None,
        now: int,
        limit: int,
        tasks: Collection[str] | None = None,
        run_at: int | None = None,
        spacing: int = 0,
        without: Collection[int] = (),
        down_to: int | None = None,
    ) -> Replayed:
        """Replay one slice of the dead letters that match ``where``, most recent death first.

        A job that dies after the first slice is in no slice, even if one of the slices had replayed it.

        Args:
            where: the filter.
            before: the cursor that the previous slice returned; None for the first slice.
            now: the current time.
            limit: maximum number of dead letters in this slice.
            tasks: replay dead letters of these tasks only; None for all tasks.
            run_at: the due time of the first job that this slice replays; None for now. A job that is due later than
                now is scheduled.
            spacing: the time from one replayed job to the next, in the order of the slice. A dead letter that is not
                replayed takes no time.
            without: numbers of dead letters that stay.
            down_to: end with the rows before this cursor of ``arguments``; None ends with the last row.
        """
        ...

    async def arguments(
        self,
        where: Filter,
        *,
        before: int | None,
        limit: int,
        tasks: Collection[str] | None = None,
    ) -> LetterArguments:
        """Return the arguments of the dead letters that ``replay_all`` would replay, in its order.

        Its cursors are those of ``replay_all``. It may end before ``limit``, as a list of dead letters may.
        """
        ...

    async def plan_replay_all(
        self,
        where: Filter,
        *,
        tasks: Collection[str] | None = None,
        without: Collection[int] = (),
    ) -> ReplayCounts:
        """Count what ``replay_all`` would do in all of its slices, without changing anything."""
        ...

    async def delete(self, id: str) -> bool:
        """Delete a dead letter and its history; return False if no dead letter has this id."""
        ...

    async def delete_all(self, where: Filter, *, before: int | None, limit: int) -> Slice:
        """Delete one slice of the dead letters that match ``where``, most recent death first.

        Their histories are deleted with them.
        """
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
        """Bury the task's queued jobs that became due before ``due_before``; return their ids.

        Buries none if a worker that has joined knows the task: it may have joined after the caller checked.
        """
        ...
