"""Applies replays and deletions of dead letters to batches and waiting jobs; the batches are locked."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

from jobrunner.store.effects import Effects
from jobrunner.store.postgres.sql import edges, followups
from jobrunner.store.postgres.sql.edges import Needed
from jobrunner.store.postgres.sql.transaction import Transaction

_CLOSED: Final = """
SELECT wanted.seq FROM unnest($1::bigint[]) AS wanted (seq)
WHERE NOT EXISTS (SELECT FROM jobrunner.batches WHERE batches.seq = wanted.seq AND cancelled_at IS NULL)"""
_LEAVE: Final = "UPDATE jobrunner.jobs SET batch = NULL WHERE id = ANY ($1::text[])"
_GIVE_UP: Final = (
    "UPDATE jobrunner.edges SET state = -1 WHERE needs = ANY ($1::text[]) AND state + 0 = 2"
)
_REOPEN: Final = """
UPDATE jobrunner.batches SET state = 'running', ended_at = NULL WHERE seq = ANY ($1::bigint[]) AND state = 'failed'"""

_WAITERS: Final = "SELECT job FROM jobrunner.edges WHERE needs = $1 LIMIT $2"
# By the job's edges, of which there are few: others may need the same letter by thousands.
_MOVE: Final = """
UPDATE jobrunner.edges SET needs = $2 WHERE job = ANY ($3::text[]) AND needs || '' = $1"""
_MOVE_OWN: Final = "UPDATE jobrunner.edges SET job = $2 WHERE job = $1"
_MOVE_RESULTS: Final = """
UPDATE jobrunner.jobs SET handed = replace(handed, $1, $2) WHERE id = ANY ($3::text[]) AND handed IS NOT NULL"""
_CALLBACKS: Final = """
SELECT job FROM jobrunner.edges WHERE needs = (SELECT id FROM jobrunner.batches WHERE seq = $1)"""

_DELETED: Final = """
UPDATE jobrunner.batches SET deleted = deleted + ($2::bigint[])[array_position($1::bigint[], seq)]
WHERE seq = ANY ($1::bigint[]) RETURNING seq, ended_at"""
_FORGET_EDGES: Final = "DELETE FROM jobrunner.edges WHERE job = ANY ($1::text[])"


async def replayed(
    tx: Transaction, jobs: Sequence[tuple[str, int]], now: int, effects: Effects
) -> None:
    """Run the batches of replayed members again, and revive what their deaths had cancelled.

    A job of a cancelled batch leaves it: that batch stays as it is.

    Args:
        tx: the transaction that has put the jobs back.
        jobs: id and batch of each.
        now: the current time.
        effects: notes what is left to later transactions.
    """
    batches = sorted({batch for _, batch in jobs})
    closed = await _closed(tx, batches)
    if closed:
        leaving = [id for id, batch in jobs if batch in closed]
        await tx.execute(_LEAVE, leaving)
        await tx.execute(_GIVE_UP, leaving)
    await tx.execute(_REOPEN, batches)
    back = [Needed(id, batch, "unfinished") for id, batch in jobs if batch not in closed]
    await edges.reconcile(tx, now, back, effects)


async def _closed(tx: Transaction, batches: Collection[int]) -> set[int]:
    """Return those of these batches that were cancelled, or are not there."""
    return {seq for (seq,) in await tx.fetch(_CLOSED, list(batches))}


async def takes_replays(tx: Transaction, batch: int | None) -> bool:
    """Return whether a replayed member stays in its batch."""
    return batch is not None and not await _closed(tx, [batch])


async def move(tx: Transaction, old: str, new: str, batch: int, now: int, effects: Effects) -> None:
    """Move one slice of edges from a dead letter to its replacement."""
    jobs = [job for (job,) in await tx.fetch(_WAITERS, old, followups.SLICE)]
    await tx.execute(_MOVE, old, new, jobs)
    await tx.execute(_MOVE_RESULTS, old, new, jobs)
    if len(jobs) == followups.SLICE:
        effects.left_over = await followups.leave(tx, [(old, batch)])
    ends = await edges.ends_of(tx, [new])
    await edges.reconcile(tx, now, [Needed(new, batch, ends[new])], effects)


async def replaced(
    tx: Transaction, old: str, new: str, batch: int, now: int, effects: Effects
) -> None:
    """Give a dead letter's place in its batch to the job that replaces it."""
    await tx.execute(_MOVE_OWN, old, new)
    called = [job for (job,) in await tx.fetch(_CALLBACKS, batch)]
    await tx.execute(_MOVE_RESULTS, old, new, called)
    await tx.execute(_REOPEN, [batch])
    await move(tx, old, new, batch, now, effects)


async def replaced_callback(tx: Transaction, old: str, new: str) -> None:
    """Let the job that replaces a dead callback belong to the same batch."""
    await tx.execute(_MOVE_OWN, old, new)


async def deleted(tx: Transaction, letters: Sequence[tuple[str, int | None, str | None]]) -> None:
    """Note that dead letters were deleted: their batches can never succeed.

    Args:
        tx: the transaction that deletes them.
        letters: id, batch and ``replayed_as`` of each.
    """
    await tx.execute(_FORGET_EDGES, [id for id, *_ in letters])
    batches = Counter(
        batch for _, batch, replayed_as in letters if batch is not None and replayed_as is None
    )
    if batches:
        rows = await tx.fetch(_DELETED, list(batches), list(batches.values()))
        for seq, ended_at in rows:
            if ended_at is not None:
                await edges.call_back(tx, ended_at, [seq], Effects())
