"""One round against SQLite: outcomes, promotions, ticks, enqueues and the claim, inside an open write transaction.

Two passes know how to write the same rows.  The bulk pass takes whole groups in one call and is right nearly always;
when the fence refuses an outcome or a row breaks a constraint, the round is rolled back and the careful pass writes it
again item by item, so that only the culprit hears of it.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, cast

from jobrunner.errors import StoreError, StoreUnavailable
from jobrunner.model import (
    Cancelled,
    Claim,
    Claimed,
    Dead,
    Enqueue,
    Enqueued,
    Fire,
    Fired,
    Outcome,
    Released,
    RetryAt,
    Snoozed,
    State,
    Succeeded,
)
from jobrunner.store.protocol import Round, Written
from jobrunner.store.sqlite import schedules
from jobrunner.store.sqlite.statements import (
    BURY_RUNNING,
    CANCEL,
    CANCEL_REQUESTS,
    EXPIRE,
    FIND_BY_KEY,
    INSERT,
    INSERT_KEYED,
    KEEP_ATTEMPT,
    NEXT_DUE,
    PAUSED,
    PROMOTE,
    RANK,
    REMOVE,
    RUN_AGAIN,
    START_LISTED,
    START_RUNNABLE,
    SUCCEED,
    SUSPECTS,
    WAITING_TASKS,
)

PROMOTED_PER_ROUND = 500
"""Ten thousand jobs due at one instant must not hold the writer for long."""


# A constraint broken, and what no column can hold: too long, too large a number, half of a surrogate pair.
_ROW_ERRORS = (sqlite3.IntegrityError, sqlite3.DataError, OverflowError, UnicodeEncodeError)


class _NeedsCare(Exception):
    """The bulk pass met an outcome that the fence refuses."""


def write(conn: sqlite3.Connection, batch: Round) -> Written:
    """Carry out a round inside the open transaction; on return it is ready to commit."""
    try:
        return _Pass(conn, batch, careful=False).run()
    except (_NeedsCare, *_ROW_ERRORS):
        conn.execute("ROLLBACK")
        conn.execute("BEGIN IMMEDIATE")
        return _Pass(conn, batch, careful=True).run()


def insert(conn: sqlite3.Connection, jobs: Sequence[Enqueue], now: int) -> list[Enqueued]:
    """Insert jobs inside the open transaction; one row that cannot be stored fails the call, and may leave others.

    Raises:
        StoreUnavailable: the store refuses a row.
    """
    bulk = _Pass(conn, Round(now), careful=False)
    try:
        if len(jobs) == 1:
            return [bulk.insert(jobs[0])]
        # In the bulk pass an error is raised and never a value.
        return cast("list[Enqueued]", bulk.enqueue(jobs))
    except _ROW_ERRORS as error:
        raise StoreUnavailable(f"the store refuses the row of a job: {error}") from error


def settle(conn: sqlite3.Connection, outcome: Outcome, now: int) -> bool:
    """Write how one attempt ended inside the open transaction; return False if the fence refuses it."""
    alone = _Pass(conn, Round(now), careful=True)
    alone.settle([outcome])
    return not alone.stale


class _Pass:
    """One pass over a round, in bulk or item by item."""

    def __init__(self, conn: sqlite3.Connection, batch: Round, *, careful: bool) -> None:
        self.conn = conn
        self.batch = batch
        self.now = batch.now
        self.careful = careful
        self.stale: list[Outcome] = []
        self.added = 0
        """Rows that became claimable in this round."""
        self.next_due: int | None = None

    def run(self) -> Written:
        batch = self.batch
        cancelled = self.settle(batch.outcomes) if batch.outcomes else frozenset()
        more_due = self.look_due() if batch.look_due else False
        fired = [self.fire(fire) for fire in batch.fires]
        enqueued = self.enqueue(batch.enqueues) if batch.enqueues else []
        claimed = self.claim(batch.claim) if batch.claim else []
        if batch.look_due:
            # In place of what was noted on the way: by now that may have been promoted or claimed.
            (self.next_due,) = self.conn.execute(NEXT_DUE).fetchone()
        return Written(
            stale=self.stale,
            cancelled=cancelled,
            enqueued=enqueued,
            claimed=claimed,
            next_due=self.next_due,
            more_due=more_due,
            left_queued=self.added > len(claimed),
            fired=fired,
            next_tick=None
            if batch.ticks_of is None
            else schedules.next_tick(self.conn, batch.ticks_of),
        )

    # -- outcomes -------------------------------------------------------------

    def settle(self, outcomes: Sequence[Outcome]) -> frozenset[int]:
        """Write how attempts ended; return the jobs that a waiting cancel kept from running again."""
        cancelled: frozenset[int] = frozenset()
        if any(type(outcome) is not Succeeded for outcome in outcomes):
            outcomes, cancelled = self.obey_cancels(outcomes)
            self.note_again(outcomes)
        if not self.careful:
            by_kind: dict[type, list[Any]] = {}
            for outcome in outcomes:
                by_kind.setdefault(type(outcome), []).append(outcome)
            for kind, group in by_kind.items():
                if _SETTLE[kind](self.conn, group) != len(group):
                    raise _NeedsCare
            self.keep_attempts(outcomes)
        else:
            for outcome in outcomes:
                if _SETTLE[type(outcome)](self.conn, [outcome]) == 1:
                    self.keep_attempts([outcome])
                else:
                    self.stale.append(outcome)
        return cancelled

    def note_again(self, outcomes: Iterable[Outcome]) -> None:
        """Note when jobs will run again."""
        for outcome in outcomes:
            if isinstance(outcome, (RetryAt, Snoozed)):
                self.note_due(outcome.run_at)
            elif isinstance(outcome, Released):
                self.added += 1

    def obey_cancels(self, outcomes: Sequence[Outcome]) -> tuple[Sequence[Outcome], frozenset[int]]:
        """Turn outcomes that would run a job again into a cancel where one was asked for meanwhile."""
        asked = {
            (seq, lease)
            for worker in {outcome.job.worker for outcome in outcomes}
            for seq, lease in self.conn.execute(CANCEL_REQUESTS, (worker,))
        }
        if not asked:
            return outcomes, frozenset()
        obeyed: list[Outcome] = []
        cancelled: set[int] = set()
        for outcome in outcomes:
            job, ended = outcome.job, outcome.ended
            runs_again = isinstance(outcome, (RetryAt, Snoozed, Released))
            if runs_again and (job.seq, job.lease) in asked:
                cancelled.add(job.seq)
                obeyed.append(Cancelled(job, ended))
            else:
                obeyed.append(outcome)
        return obeyed, frozenset(cancelled)

    def keep_attempts(self, outcomes: Sequence[Outcome]) -> None:
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
            ],
        )

    # -- what has become due -----------------------------------------------------

    def look_due(self) -> bool:
        """Expire and promote; return whether there is more than one round's share."""
        limit = PROMOTED_PER_ROUND
        expired = self.conn.execute(EXPIRE, (self.now, self.now, limit)).rowcount
        promoted = self.conn.execute(PROMOTE, (self.now, limit)).rowcount
        self.added += promoted
        return limit in (expired, promoted)

    def note_due(self, due: int) -> None:
        if self.next_due is None or due < self.next_due:
            self.next_due = due

    # -- enqueues ------------------------------------------------------------------

    def enqueue(self, jobs: Sequence[Enqueue]) -> list[Enqueued | StoreError]:
        if self.careful:
            return [self.insert_careful(job) for job in jobs]
        # In the order given, which is their age: runs of jobs without a key in bulk, those with one by one.
        made: list[Enqueued | StoreError] = []
        for keyed, group in groupby(jobs, _has_key):
            if keyed:
                made.extend(map(self.insert_keyed, group))
            else:
                plain = list(group)
                self.conn.executemany(INSERT, [(*job, self.first_state(job)) for job in plain])
                made.extend(map(self.stored, plain))
        return made

    def first_state(self, job: Enqueue) -> State:
        # A job that is due from the start stays so when the clock steps back before its round.
        return "queued" if job.run_at <= max(self.now, job.created_at) else "scheduled"

    def stored(self, job: Enqueue) -> Enqueued:
        state = self.first_state(job)
        if state == "queued":
            self.added += 1
        else:
            self.note_due(job.run_at)
        if job.expires_at is not None:
            self.note_due(job.expires_at)
        return Enqueued(job.id, True, job.task, job.queue, state, job.created_at, job.run_at, 0)

    def insert_keyed(self, job: Enqueue) -> Enqueued:
        if self.conn.execute(INSERT_KEYED, (*job, self.first_state(job))).rowcount:
            return self.stored(job)
        row = self.conn.execute(FIND_BY_KEY, (job.task, job.key)).fetchone()
        return Enqueued(row[0], False, *row[2:])

    def insert(self, job: Enqueue) -> Enqueued:
        if job.key is not None:
            return self.insert_keyed(job)
        self.conn.execute(INSERT, (*job, self.first_state(job)))
        return self.stored(job)

    def insert_careful(self, job: Enqueue) -> Enqueued | StoreError:
        try:
            with self.savepoint():
                return self.insert(job)
        except _ROW_ERRORS as error:
            return StoreUnavailable(f"the store refuses the row of job {job.id}: {error}")

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what the block did if it raises, and nothing else of the round."""
        self.conn.execute("SAVEPOINT item")
        try:
            yield
        except _ROW_ERRORS:
            self.conn.execute("ROLLBACK TO item")
            self.conn.execute("RELEASE item")
            raise
        # Not after other errors: a full disk has rolled all back, the savepoint too.
        self.conn.execute("RELEASE item")

    # -- ticks ---------------------------------------------------------------------

    def fire(self, fire: Fire) -> Fired | StoreError:
        """Carry out one schedule's step; in the careful pass its row errors are its own."""
        if not self.careful:
            return schedules.fire(self.conn, fire, self.now, self.insert)
        try:
            with self.savepoint():
                return schedules.fire(self.conn, fire, self.now, self.insert)
        except _ROW_ERRORS as error:
            return StoreUnavailable(f"the store refuses a row of schedule {fire.seen.id}: {error}")

    # -- the claim --------------------------------------------------------------------

    def claim(self, claim: Claim) -> list[Claimed]:
        paused = {queue for (queue,) in self.conn.execute(PAUSED)}
        claimed: list[Claimed] = []
        suspects = claim.suspects
        for queue, free in claim.slots.items():
            if queue in paused:
                continue
            if suspects and (suspect := self.claim_suspect(claim, queue)) is not None:
                claimed.append(suspect)
                suspects = False
                free -= 1  # noqa: PLW2901 - the suspect took one of the queue's slots
            if free:
                claimed.extend(self.claim_from(claim, queue, free))
        # RETURNING promises no order.
        claimed.sort(key=_CLAIM_ORDER)
        return claimed

    def claim_from(self, claim: Claim, queue: str, free: int) -> Iterable[Claimed]:
        conn, now = self.conn, self.now
        tasks = [t for (t,) in conn.execute(WAITING_TASKS, {"queue": queue}) if t in claim.tasks]
        if not tasks:
            return ()
        if len(tasks) == 1:
            started = conn.execute(
                START_RUNNABLE, (claim.worker, now, now, queue, tasks[0], now, free)
            )
        else:
            ranks = sorted(
                rank for task in tasks for rank in conn.execute(RANK, (queue, task, now, free))
            )
            seqs = [seq for _, _, seq in ranks[:free]]
            started = conn.execute(START_LISTED, (claim.worker, now, now, _json_ints(seqs)))
        return map(Claimed._make, started.fetchall())

    def claim_suspect(self, claim: Claim, queue: str) -> Claimed | None:
        for seq, task in self.conn.execute(SUSPECTS, (queue, self.now)):
            if task in claim.tasks:
                started = self.conn.execute(
                    START_LISTED, (claim.worker, self.now, self.now, _json_ints([seq]))
                )
                return Claimed._make(started.fetchall()[0])
        return None


