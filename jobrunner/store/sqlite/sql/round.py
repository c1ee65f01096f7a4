"""Writes one round to SQLite inside an open write transaction.

A round is written in bulk first, with whole groups in one statement, which nearly always works.  If the fence refuses
an outcome or a row breaks a constraint, the round is rolled back and written again row by row, so that only the caller
of the bad row gets the error.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

from jobrunner.core.errors import JobRunnerError, StoreError, StoreUnavailable
from jobrunner.core.model import BatchEnqueue, Claim, Enqueue, Enqueued, Memo, Succeeded
from jobrunner.core.schedule import Fire, Fired
from jobrunner.core.workflows import BatchEnqueued
from jobrunner.store import rules
from jobrunner.store.counters import EXPIRED
from jobrunner.store.effects import Effects
from jobrunner.store.round import Round, Written
from jobrunner.store.sqlite.sql import (
    batches,
    claim,
    counters,
    ends,
    history,
    lanes,
    schedules,
    slices,
    statistics,
    steps,
)
from jobrunner.store.sqlite.sql.claim import Heads
from jobrunner.store.sqlite.sql.ends import End
from jobrunner.store.sqlite.sql.insert import ROW_ERRORS, insert_all
from jobrunner.store.sqlite.sql.limits import Limits
from jobrunner.store.sqlite.sql.settle import FallBackToRows, Settling, WriteFailed
from jobrunner.store.sqlite.sql.statements import (
    BEGIN,
    EXPIRE,
    NEXT_DUE,
    PROMOTE,
    RELEASE,
    ROLLBACK,
    ROLLBACK_TO,
    SAVEPOINT,
)
from jobrunner.store.sqlite.sql.turns import Turns
from jobrunner.store.sqlite.sql.waiting import Waiting

PROMOTED_PER_ROUND = 500
"""Maximum number of jobs promoted in a round, so that 10,000 due at once do not block other writers for long."""


def write_round(
    conn: sqlite3.Connection,
    request: Round,
    heads: Heads | None = None,
    turns: Turns | None = None,
) -> Written:
    """Carry out a round inside the open transaction; it is ready to commit on return.

    Args:
        conn: the write connection.
        request: the round.
        heads: the claim positions that earlier rounds on the connection found.
        turns: the positions in the rounds of turns that its claims have begun.
    """
    heads = Heads() if heads is None else heads
    turns = Turns() if turns is None else turns
    left_out: list[tuple[Succeeded, BaseException]] = []
    row_by_row = False
    while True:
        try:
            return _Pass(conn, request, heads, turns, row_by_row=row_by_row, refused=left_out).run()
        except WriteFailed as culprit:
            # From here on each success has a savepoint, so that another failure does not repeat the other functions.
            row_by_row = True
            left_out.append((culprit.success, culprit.error))
            request = request._replace(
                outcomes=[one for one in request.outcomes if one is not culprit.success]
            )
        except (FallBackToRows, *ROW_ERRORS):
            if row_by_row:
                raise
            row_by_row = True
        if conn.in_transaction:
            conn.execute(ROLLBACK)
        conn.execute(BEGIN)


class _Pass:
    """One pass over a round, in bulk or row by row."""

    def __init__(
        self,
        conn: sqlite3.Connection,
        request: Round,
        heads: Heads,
        turns: Turns,
        *,
        row_by_row: bool,
        refused: Sequence[tuple[Succeeded, BaseException]] = (),
    ) -> None:
        self.conn = conn
        self.request = request
        self.heads = heads
        self.turns = turns
        self.now = request.now
        self.row_by_row = row_by_row
        self.effects = Effects()
        self.settling = Settling(
            conn, request.now, self.effects, row_by_row=row_by_row, refused=refused
        )

    def run(self) -> Written:
        request = self.request
        settling, effects, heads = self.settling, self.effects, self.heads
        heads.check(self.conn)
        if request.progress:
            history.keep_progress(self.conn, request.progress)
        memos = self.keep(request.memos) if request.memos else ()
        cancelled = settling.settle(request.outcomes) if request.outcomes else frozenset()
        more_due = self.promote_due() if request.promote_due else False
        fired = [self.fire(fire) for fire in request.fires]
        if effects.added:
            heads.ranks.clear()
        heads.added(request.enqueues)
        enqueued = self.insert_new(request.enqueues) if request.enqueues else []
        stored = [self.insert_batch(one) for one in request.batches] if request.batches else ()
        claimed = self.start_claimed(request.claim) if request.claim else self.claim_nothing()
        if request.statistics:
            statistics.add(self.conn, request.statistics)
        heads.keep(self.conn)
        if request.promote_due:
            # Replaces the value collected during the pass: those jobs may have been promoted or claimed by now.
            (effects.next_due,) = self.conn.execute(NEXT_DUE).fetchone()
        if claimed.next_at is not None:
            effects.add_due(claimed.next_at)
        return Written(
            stale=settling.stale,
            cancelled=cancelled,
            enqueued=enqueued,
            claimed=claimed.jobs,
            next_due=effects.next_due,
            more_due=more_due or claimed.more or effects.left_over,
            left_queued=self.has_left(len(claimed.jobs)),
            refused=tuple(settling.refused),
            fired=fired,
            batches=stored,
            ended=effects.ended,
            next_tick=None
            if request.ticks_of is None
            else schedules.next_tick(self.conn, request.ticks_of),
            memos=memos,
        )

    def keep(self, memos: Sequence[Memo]) -> Sequence[bool]:
        """Store memos; return for each whether it was stored."""
        if self.row_by_row:
            return [steps.keep(self.conn, [memo], self.now) == 1 for memo in memos]
        if steps.keep(self.conn, memos, self.now) != len(memos):
            raise FallBackToRows
        return [True] * len(memos)

    def start_claimed(self, wanted: Claim) -> claim.Result:
        result = claim.claim(self.conn, wanted, self.now, self.heads, self.turns)
        if len(result.jobs) == sum(wanted.slots.values()):
            # A free place under a limit is for another worker: this one has no slot left.
            self.effects.added += result.freed(self.request.outcomes)
        return result

    def claim_nothing(self) -> claim.Result:
        if self.request.outcomes:
            self.effects.added += Limits(self.conn, self.now).freed(self.request.outcomes)
        return claim.NOTHING

    def has_left(self, claimed: int) -> bool:
        """Return whether more jobs became claimable than the round has claimed."""
        effects = self.effects
        if effects.added <= claimed:
            return False
        # Those that arrived in lanes wait for nobody's claim if the lanes are full or empty.
        return effects.added - effects.laned > claimed or lanes.is_any_open(self.conn)

    # -- what has become due -----------------------------------------------------

    def promote_due(self) -> bool:
        """Expire and promote due jobs; return whether more are due than one round handles."""
        limit = PROMOTED_PER_ROUND
        expired = self.conn.execute(EXPIRE, (self.now, self.now, limit)).fetchall()
        counters.count(self.conn, EXPIRED, [(queue, task) for *_, queue, task, _ in expired])
        lanes.left(self.conn, {lane for *_, lane in expired})
        if expired:
            stopped = [End(id, chain, batch, "stopped") for id, chain, batch, *_ in expired]
            ends.follow(self.conn, self.now, stopped, self.effects)
        slices.go_on(self.conn, self.now, self.effects)
        promoted = self.conn.execute(PROMOTE, (self.now, limit)).fetchall()
        laned = [seq for seq, lane in promoted if lane is not None]
        lanes.arrived(self.conn, laned)
        woken = lanes.wake(self.conn, self.now)
        self.effects.added += len(promoted) + woken
        self.effects.laned += len(laned)
        return limit in (len(expired), len(promoted)) or woken == lanes.WOKEN_PER_ROUND

    # -- enqueues ------------------------------------------------------------------

    def insert_new(self, jobs: Sequence[Enqueue]) -> Sequence[Enqueued | StoreError]:
        waiting = Waiting.of(self.conn, jobs)
        if waiting is None or waiting.fits(jobs):
            stored = self.insert_rows(jobs, rules.calls(jobs, self.request.calls))
            self.add_stored(jobs, stored)
            return stored
        return [
            one
            for call in rules.calls(jobs, self.request.calls)
            for one in self.insert_call(call, waiting)
        ]

    def insert_call(
        self, jobs: Sequence[Enqueue], waiting: Waiting
    ) -> Sequence[Enqueued | StoreError]:
        """Store the jobs of one call, or none if too many would wait."""
        self.conn.execute(SAVEPOINT)
        stored = self.insert_rows(jobs, [jobs])
        full = waiting.add([one for one in stored if isinstance(one, Enqueued)])
        if full is not None:
            self.conn.execute(ROLLBACK_TO)
        self.conn.execute(RELEASE)
        if full is not None:
            return [full] * len(jobs)
        self.add_stored(jobs, stored)
        return stored

    def insert_rows(
        self, jobs: Sequence[Enqueue], calls: Iterable[Sequence[Enqueue]]
    ) -> Sequence[Enqueued | StoreError]:
        if self.row_by_row:
            return [one for call in calls for one in self.insert_apart(call)]
        return insert_all(self.conn, jobs, self.now)

    def add_stored(self, jobs: Sequence[Enqueue], stored: Sequence[Enqueued | StoreError]) -> None:
        if self.row_by_row:
            pairs = [
                (job, one)
                for job, one in zip(jobs, stored, strict=True)
                if isinstance(one, Enqueued)
            ]
            self.effects.add_stored([job for job, _ in pairs], [one for _, one in pairs])
        else:
            # In bulk a refused row raises, so there is no error among them.
            self.effects.add_stored(jobs, cast("Sequence[Enqueued]", stored))

    def insert(self, jobs: Sequence[Enqueue]) -> Sequence[Enqueued]:
        stored = insert_all(self.conn, jobs, self.now)
        self.effects.add_stored(jobs, stored)
        return stored

    def insert_apart(self, jobs: Sequence[Enqueue]) -> Sequence[Enqueued | StoreError]:
        """Store the jobs of one call; an error in one row refuses all of them."""
        try:
            with self.savepoint():
                return insert_all(self.conn, jobs, self.now)
        except ROW_ERRORS as error:
            return [rules.row_refused(jobs, error)] * len(jobs)

    def insert_batch(self, request: BatchEnqueue) -> BatchEnqueued | JobRunnerError:
        """Store the jobs and edges of one call, or none of them."""
        self.conn.execute(SAVEPOINT)
        effects = Effects()
        answer: BatchEnqueued | JobRunnerError
        try:
            waiting = Waiting.of(self.conn, request.members)
            answer = batches.enqueue(self.conn, request, self.now, effects)
            full = None if waiting is None else waiting.add(answer.members)
            answer = full or answer
        except JobRunnerError as refused:
            answer = refused
        except ROW_ERRORS as refused:
            answer = StoreUnavailable(f"the store refuses a row of the batch: {refused}")
        if isinstance(answer, JobRunnerError):
            self.conn.execute(ROLLBACK_TO)
        else:
            self.effects.merge(effects)
            self.heads.ranks.clear()
        self.conn.execute(RELEASE)
        return answer

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo only the block's own writes if it raises a row error."""
        self.conn.execute(SAVEPOINT)
        try:
            yield
        except ROW_ERRORS:
            self.conn.execute(ROLLBACK_TO)
            self.conn.execute(RELEASE)
            raise
        # Other errors, such as a full disk, have rolled back everything, including the savepoint.
        self.conn.execute(RELEASE)

    # -- ticks ---------------------------------------------------------------------

    def fire(self, fire: Fire) -> Fired | StoreError:
        """Carry out one step of a schedule; in a row-by-row pass, return its row errors."""
        if not self.row_by_row:
            return schedules.fire(self.conn, fire, self.now, self.insert)
        try:
            with self.savepoint():
                return schedules.fire(self.conn, fire, self.now, self.insert)
        except ROW_ERRORS as error:
            return StoreUnavailable(f"the store refuses a row of schedule {fire.seen.id}: {error}")
