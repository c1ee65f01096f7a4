"""Writes one round to SQLite inside an open write transaction.

A round is written in bulk first, with whole groups in one statement, which nearly always works.  If the fence refuses
an outcome or a row breaks a constraint, the round is rolled back and written again row by row, so that only the caller
of the bad row gets the error.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from jobrunner.core.errors import StoreError, StoreUnavailable
from jobrunner.core.model import (
    Enqueue,
    Enqueued,
    Fire,
    Fired,
    Succeeded,
)
from jobrunner.store import rules
from jobrunner.store.round import Round, Written
from jobrunner.store.sqlite.sql import chains, claim, schedules, statistics
from jobrunner.store.sqlite.sql.claim import Heads
from jobrunner.store.sqlite.sql.insert import ROW_ERRORS, insert_all
from jobrunner.store.sqlite.sql.settle import Effects, FallBackToRows, Settling, WriteFailed
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

PROMOTED_PER_ROUND = 500
"""Maximum number of jobs promoted in a round, so that 10,000 due at once do not block other writers for long."""


def write_round(conn: sqlite3.Connection, request: Round, heads: Heads | None = None) -> Written:
    """Carry out a round inside the open transaction; it is ready to commit on return.

    Args:
        conn: the write connection.
        request: the round.
        heads: the claim positions that earlier rounds on the connection found.
    """
    heads = Heads() if heads is None else heads
    left_out: list[tuple[Succeeded, BaseException]] = []
    row_by_row = False
    while True:
        try:
            return _Pass(conn, request, heads, row_by_row=row_by_row, refused=left_out).run()
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
        *,
        row_by_row: bool,
        refused: Sequence[tuple[Succeeded, BaseException]] = (),
    ) -> None:
        self.conn = conn
        self.request = request
        self.heads = heads
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
        cancelled = settling.settle(request.outcomes) if request.outcomes else frozenset()
        more_due = self.promote_due() if request.promote_due else False
        fired = [self.fire(fire) for fire in request.fires]
        if effects.added:
            heads.ranks.clear()
        heads.added(request.enqueues)
        enqueued = self.insert_new(request.enqueues) if request.enqueues else []
        claimed = claim.claim(self.conn, request.claim, self.now, heads) if request.claim else []
        if request.statistics:
            statistics.add(self.conn, request.statistics)
        heads.keep(self.conn)
        if request.promote_due:
            # Replaces the value collected during the pass: those jobs may have been promoted or claimed by now.
            (effects.next_due,) = self.conn.execute(NEXT_DUE).fetchone()
        return Written(
            stale=settling.stale,
            cancelled=cancelled,
            enqueued=enqueued,
            claimed=claimed,
            next_due=effects.next_due,
            more_due=more_due,
            left_queued=effects.added > len(claimed),
            refused=tuple(settling.refused),
            fired=fired,
            next_tick=None
            if request.ticks_of is None
            else schedules.next_tick(self.conn, request.ticks_of),
        )

    # -- what has become due -----------------------------------------------------

    def promote_due(self) -> bool:
        """Expire and promote due jobs; return whether more are due than one round handles."""
        limit = PROMOTED_PER_ROUND
        expired = self.conn.execute(EXPIRE, (self.now, self.now, limit)).fetchall()
        stopped = [id for id, chain in expired if chain is not None]
        chains.follow(self.conn, self.now, stopped=stopped)
        promoted = self.conn.execute(PROMOTE, (self.now, limit)).rowcount
        self.effects.added += promoted
        return limit in (len(expired), promoted)

    # -- enqueues ------------------------------------------------------------------

    def insert_new(self, jobs: Sequence[Enqueue]) -> Sequence[Enqueued | StoreError]:
        if self.row_by_row:
            return [one for unit in rules.units(jobs) for one in self.insert_row_by_row(unit)]
        return self.insert(jobs)

    def insert(self, jobs: Sequence[Enqueue]) -> Sequence[Enqueued]:
        stored = insert_all(self.conn, jobs, self.now)
        self.effects.add_stored(jobs, stored)
        return stored

    def insert_row_by_row(self, jobs: Sequence[Enqueue]) -> Sequence[Enqueued | StoreError]:
        """Store a job or a whole chain; an error in one row refuses the whole chain."""
        try:
            with self.savepoint():
                stored = insert_all(self.conn, jobs, self.now)
        except ROW_ERRORS as error:
            what = (
                f"the row of job {jobs[0].id}" if len(jobs) == 1 else f"a row of chain {jobs[0].id}"
            )
            return [StoreUnavailable(f"the store refuses {what}: {error}")] * len(jobs)
        self.effects.add_stored(jobs, stored)
        return stored

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