def _has_key(job: Enqueue) -> bool:
    return job.key is not None


def _json_ints(numbers: Sequence[int]) -> str:
    return f"[{','.join(map(str, numbers))}]"


def _CLAIM_ORDER(job: Claimed) -> tuple[int, int, int]:  # noqa: N802 - a constant that is a function
    return (-job.priority, job.run_at, job.seq)


def _succeed(conn: sqlite3.Connection, group: Sequence[Succeeded]) -> int:
    return conn.executemany(
        SUCCEED,
        [
            (ended.at, result, omitted, job.seq, job.lease, job.worker)
            for job, ended, result, omitted in group
        ],
    ).rowcount


def _retry(conn: sqlite3.Connection, group: Sequence[RetryAt]) -> int:
    return conn.executemany(
        RUN_AGAIN,
        [("scheduled", run_at, 0, 0, job.seq, job.lease, job.worker) for job, _, run_at in group],
    ).rowcount


def _snooze(conn: sqlite3.Connection, group: Sequence[Snoozed]) -> int:
    return conn.executemany(
        RUN_AGAIN,
        [("scheduled", run_at, 1, 0, job.seq, job.lease, job.worker) for job, _, run_at in group],
    ).rowcount


def _release(conn: sqlite3.Connection, group: Sequence[Released]) -> int:
    return conn.executemany(
        RUN_AGAIN,
        [("queued", job.run_at, 1, 1, job.seq, job.lease, job.worker) for job, _ in group],
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
                ended.at,
                reason,
                ended.error_type,
                ended.error,
                ended.traceback,
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


_SETTLE: dict[type, Callable[[sqlite3.Connection, Any], int]] = {
    Succeeded: _succeed,
    RetryAt: _retry,
    Snoozed: _snooze,
    Released: _release,
    Cancelled: _cancel,
    Dead: _bury,
}
