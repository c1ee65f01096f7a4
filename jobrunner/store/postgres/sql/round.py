"""Writes one round inside an open transaction.

A round is written with whole groups in one statement, which nearly always works.  If a row breaks a constraint, the
round is rolled back and written again row by row, so that only the caller of the bad row gets the error.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from jobrunner.core.errors import JobRunnerError, StoreError, StoreUnavailable
from jobrunner.core.model import BatchEnqueue, Claim, Enqueue, Enqueued, Parked, Succeeded
from jobrunner.core.schedule import Fire, Fired
from jobrunner.core.workflows import BatchEnqueued
from jobrunner.store import rules
from jobrunner.store.counters import EXPIRED
from jobrunner.store.effects import Effects
from jobrunner.store.postgres.driver_errors import HELD_ERRORS, ROW_ERRORS, as_ours
from jobrunner.store.postgres.sql import (
    batch_locks,
    batches,
    claim,
    ends,
    history,
    lanes,
    schedules,
    slices,
    steps,
)
from jobrunner.store.postgres.sql.ends import End
from jobrunner.store.postgres.sql.insert import LOCK_TIMEOUT, insert_all, lock_lanes
from jobrunner.store.postgres.sql.limits import Limits
from jobrunner.store.postgres.sql.settle import Settling
from jobrunner.store.postgres.sql.states import WAITING
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.postgres.sql.waiting import Waiting
from jobrunner.store.round import Round, Written

PROMOTED_PER_ROUND: Final = 500
"""Maximum number of jobs promoted in a round, so that 10,000 due at once do not delay the others for long."""

# Rows that another transaction holds are its business. For ``state || ''`` see states.py.
_PROMOTE: Final = """
UPDATE jobrunner.jobs SET state = 'queued' WHERE state || '' = 'scheduled' AND seq = ANY (ARRAY(
    SELECT seq FROM jobrunner.jobs WHERE state = 'scheduled' AND run_at <= $1 ORDER BY run_at LIMIT $2
    FOR NO KEY UPDATE SKIP LOCKED
))
RETURNING seq, lane"""
_EXPIRE: Final = f"""
UPDATE jobrunner.jobs SET state = 'expired', finished_at = $1
WHERE state || '' IN ('queued', 'scheduled') AND seq = ANY (ARRAY(
    SELECT seq FROM jobrunner.jobs
    WHERE expires_at <= $1 AND expires_at IS NOT NULL AND {WAITING}
    ORDER BY expires_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
))
RETURNING id, chain, batch, queue, task, lane"""
_NEXT_DUE: Final = f"""
SELECT least(
    (SELECT min(run_at) FROM jobrunner.jobs WHERE state = 'scheduled'),
    (SELECT min(expires_at) FROM jobrunner.jobs WHERE expires_at IS NOT NULL AND {WAITING}),
    (SELECT min(wake_at) FROM jobrunner.lanes WHERE state = 'empty'),
    CASE WHEN EXISTS (SELECT FROM jobrunner.followups) THEN 0 END
)"""

_WAIT_SHORTLY: Final = f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"
_WAIT_AS_BEFORE: Final = "SET LOCAL lock_timeout TO DEFAULT"


async def write_round(
    tx: Transaction,
    request: Round,
    *,
    row_by_row: bool = False,
    has_joined: bool = False,
    refused: Sequence[tuple[Succeeded, BaseException]] = (),
) -> Written:
    """Carry out a round inside the open transaction; it is ready to commit on return.

    Args:
        tx: the transaction.
        request: the round.
        row_by_row: give each row a savepoint, after a pass that an error of a row has ended.
        has_joined: True if the claim's worker has joined on this store.
        refused: successes that earlier passes left out, each with the error of its write.

    Raises:
        WriteFailed: A write of a success has ended the transaction.
    """
    return await _Pass(
        tx, request, row_by_row=row_by_row, has_joined=has_joined, refused=refused
    ).run()


class _Pass:
    """One pass over a round, in bulk or row by row."""

    def __init__(
        self,
        tx: Transaction,
        request: Round,
        *,
        row_by_row: bool,
        has_joined: bool,
        refused: Sequence[tuple[Succeeded, BaseException]],
    ) -> None:
        self.tx = tx
        self.request = request
        self.now = request.now
        self.row_by_row = row_by_row
        self.has_joined = has_joined
        self.effects = Effects()
        self.settling = Settling(tx, request.now, self.effects, refused)

    async def run(self) -> Written:
        request, effects, settling = self.request, self.effects, self.settling
        new = _all_new(request)
        await lock_lanes(self.tx, new)
        exceptions = await self.exceptions()
        touches = await self.hold_batches()
        if request.progress:
            await history.keep_progress(self.tx, request.progress)
        memos = await steps.keep(self.tx, request.memos, self.now) if request.memos else ()
        cancelled = (
            await settling.settle(request.outcomes) if request.outcomes else frozenset[int]()
        )
        more_due = await self.promote_due(exceptions) if request.promote_due else False
        fired = [await self.fire(fire) for fire in request.fires]
        enqueued = await self.insert_new(request.enqueues, exceptions) if request.enqueues else []
        stored = [await self.insert_batch(one, exceptions) for one in request.batches]
        if request.promote_due or touches or _may_open_lanes(request, new):
            exceptions = await self.exceptions()
        claimed = (
            await self.start_claimed(request.claim, exceptions)
            if request.claim
            else await self.claim_nothing(exceptions)
        )
        self.tx.statistics += request.statistics
        if request.promote_due:
            # Replaces the value collected during the pass: those jobs may have been promoted or claimed by now.
            effects.next_due = await self.tx.fetchval(_NEXT_DUE)
        if claimed.next_at is not None:
            effects.add_due(claimed.next_at)
        return Written(
            stale=settling.stale,
            cancelled=cancelled,
            enqueued=enqueued,
            claimed=claimed.jobs,
            next_due=effects.next_due,
            more_due=more_due or claimed.more or effects.left_over,
            left_queued=await self.has_left(len(claimed.jobs)),
            refused=tuple(settling.refused),
            fired=fired,
            batches=stored,
            ended=effects.ended,
            memos=memos,
            next_tick=None
            if request.ticks_of is None
            else await schedules.next_tick(self.tx, request.ticks_of),
        )

    async def hold_batches(self) -> bool:
        """Lock all batches of which the round knows; return whether it changes something about workflows.

        A round of other jobs takes no additional trip.
        """
        request = self.request
        members = {one.job.batch for one in request.outcomes if one.job.batch is not None}
        parked = [one for one in request.outcomes if isinstance(one, Parked)]
        ids = {wait.needs for one in parked for wait in one.waits if not wait.needs.startswith("!")}
        ids.update(one.batch for one in request.batches if isinstance(one.batch, str))
        await batch_locks.hold(self.tx, members, ids)
        return bool(members or parked or request.batches)

    async def exceptions(self) -> claim.Exceptions:
        wanted = self.request.claim
        return await claim.Exceptions.read(self.tx, None if wanted is None else wanted.worker)

    async def start_claimed(self, wanted: Claim, exceptions: claim.Exceptions) -> claim.Result:
        if self.has_joined and not exceptions.stands:
            return claim.NOTHING  # it was found dead
        result = await claim.claim(self.tx, wanted, self.now, exceptions)
        if len(result.jobs) == sum(wanted.slots.values()):
            # A free place under a limit is for another worker: this one has no slot left.
            self.effects.added += result.freed(self.request.outcomes)
        return result

    async def claim_nothing(self, exceptions: claim.Exceptions) -> claim.Result:
        if self.request.outcomes and exceptions.is_limited:
            limits = await Limits.read(self.tx, self.now)
            self.effects.added += limits.freed(self.request.outcomes)
        return claim.NOTHING

    async def has_left(self, claimed: int) -> bool:
        """Return whether more jobs became claimable than the round has claimed."""
        effects = self.effects
        if effects.added <= claimed:
            return False
        # Those that arrived in lanes wait for nobody's claim if the lanes are full or empty.
        return effects.added - effects.laned > claimed or await lanes.is_any_open(self.tx)

    # -- what has become due -----------------------------------------------------

    async def promote_due(self, exceptions: claim.Exceptions) -> bool:
        """Expire and promote due jobs; return whether more are due than one round handles."""
        tx, limit = self.tx, PROMOTED_PER_ROUND
        expired = await tx.fetch(_EXPIRE, self.now, limit)
        tx.count(EXPIRED, [(queue, task) for *_, queue, task, _ in expired])
        await lanes.left(tx, {lane for *_, lane in expired})
        if expired:
            stopped = [End(id, chain, batch, "stopped") for id, chain, batch, *_ in expired]
            await ends.follow(tx, self.now, stopped, self.effects)
        if exceptions.has_followups or self.effects.left_over:
            await slices.go_on(tx, self.now, self.effects)
        promoted = await tx.fetch(_PROMOTE, self.now, limit)
        laned = [seq for seq, lane in promoted if lane is not None]
        await lanes.arrived(tx, laned)
        woken = await lanes.wake(tx, self.now)
        self.effects.added += len(promoted) + woken
        self.effects.laned += len(laned)
        return limit in (len(expired), len(promoted)) or woken == lanes.WOKEN_PER_ROUND

    # -- enqueues ------------------------------------------------------------------

    async def insert_new(
        self, jobs: Sequence[Enqueue], exceptions: claim.Exceptions
    ) -> Sequence[Enqueued | StoreError]:
        waiting = await Waiting.of(self.tx, jobs) if exceptions.has_max_waiting else None
        if waiting is None or waiting.fits(jobs):
            stored = await self.insert_rows(jobs)
            self.add_stored(jobs, stored)
            return stored
        answers: list[Enqueued | StoreError] = []
        for call in rules.calls(jobs, self.request.calls):
            answers += await self.insert_call(call, waiting)
        return answers

    async def insert_call(
        self, jobs: Sequence[Enqueue], waiting: Waiting
    ) -> Sequence[Enqueued | StoreError]:
        """Store the jobs of one call, or none if too many would wait."""
        tx = self.tx
        counted, rows = tx.counted.copy(), len(tx.statistics)
        await tx.execute("SAVEPOINT jobrunner_item")
        stored = await self.insert_rows(jobs)
        full = waiting.add([one for one in stored if isinstance(one, Enqueued)])
        if full is not None:
            await tx.undo(counted, rows)
            return [full] * len(jobs)
        await tx.execute("RELEASE SAVEPOINT jobrunner_item")
        self.add_stored(jobs, stored)
        return stored

    async def insert_rows(self, jobs: Sequence[Enqueue]) -> Sequence[Enqueued | StoreError]:
        # Sessions of applications hold the keys of their jobs until they commit: nobody waits for one that is idle.
        may_wait = _has_keys(jobs)
        if may_wait:
            await self.tx.execute(_WAIT_SHORTLY)
        if self.row_by_row:
            stored = [one for unit in rules.units(jobs) for one in await self.insert_unit(unit)]
        else:
            stored = list(await insert_all(self.tx, jobs, self.now))
        if may_wait:
            await self.tx.execute(_WAIT_AS_BEFORE)
        return stored

    async def insert_unit(self, jobs: Sequence[Enqueue]) -> Sequence[Enqueued | StoreError]:
        """Store a job or a whole chain; an error in one row refuses the whole chain."""
        try:
            async with self.tx.savepoint():
                return await insert_all(self.tx, jobs, self.now)
        except HELD_ERRORS as error:
            return [as_ours(error)] * len(jobs)
        except ROW_ERRORS as error:
            what = (
                f"the row of job {jobs[0].id}" if len(jobs) == 1 else f"a row of chain {jobs[0].id}"
            )
            return [StoreUnavailable(f"the store refuses {what}: {error}")] * len(jobs)

    def add_stored(self, jobs: Sequence[Enqueue], stored: Sequence[Enqueued | StoreError]) -> None:
        """Record jobs that were enqueued; those that were refused are skipped."""
        pairs = zip(jobs, stored, strict=True)
        made = [(job, one) for job, one in pairs if isinstance(one, Enqueued)]
        self.effects.add_stored([job for job, _ in made], [one for _, one in made])

    async def insert_batch(
        self, request: BatchEnqueue, exceptions: claim.Exceptions
    ) -> BatchEnqueued | JobRunnerError:
        """Store the jobs and edges of one call, or none of them."""
        tx, effects = self.tx, Effects()
        counted, rows = tx.counted.copy(), len(tx.statistics)
        await tx.execute("SAVEPOINT jobrunner_item")
        answer: BatchEnqueued | JobRunnerError
        try:
            waiting = None
            if exceptions.has_max_waiting:
                waiting = await Waiting.of(tx, request.members)
            may_wait = _has_keys((*request.members, *request.callbacks))
            if may_wait:
                await tx.execute(_WAIT_SHORTLY)  # an error undoes this too
            answer = await batches.enqueue(tx, request, self.now, effects)
            if may_wait:
                await tx.execute(_WAIT_AS_BEFORE)
            full = None if waiting is None else waiting.add(answer.members)
            answer = full or answer
        except JobRunnerError as refused:
            answer = refused
        except HELD_ERRORS as refused:
            answer = as_ours(refused)
        except ROW_ERRORS as refused:
            answer = StoreUnavailable(f"the store refuses a row of the batch: {refused}")
        if isinstance(answer, JobRunnerError):
            await tx.undo(counted, rows)
            return answer
        await tx.execute("RELEASE SAVEPOINT jobrunner_item")
        self.effects.merge(effects)
        return answer

    # -- ticks ---------------------------------------------------------------------

    async def insert(self, jobs: Sequence[Enqueue]) -> Sequence[Enqueued]:
        stored = await insert_all(self.tx, jobs, self.now)
        self.add_stored(jobs, stored)
        return stored

    async def fire(self, fire: Fire) -> Fired | StoreError:
        """Carry out one step of a schedule; in a row-by-row pass, return its row errors."""
        if not self.row_by_row:
            return await schedules.fire(self.tx, fire, self.now, self.insert)
        try:
            async with self.tx.savepoint():
                return await schedules.fire(self.tx, fire, self.now, self.insert)
        except ROW_ERRORS as error:
            return StoreUnavailable(f"the store refuses a row of schedule {fire.seen.id}: {error}")


def _has_keys(jobs: Iterable[Enqueue]) -> bool:
    return any(job.key is not None for job in jobs)


def _may_open_lanes(request: Round, new: Sequence[Enqueue]) -> bool:
    """Return whether the round may have made jobs of lanes claimable."""
    return any(job.lane is not None for job in new) or any(
        one.job.lane is not None or one.job.chain is not None for one in request.outcomes
    )


def _all_new(request: Round) -> Sequence[Enqueue]:
    """Return every job that the round may store."""
    found = list(request.enqueues)
    for outcome in request.outcomes:
        if isinstance(outcome, Succeeded):
            found += outcome.enqueues
        elif isinstance(outcome, Parked) and outcome.children is not None:
            found += (*outcome.children.members, *outcome.children.callbacks)
    for batch in request.batches:
        found += (*batch.members, *batch.callbacks)
    for fire in request.fires:
        found += (tick.job for tick in fire.ticks if tick.job is not None)
    return found
