"""Stores and cancels batches inside an open transaction."""

from collections.abc import Collection, Sequence
from typing import Any, Final

from jobrunner.core.errors import BatchEnded, InvalidBatch
from jobrunner.core.model import BatchEnqueue, Enqueue, NewBatch
from jobrunner.core.workflows import BatchEnqueued, BatchRow
from jobrunner.store.counters import CANCELLED
from jobrunner.store.effects import Effects
from jobrunner.store.postgres.sql import batch_locks, batch_rows, edges, followups, insert, lanes
from jobrunner.store.postgres.sql.edges import Needed
from jobrunner.store.postgres.sql.states import UNFINISHED
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.workflow_rules import end_of, require_stored

_INSERT: Final = """
INSERT INTO jobrunner.batches (id, name, state, created_at, parent) VALUES ($1, $2, 'running', $3, $4) RETURNING seq"""
_TAKES_MEMBERS: Final = """
SELECT seq FROM jobrunner.batches WHERE id = $1 AND ended_at IS NULL AND cancelled_at IS NULL"""
_OLDER_MEMBERS: Final = """
SELECT wanted.id, job.state, coalesce(job.batch = $2, letter.batch = $2, false) FROM unnest($1::text[]) AS wanted (id)
LEFT JOIN LATERAL (SELECT state, batch FROM jobrunner.jobs WHERE id = wanted.id OFFSET 0) job ON true
LEFT JOIN LATERAL (SELECT batch FROM jobrunner.dead_letters WHERE id = wanted.id OFFSET 0) letter ON true"""

_CANCEL: Final = """
UPDATE jobrunner.batches SET cancelled_at = $1
WHERE id = $2 AND ended_at IS NULL AND cancelled_at IS NULL RETURNING id, seq"""
# With the edges of those that have made the batches.
_GIVE_UP: Final = """
WITH void AS (UPDATE jobrunner.edges SET state = -1 WHERE job = ANY ($2::text[]) AND state > 0)
UPDATE jobrunner.batches SET cancelled_at = $1
WHERE parent = ANY ($2::text[]) AND parent IS NOT NULL AND ended_at IS NULL AND cancelled_at IS NULL
RETURNING id, seq"""

# Of all running jobs, which are few: "batch + 0", so that those that wait in the batch are not read. Each has a worker,
# by which their index begins: else the planner may take another one.
_REQUEST: Final = """
UPDATE jobrunner.jobs SET cancel_requested = true
WHERE state = 'running' AND worker IS NOT NULL AND batch + 0 = ANY ($1::bigint[]) AND NOT cancel_requested"""
# No SKIP LOCKED: a claim that holds one is waited for. If it commits, the job runs, and is asked to stop.
_CANCEL_WAITING: Final = f"""
WITH slice AS MATERIALIZED (
    SELECT seq FROM jobrunner.jobs
    WHERE batch = $2 AND batch IS NOT NULL AND {UNFINISHED} AND state <> 'running' ORDER BY seq LIMIT $3
    FOR NO KEY UPDATE
), gone AS (
    UPDATE jobrunner.jobs SET state = 'cancelled', finished_at = $1 WHERE seq = ANY (ARRAY(SELECT seq FROM slice))
    RETURNING id, queue, task, lane
)
SELECT id, queue, task, lane FROM gone"""
_HAS_WAITING: Final = f"""
SELECT FROM jobrunner.jobs WHERE batch = $1 AND batch IS NOT NULL AND {UNFINISHED} AND state <> 'running' LIMIT 1"""
_CANCELLED: Final = """
SELECT id, seq FROM jobrunner.batches
WHERE seq = ANY ($1::bigint[]) AND cancelled_at IS NOT NULL AND ended_at IS NULL"""


