"""Goes on with what earlier transactions have left over, slice by slice.

A batch that another transaction holds is passed over, so that nobody's claims wait for a slice.  What is left is found
before its batch is locked: afterwards a row that another process has dealt with is not there any longer.
"""

from typing import Final

from jobrunner.store.effects import Effects
from jobrunner.store.postgres.sql import batches, chains, edges, followups, replays
from jobrunner.store.postgres.sql.edges import Needed
from jobrunner.store.postgres.sql.transaction import Transaction

_CANCELLED_BATCH: Final = """
SELECT f.id, f.batch FROM jobrunner.followups f JOIN jobrunner.batches b ON b.id = f.id
LIMIT 1 FOR NO KEY UPDATE OF b SKIP LOCKED"""
_IS_LEFT: Final = "SELECT FROM jobrunner.followups WHERE id = $1"
_IN_CHAINS: Final = """
DELETE FROM jobrunner.followups WHERE id = ANY (ARRAY(
    SELECT id FROM jobrunner.followups WHERE batch IS NULL LIMIT $1 FOR UPDATE SKIP LOCKED
))
RETURNING id"""
_IN_BATCHES: Final = """
SELECT f.id, f.batch FROM jobrunner.followups f JOIN jobrunner.batches b ON b.seq = f.batch
LIMIT $1 FOR NO KEY UPDATE OF b SKIP LOCKED"""
_REPLACED: Final = """
SELECT f.id, f.batch, d.replayed_as FROM jobrunner.followups f
JOIN jobrunner.dead_letters d ON d.id = f.id AND d.replayed_as IS NOT NULL
JOIN jobrunner.batches b ON b.seq = f.batch
LIMIT 1 FOR NO KEY UPDATE OF b SKIP LOCKED"""


async def go_on(tx: Transaction, now: int, effects: Effects) -> None:
    """Do one slice."""
    batch = await tx.fetchrow(_CANCELLED_BATCH)
    if batch is not None:
        id, seq = batch
        tx.held.add(seq)
        if await tx.fetchrow(_IS_LEFT, id) is not None:
            await batches.sweep(tx, id, seq, now, effects)
    elif not await _go_on_with_chains(tx, now):
        await _go_on_with_edges(tx, now, effects)
    if not await followups.is_empty(tx):
        effects.left_over = True


async def _go_on_with_chains(tx: Transaction, now: int) -> bool:
    # Each was cancelled in an earlier slice, and so are the jobs behind it.
    ids = [id for (id,) in await tx.fetch(_IN_CHAINS, followups.SLICE)]
    if ids:
        await chains.cancel_rest(tx, now, ids)
    return bool(ids)


async def _go_on_with_edges(tx: Transaction, now: int, effects: Effects) -> None:
    replaced = await tx.fetchrow(_REPLACED)
    if replaced is not None:
        old, batch, new = replaced
        tx.held.add(batch)
        if await followups.done(tx, [old]):
            await replays.move(tx, old, new, batch, now, effects)
        return
    rows = await tx.fetch(_IN_BATCHES, followups.SLICE)
    tx.held.update(batch for _, batch in rows)
    left = set(await followups.done(tx, [id for id, _ in rows]))
    ends = await edges.ends_of(tx, sorted(left))
    needed = [Needed(id, batch, ends[id]) for id, batch in rows if id in left]
    await edges.reconcile(tx, now, needed, effects)
