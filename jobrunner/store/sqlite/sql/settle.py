"""Writes outcomes behind the fence, with their writes, their jobs and their chains.

Runs inside an open write transaction: in bulk first, which nearly always works, else row by row.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from jobrunner.core.errors import InvalidWrite
from jobrunner.core.model import (
    RESULT_PENDING,
    Cancelled,
    Dead,
    Outcome,
    Parked,
    Released,
    RetryAt,
    Returned,
    Snoozed,
    Succeeded,
)
from jobrunner.store import rules
from jobrunner.store.counters import CANCELLED, PARKED, RETRIED, CounterKey, attempts, dead
from jobrunner.store.effects import Effects
from jobrunner.store.sqlite.driver_errors import primary_code
from jobrunner.store.sqlite.sql import batches, counters, ends, lanes, steps, task_writes
from jobrunner.store.sqlite.sql.ends import End
from jobrunner.store.sqlite.sql.groups import burial
from jobrunner.store.sqlite.sql.insert import insert_all
from jobrunner.store.sqlite.sql.statements import (
    BURY_RUNNING,
    CANCEL,
    CANCEL_REQUESTS,
    KEEP_ATTEMPT,
    KEEP_RESULT,
    KEEP_SUCCESS,
    RELEASE,
    REMOVE,
    ROLLBACK_TO,
    RUN_AGAIN,
    SAVEPOINT,
    SUCCEED,
    SUCCEED_WITH_RESULT,
)


class FallBackToRows(Exception):
    """The fence refused an outcome in bulk; the row-by-row pass finds out which."""


class WriteFailed(Exception):
    """A write of a success failed and no savepoint can undo it.

    The whole round must be rolled back.
    """

    def __init__(self, success: Succeeded, error: BaseException) -> None:
        self.success = success
        self.error = error


class Settling:
    """Writes the outcomes of one transaction."""

    def __init__(
        self,
        conn: sqlite3.Connection,
        now: int,
        effects: Effects,
        *,
        row_by_row: bool,
        refused: Sequence[tuple[Succeeded, BaseException]] = (),
    ) -> None:
        """``refused`` has the successes that were left out because one of their writes failed."""
        self.conn = conn
        self.now = now
        self.effects = effects
        self.row_by_row = row_by_row
        self.stale: list[Outcome] = []
        self.refused = list(refused)

    def settle(self, outcomes: Sequence[Outcome]) -> frozenset[int]:
        """Write outcomes; return ``seq`` of the jobs cancelled instead of running again."""
        cancelled: frozenset[int] = frozenset()
        if set(map(type, outcomes)) != {Succeeded}:
            outcomes, cancelled = self.obey_cancels(outcomes)
            self.record_due(outcomes)
        if not self.row_by_row:
            self.settle_in_bulk(outcomes)
        else:
            for outcome in outcomes:
                self.settle_one(outcome)
        return cancelled

    def settle_in_bulk(self, outcomes: Sequence[Outcome]) -> None:
        """Write all outcomes of one kind in one statement.

        Raises:
            FallBackToRows: The fence refused an outcome.
            WriteFailed: A write of a success failed.
        """
        by_kind: dict[type, list[Any]] = {}
        for outcome in outcomes:
            by_kind.setdefault(type(outcome), []).append(outcome)
        parked = by_kind.pop(Parked, ())
        if not all(self.park(one) for one in parked):
            raise FallBackToRows
        for kind, group in by_kind.items():
            if _SETTLE[kind](self.conn, group) != len(group):
                raise FallBackToRows
        ended = [one for one in outcomes if type(one) is not Returned and type(one) is not Parked]
        self.keep_attempts(ended)
        self.leave_lanes(ended)
        for success in by_kind.get(Succeeded, ()):
            if not _has_writes_or_jobs(success):
                continue
            # No savepoints here: they would cost more than the functions.
            try:
                self.write_with_success(success)
            except BaseException as error:
                self.raise_if_disk_error(error)
                raise WriteFailed(success, error) from error
        self.follow(ended)

    def settle_one(self, outcome: Outcome) -> None:
        """Write one outcome, or add it to ``stale`` if the fence refuses it."""
        if type(outcome) is Succeeded and _has_writes_or_jobs(outcome):
            self.settle_with_writes(outcome)
        elif type(outcome) is Parked:
            if not self.park(outcome):
                self.stale.append(outcome)
        elif _SETTLE[type(outcome)](self.conn, [outcome]) != 1:
            self.stale.append(outcome)
        elif type(outcome) is not Returned:
            self.keep_attempts([outcome])
            self.leave_lanes([outcome])
            self.follow([outcome])

    def park(self, parked: Parked) -> bool:
        """Park a job; return False if the fence refuses it, and then write nothing."""
        placed = steps.park(self.conn, parked, self.now, self.effects)
        if placed is None:
            return False
        self.effects.add(placed.state, placed.run_at, None)
        counters.count(self.conn, PARKED, [(parked.job.queue, parked.job.task)])
        lane = parked.job.lane
        if lane is not None:
            self.effects.added += lanes.left(self.conn, [lane])
            lanes.arrived(self.conn, [parked.job.seq])
        return True

    def settle_with_writes(self, success: Succeeded) -> None:
        """Settle a job with the writes and jobs of its success, all or nothing."""
        conn = self.conn
        conn.execute(SAVEPOINT)
        if _succeed(conn, [success]) != 1:
            self.stale.append(success)
            conn.execute(RELEASE)
            return
        self.keep_attempts([success])
        try:
            self.write_with_success(success)
            conn.execute(RELEASE)
        except BaseException as error:
            self.raise_if_disk_error(error)
            if not conn.in_transaction:
                raise WriteFailed(success, error) from error
            conn.execute(ROLLBACK_TO)
            conn.execute(RELEASE)
            self.refused.append((success, error))
            return
        self.leave_lanes([success])
        self.follow([success])

    def write_with_success(self, success: Succeeded) -> None:
        """Run the writes and store the jobs of a success."""
        conn = self.conn
        if success.writes:
            task_writes.run(conn, success.writes)
            if not conn.in_transaction:
                raise InvalidWrite(
                    "a function of job.write() has rolled back the transaction that settles the job, and went on"
                )
        self.effects.add_stored(success.enqueues, insert_all(conn, success.enqueues, self.now))
        batches.added(conn, success.enqueues, self.effects)

    def raise_if_disk_error(self, error: BaseException) -> None:
        """Raise a disk error that has rolled back the whole round: no task is at fault."""
        undone = not self.conn.in_transaction
        if undone and isinstance(error, sqlite3.Error) and _is_disk_error(error):
            raise error

    def record_due(self, outcomes: Iterable[Outcome]) -> None:
        """Record when jobs will run again."""
        for outcome in outcomes:
            if isinstance(outcome, (RetryAt, Snoozed, Released)):
                state, run_at, *_ = rules.run_again(outcome)
                self.effects.add(state, run_at, None)

    def obey_cancels(self, outcomes: Sequence[Outcome]) -> tuple[Sequence[Outcome], frozenset[int]]:
        """Read the requested cancels and apply ``rules.obey_cancels``."""
        requested = {
            attempt
            for worker in {outcome.job.worker for outcome in outcomes}
            for attempt in self.conn.execute(CANCEL_REQUESTS, (worker,))
        }
        return rules.obey_cancels(outcomes, requested)

    def keep_attempts(self, outcomes: Sequence[Outcome]) -> None:
        succeeded = [
            (job.seq, job.lease, job.attempt, job.worker, job.started_at, ended.at)
            for job, ended, *_ in outcomes
            if ended.outcome == "succeeded"
        ]
        KEEP_SUCCESS.run(self.conn, succeeded)
        if len(succeeded) == len(outcomes):
            return
        self.conn.executemany(
            KEEP_ATTEMPT,
            [
                (
                    job.seq,
                    job.lease,
                    job.attempt,
                    job.worker,
                    job.started_at,
                    ended.at,
                    ended.outcome,
                    ended.error_type,
                    ended.error,
                    ended.traceback,
                )
                for job, ended, *_ in outcomes
                if ended.outcome != "succeeded"
            ],
        )
        counters.add(self.conn, Counter(_counted(outcomes)))

    def leave_lanes(self, outcomes: Sequence[Outcome]) -> None:
        """Let the next jobs of the lanes start, in which these attempts have ended."""
        left = {outcome.job.lane for outcome in outcomes}
        if left <= {None}:
            return
        self.effects.added += lanes.left(self.conn, left)
        again = [one.job for one in outcomes if isinstance(one, Released)]
        lanes.arrived(self.conn, [job.seq for job in again if job.lane is not None])

    def follow(self, outcomes: Sequence[Outcome]) -> None:
        """Unblock, cancel and finish what waits for the jobs that have ended."""
        ended = [
            End(job.id, job.chain, job.batch, _HOW[type(outcome)])
            for outcome in outcomes
            if (job := outcome.job).chain is not None
            or job.batch is not None
            or type(outcome) is Cancelled
            if type(outcome) in _HOW
        ]
        if ended:
            ends.follow(self.conn, self.now, ended, self.effects)


def _counted(outcomes: Iterable[Outcome]) -> Iterator[CounterKey]:
    """Yield the counters to which outcomes add; workers count those that are only a success."""
    for outcome in outcomes:
        job, ended = outcome.job, outcome.ended
        if ended.outcome != "succeeded":
            yield attempts(ended.outcome), job.queue, job.task
        match outcome:
            case RetryAt():
                yield RETRIED, job.queue, job.task
            case Cancelled():
                yield CANCELLED, job.queue, job.task
            case Dead():
                yield dead(outcome.reason), job.queue, job.task


def _has_writes_or_jobs(success: Succeeded) -> bool:
    """Return whether the success has writes or jobs."""
    return bool(success.writes or success.enqueues)


def _is_disk_error(error: sqlite3.Error) -> bool:
    return primary_code(error) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM}


def _succeed(conn: sqlite3.Connection, group: Sequence[Succeeded]) -> int:
    plain = [
        (job.seq, job.lease, job.worker, ended.at)
        for job, ended, result, omitted, *_ in group
        if result is None and omitted is None
    ]
    if len(plain) == len(group):
        return SUCCEED.run(conn, plain)
    with_result = [
        (job.seq, job.lease, job.worker, ended.at, result, omitted)
        for job, ended, result, omitted, *_ in group
        if not (result is None and omitted is None)
    ]
    return SUCCEED.run(conn, plain) + SUCCEED_WITH_RESULT.run(conn, with_result)


def _keep_result(conn: sqlite3.Connection, group: Sequence[Returned]) -> int:
    return conn.executemany(
        KEEP_RESULT,
        [
            (result, omitted, job.seq, job.lease, RESULT_PENDING)
            for job, _, result, omitted in group
        ],
    ).rowcount


def _run_again(
    conn: sqlite3.Connection, group: Sequence[RetryAt] | Sequence[Snoozed] | Sequence[Released]
) -> int:
    return conn.executemany(
        RUN_AGAIN,
        [(*rules.run_again(one), one.job.seq, one.job.lease, one.job.worker) for one in group],
    ).rowcount


def _cancel(conn: sqlite3.Connection, group: Sequence[Cancelled]) -> int:
    return conn.executemany(
        CANCEL, [(ended.at, job.seq, job.lease, job.worker) for job, ended in group]
    ).rowcount


def _bury(conn: sqlite3.Connection, group: Sequence[Dead]) -> int:
    conn.executemany(
        BURY_RUNNING,
        [
            (
                *burial(job.task, ended.at, reason, ended.error_type, ended.error, ended.traceback),
                job.seq,
                job.lease,
                job.worker,
            )
            for job, ended, reason in group
        ],
    )
    return conn.executemany(
        REMOVE, [(job.seq, job.lease, job.worker) for job, _, _ in group]
    ).rowcount


_HOW: Final[Mapping[type, Literal["succeeded", "dead", "stopped"]]] = {
    Succeeded: "succeeded",
    Dead: "dead",
    Cancelled: "stopped",
}

_SETTLE: dict[type, Callable[[sqlite3.Connection, Any], int]] = {
    Succeeded: _succeed,
    Returned: _keep_result,
    RetryAt: _run_again,
    Snoozed: _run_again,
    Released: _run_again,
    Cancelled: _cancel,
    Dead: _bury,
}
