"""Writes one round inside an open transaction.

A round is written with whole groups in one statement, which nearly always works.  If a row breaks a constraint, or a
session of an application holds what an item needs, the round is rolled back and written again item by item: only the
caller of that item gets the error, and an outcome stays for a later round.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from jobrunner.core.errors import JobRunnerError, StoreBusy, StoreError, StoreUnavailable
from jobrunner.core.model import (
    BatchEnqueue,
    Claim,
    Enqueue,
    Enqueued,
    Outcome,
    Parked,
    Succeeded,
)
from jobrunner.core.schedule import Fire, Fired
from jobrunner.core.workflows import BatchEnqueued
from jobrunner.store import rules
from jobrunner.store.effects import Effects
from jobrunner.store.postgres.driver_errors import ROW_ERRORS
from jobrunner.store.postgres.sql import (
    batch_locks,
    batches,
    claim,
    due,
    history,
    lanes,
    schedules,
    slices,
    steps,
)
from jobrunner.store.postgres.sql.insert import insert_all, lock_lanes
from jobrunner.store.postgres.sql.limits import Limits
from jobrunner.store.postgres.sql.savepoints import Savepoints, lanes_of, places, queues_of
from jobrunner.store.postgres.sql.settle import Settling, has_writes_or_jobs
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.postgres.sql.waiting import Waiting
from jobrunner.store.round import Round, Written

_BRIEFLY: Final = "20ms"
"""The wait for a lock after one that was held for too long; rounds hold theirs for less."""
_DUE_LATER_US: Final = 500_000
"""The time until the next search for due jobs, if some were left."""


async def write_round(
    tx: Transaction,
    request: Round,
    *,
    row_by_row: bool = False,
    briefly: bool = False,
    has_joined: bool = False,
    refused: Sequence[tuple[Succeeded, BaseException]] = (),
) -> Written:
    """Carry out a round inside the open transaction; it is ready to commit on return.

    Args:
        tx: the transaction.
        request: the round.
        row_by_row: give each item a savepoint, after a pass that an error of a row or a lock has ended.
        briefly: wait for locks for a moment only, since an earlier pass has waited for one that is held.
        has_joined: True if the claim's worker has joined on this store.
        refused: successes that earlier passes left out, each with the error of its write.

    Raises:
        WriteFailed: A write of a success has ended the transaction.
    """
    if briefly:
        tx.lock_timeout = _BRIEFLY
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
        self.stale: list[Outcome] = []
        self.busy: list[Outcome] = []
        self.refused = list(refused)
        self.savepoints = Savepoints(tx)
        self.is_due_left = False
        """True if jobs were left as they are that should have expired or become claimable."""

    async def run(self) -> Written:
        request, effects = self.request, self.effects
        new = _all_new(request)
        if self.row_by_row:
            await self.tx.wait_shortly()
        else:
            await self.lock_lanes(new)
        exceptions = await self.exceptions()
        touches = await self.hold_batches()
        if request.progress:
            await history.keep_progress(self.tx, request.progress)
        memos = await steps.keep(self.tx, request.memos, self.now) if request.memos else ()
        cancelled = await self.settle(request.outcomes) if request.outcomes else frozenset[int]()
        more_due = await self.promote_due(exceptions) if request.promote_due else False
        fired = [await self.fire(fire) for fire in request.fires]
        enqueued = await self.insert_new(request.enqueues, exceptions) if request.enqueues else []
        stored = [await self.insert_batch(one, exceptions) for one in request.batches]
        await self.tx.wait_as_before()
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
            effects.next_due = await due.next_due(self.tx)
            if self.is_due_left and effects.next_due is not None:
                effects.next_due = max(effects.next_due, self.now + _DUE_LATER_US)
        if claimed.next_at is not None:
            effects.add_due(claimed.next_at)
        return Written(
            stale=self.stale,
            busy=self.busy,
            cancelled=cancelled,
            enqueued=enqueued,
            claimed=claimed.jobs,
            next_due=effects.next_due,
            more_due=more_due or claimed.more or effects.left_over,
            left_queued=await self.has_left(len(claimed.jobs)),
            refused=tuple(self.refused),
            fired=fired,
            batches=stored,
            ended=effects.ended,
            memos=memos,
            next_tick=None
            if request.ticks_of is None
            else await schedules.next_tick(self.tx, request.ticks_of),
        )

    async def lock_lanes(self, jobs: Sequence[Enqueue]) -> None:
        if any(job.ordered for job in jobs):
            await self.tx.wait_shortly()
            await lock_lanes(self.tx, jobs)

    async def hold_batches(self) -> bool:
        """Lock all batches of which the round knows; return whether it changes something about workflows.

        A round of other jobs takes no additional trip. Item by item, each outcome locks its own.
        """
        request = self.request
        members, ids = _batches_of(request.outcomes)
        is_parked = any(isinstance(one, Parked) for one in request.outcomes)
        touches = bool(members or is_parked or request.batches)
        if not self.row_by_row:
            ids.update(one.batch for one in request.batches if isinstance(one.batch, str))
            if members or ids:
                await self.tx.wait_shortly()
            await batch_locks.hold(self.tx, members, ids)
        return touches

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

    # -- outcomes ------------------------------------------------------------------

    async def settle(self, outcomes: Sequence[Outcome]) -> frozenset[int]:
        """Write outcomes; return ``seq`` of the jobs cancelled instead of running again."""
        cancelled = frozenset[int]()
        if self.row_by_row:
            for outcome in filter(_needs_others, outcomes):
                cancelled |= await self.settle_apart(outcome)
            outcomes = [outcome for outcome in outcomes if not _needs_others(outcome)]
        elif any(map(_needs_others, outcomes)):
            await self.tx.wait_shortly()
        if outcomes:
            settling = Settling(self.tx, self.now, self.effects)
            cancelled |= await settling.settle(outcomes)
            self.add_settled(settling)
        return cancelled

    async def settle_apart(self, outcome: Outcome) -> frozenset[int]:
        """Write one outcome; it is busy if another transaction holds what it needs."""
        job, new, effects = outcome.job, _new_of(outcome), Effects()
        settling = Settling(self.tx, self.now, effects)
        try:
            async with self.savepoints.item(places(job.batch, job.lane) | lanes_of(new)):
                await self.lock_lanes(new)
                await batch_locks.hold(self.tx, *_batches_of([outcome]))
                cancelled = await settling.settle([outcome])
        except StoreBusy:
            self.busy.append(outcome)
            return frozenset()
        self.effects.merge(effects)
        self.add_settled(settling)
        return cancelled

    def add_settled(self, settling: Settling) -> None:
        self.stale += settling.stale
        self.refused += settling.refused

    # -- what has become due -----------------------------------------------------

    async def promote_due(self, exceptions: claim.Exceptions) -> bool:
        """Expire and promote due jobs; return whether more are due than one round handles."""
        tx, now, effects = self.tx, self.now, self.effects
        expired = await self.expire()
        if exceptions.has_followups or effects.left_over:
            await slices.go_on(tx, now, effects)
        if self.row_by_row:
            promoted, is_left = await due.promote_apart(tx, self.savepoints, now, effects)
            self.is_due_left = self.is_due_left or is_left
        else:
            promoted = await due.promote(tx, now, effects)
        woken = await lanes.wake(tx, now)
        effects.added += woken
        return due.PROMOTED_PER_ROUND in (expired, promoted) or woken == lanes.WOKEN_PER_ROUND

    async def expire(self) -> int:
        """Expire due jobs; item by item, none if another transaction holds what one of them needs."""
        if not self.row_by_row:
            return await due.expire(self.tx, self.now, self.effects)
        effects = Effects()
        try:
            async with self.savepoints.item(()):
                expired = await due.expire(self.tx, self.now, effects)
        except StoreBusy:
            self.is_due_left = True
            return 0
        self.effects.merge(effects)
        return expired

    # -- enqueues ------------------------------------------------------------------

    async def insert_new(
        self, jobs: Sequence[Enqueue], exceptions: claim.Exceptions
    ) -> Sequence[Enqueued | StoreError]:
        tx, is_limited, waiting = self.tx, exceptions.has_max_waiting, None
        if is_limited or any(job.key is not None or job.lane is not None for job in jobs):
            await tx.wait_shortly()
        if is_limited and not self.row_by_row:
            waiting = await Waiting.of(tx, jobs)
            is_limited = waiting is not None and not waiting.fits(jobs)
        if not is_limited:
            stored = await self.insert_rows(jobs, rules.calls(jobs, self.request.calls))
            self.add_stored(jobs, stored)
            return stored
        answers: list[Enqueued | StoreError] = []
        for call in rules.calls(jobs, self.request.calls):
            answers += await self.insert_call(call, waiting)
        return answers

    async def insert_call(
        self, jobs: Sequence[Enqueue], waiting: Waiting | None
    ) -> Sequence[Enqueued | StoreError]:
        """Store the jobs of one call, or none if too many would wait."""
        try:
            async with self.savepoints.item(queues_of(jobs)):
                waiting = waiting or await Waiting.of(self.tx, jobs)
                stored = await self.insert_rows(jobs, [jobs])
                if waiting is not None:
                    waiting.add([one for one in stored if isinstance(one, Enqueued)])
        except StoreError as refused:
            return [refused] * len(jobs)
        self.add_stored(jobs, stored)
        return stored

    async def insert_rows(
        self, jobs: Sequence[Enqueue], calls: Iterable[Sequence[Enqueue]]
    ) -> Sequence[Enqueued | StoreError]:
        if self.row_by_row:
            return [one for call in calls for one in await self.insert_apart(call)]
        return await insert_all(self.tx, jobs, self.now)

    async def insert_apart(self, jobs: Sequence[Enqueue]) -> Sequence[Enqueued | StoreError]:
        """Store the jobs of one call; an error in one row refuses all of them."""
        try:
            async with self.savepoints.item(lanes_of(jobs)):
                await self.lock_lanes(jobs)
                return await insert_all(self.tx, jobs, self.now)
        except StoreBusy as busy:
            return [busy] * len(jobs)
        except ROW_ERRORS as error:
            return [rules.row_refused(jobs, error)] * len(jobs)

    def add_stored(self, jobs: Sequence[Enqueue], stored: Sequence[Enqueued | StoreError]) -> None:
        """Record jobs that were enqueued; those that were refused are skipped."""
        pairs = zip(jobs, stored, strict=True)
        made = [(job, one) for job, one in pairs if isinstance(one, Enqueued)]
        self.effects.add_stored([job for job, _ in made], [one for _, one in made])

    async def insert_batch(
        self, request: BatchEnqueue, exceptions: claim.Exceptions
    ) -> BatchEnqueued | JobRunnerError:
        """Store the jobs and edges of one call, or none of them."""
        tx, effects, new = self.tx, Effects(), _new_of(request)
        await tx.wait_shortly()
        batch = request.batch if isinstance(request.batch, str) else None
        try:
            async with self.savepoints.item(places(batch, None) | lanes_of(new)):
                if self.row_by_row:
                    await self.lock_lanes(new)
                is_limited = exceptions.has_max_waiting
                waiting = await Waiting.of(tx, request.members) if is_limited else None
                stored = await batches.enqueue(tx, request, self.now, effects)
                if waiting is not None:
                    waiting.add(stored.members)
        except JobRunnerError as refused:
            return refused
        except ROW_ERRORS as refused:
            return StoreUnavailable(f"the store refuses a row of the batch: {refused}")
        self.effects.merge(effects)
        return stored

    # -- ticks ---------------------------------------------------------------------

    async def insert(self, jobs: Sequence[Enqueue]) -> Sequence[Enqueued]:
        stored = await insert_all(self.tx, jobs, self.now)
        self.add_stored(jobs, stored)
        return stored

    async def fire(self, fire: Fire) -> Fired | StoreError:
        """Carry out one step of a schedule; item by item, return the errors of its rows and locks."""
        new = _new_of(fire)
        if any(job.key is not None or job.lane is not None for job in new):
            await self.tx.wait_shortly()
        if not self.row_by_row:
            return await schedules.fire(self.tx, fire, self.now, self.insert)
        try:
            async with self.savepoints.item(lanes_of(new)):
                await self.lock_lanes(new)
                return await schedules.fire(self.tx, fire, self.now, self.insert)
        except StoreBusy as busy:
            return busy
        except ROW_ERRORS as error:
            return StoreUnavailable(f"the store refuses a row of schedule {fire.seen.id}: {error}")


def _needs_others(outcome: Outcome) -> bool:
    """Return whether an outcome changes more than its job and its attempt."""
    job = outcome.job
    if isinstance(outcome, Parked) or (
        isinstance(outcome, Succeeded) and has_writes_or_jobs(outcome)
    ):
        return True
    return job.lane is not None or job.batch is not None or job.chain is not None


def _batches_of(outcomes: Sequence[Outcome]) -> tuple[set[int], set[str]]:
    """Return the batches of attempts, and the ids of what their jobs wait for."""
    members = {one.job.batch for one in outcomes if one.job.batch is not None}
    waits = (wait for one in outcomes if isinstance(one, Parked) for wait in one.waits)
    return members, {wait.needs for wait in waits if not wait.needs.startswith("!")}


def _may_open_lanes(request: Round, new: Sequence[Enqueue]) -> bool:
    """Return whether the round may have made jobs of lanes claimable."""
    return any(job.lane is not None for job in new) or any(
        one.job.lane is not None or one.job.chain is not None for one in request.outcomes
    )


def _new_of(item: Outcome | Fire | BatchEnqueue) -> Sequence[Enqueue]:
    """Return the jobs that an item of a round may store."""
    match item:
        case Succeeded():
            return item.enqueues
        case Parked(children=BatchEnqueue() as children):
            return (*children.members, *children.callbacks)
        case BatchEnqueue():
            return (*item.members, *item.callbacks)
        case Fire():
            return [tick.job for tick in item.ticks if tick.job is not None]
        case _:
            return ()


def _all_new(request: Round) -> Sequence[Enqueue]:
    """Return every job that the round may store."""
    items = (*request.outcomes, *request.batches, *request.fires)
    return [*request.enqueues, *(job for item in items for job in _new_of(item))]