async def enqueue(
    tx: Transaction, request: BatchEnqueue, now: int, effects: Effects
) -> BatchEnqueued:
    """Store the jobs and edges of one call.

    After an error the caller rolls back, to a savepoint or wholly.

    Raises:
        BatchEnded: The batch has ended or was cancelled.
        KeyTaken: Another job holds the key of a callback, or of a job that waits for others or others wait for.
        InvalidBatch: An edge needs a job outside the batch.
    """
    if isinstance(request.batch, NewBatch):
        new = request.batch
        seq = int(await tx.fetchval(_INSERT, new.id, new.name, new.created_at, new.parent))
        tx.held.add(seq)  # nobody else sees it yet
        batch = new.id
    else:
        batch = request.batch
        seq = await _taking_members(tx, batch)
    blocked = {edge.job for edge in request.edges}
    members = await insert.members(
        tx, [job._replace(batch=seq) for job in request.members], now, blocked
    )
    callbacks = await insert.members(tx, request.callbacks, now, blocked)
    require_stored(request, members, callbacks)
    effects.add_stored(request.members, members)
    effects.add_stored(request.callbacks, callbacks)
    if request.edges:
        await edges.insert(tx, request.edges)
        new_ids = {job.id for job in request.members}
        before = {edge.needs for edge in request.edges} - new_ids - {batch}
        await _reconcile_with(tx, now, seq, before, effects)
    if not any(job.created for job in members):
        await edges.finish(tx, now, [seq], effects)
    return BatchEnqueued(members, callbacks)


async def _taking_members(tx: Transaction, id: str) -> int:
    """Lock a batch; it takes members until it ends or is cancelled, which waits for this transaction then."""
    await batch_locks.hold(tx, (), [id])
    seq = await tx.fetchval(_TAKES_MEMBERS, id)
    if seq is None:
        raise BatchEnded(
            f"batch {id} has ended or was cancelled, and takes no more jobs: enqueue another batch"
        )
    return int(seq)


async def _reconcile_with(
    tx: Transaction, now: int, batch: int, before: Collection[str], effects: Effects
) -> None:
    """Bring new edges in line with what has become of older members."""
    if not before:
        return
    found = await tx.fetch(_OLDER_MEMBERS, sorted(before), batch)
    unknown = [id for id, _, is_member in found if not is_member]
    if unknown:
        raise InvalidBatch(
            f"{unknown[0]} is no job of the batch: a job waits for jobs of its own batch only"
        )
    needed = [Needed(id, batch, end_of(state)) for id, state, _ in found]
    await edges.reconcile(tx, now, needed, effects)


async def added(tx: Transaction, jobs: Sequence[Enqueue], effects: Effects) -> None:
    """Cancel members again that a running member has added to a cancelled batch."""
    batches = {job.batch for job in jobs if job.batch is not None}
    if batches:
        await batch_locks.hold(tx, batches)
        rows = [(id, seq) for id, seq in await tx.fetch(_CANCELLED, sorted(batches))]
        effects.left_over = await followups.leave(tx, rows) or effects.left_over


async def cancel(tx: Transaction, id: str, now: int) -> BatchRow | None:
    """Request the cancel of a batch, whatever its size; return it as it was before."""
    if "\0" in id:
        return None
    await batch_locks.hold(tx, (), [id])
    row = await batch_rows.get(tx, id)
    await _cancelling(tx, await tx.fetch(_CANCEL, now, id), Effects())
    return row


async def give_up(tx: Transaction, jobs: Sequence[str], now: int, effects: Effects) -> None:
    """Give up what stopped jobs wait for; cancel the batches that they have made.

    They were cancelled on request or have expired.
    """
    await _cancelling(tx, await tx.fetch(_GIVE_UP, now, jobs), effects)


async def _cancelling(tx: Transaction, rows: Sequence[Any], effects: Effects) -> None:
    if not rows:
        return
    batches: list[tuple[str, int]] = [(id, seq) for id, seq in rows]
    tx.held.update(seq for _, seq in batches)
    await tx.execute(_REQUEST, [seq for _, seq in batches])
    effects.left_over = await followups.leave(tx, batches) or effects.left_over


async def sweep(tx: Transaction, id: str, batch: int, now: int, effects: Effects) -> None:
    """Cancel one slice of the waiting members of a cancelled batch, which is locked.

    Running members are asked to stop.
    """
    gone = await tx.fetch(_CANCEL_WAITING, now, batch, followups.SLICE)
    tx.count(CANCELLED, [(queue, task) for _, queue, task, _ in gone])
    effects.added += await lanes.left(tx, {lane for *_, lane in gone})
    ids = [job for job, *_ in gone]
    if ids:
        # Whoever waits for one of these is a member too, and goes as well.
        await give_up(tx, ids, now, effects)
    if await tx.fetchrow(_HAS_WAITING, batch) is not None:
        effects.left_over = True
        return
    await tx.execute(_REQUEST, [batch])
    await followups.done(tx, [id])
    await edges.finish(tx, now, [batch], effects)
