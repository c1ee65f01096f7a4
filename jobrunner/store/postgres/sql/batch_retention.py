"""Deletes batches past their retention, with their members, edges and memos, in short slices.

The row of the batch goes last, so that a kill between two slices leaves nothing behind.
"""

from typing import Final

from jobrunner.store.postgres.sql import batch_locks, history
from jobrunner.store.postgres.sql.retention import Due, latest, surplus
from jobrunner.store.postgres.sql.states import UNFINISHED
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.workflow_rules import is_past_retention

BATCHES_PER_STEP: Final = 100
OLDEST: Final = (-(2**63), 0)

_ENDED: Final = """
SELECT ended_at, seq, id FROM jobrunner.batches
WHERE ended_at IS NOT NULL AND (ended_at, seq) > ($1::bigint, $2::bigint) AND ended_at < $3
ORDER BY ended_at, seq LIMIT $4"""
_TASKS: Final = "SELECT DISTINCT task FROM jobrunner.jobs WHERE batch = $1 AND batch IS NOT NULL"

# A callback that waits for a success that only a replay could bring goes with the batch.
_WAITS_FOR_A_REPLAY: Final = "edges.state + 0 = 1 AND need = 'success' AND jobs.state = 'blocked'"
# Somebody may still replay a dead letter, or read the results: a callback, or the job that made the batch.
_IS_USED: Final = f"""
SELECT EXISTS (
    SELECT FROM jobrunner.dead_letters
    WHERE batch = $1 AND batch IS NOT NULL AND replayed_as IS NULL AND died_at >= $3
) OR EXISTS (
    SELECT FROM jobrunner.edges JOIN jobrunner.jobs ON id = job
    WHERE needs = $2 AND jobs.{UNFINISHED} AND NOT ({_WAITS_FOR_A_REPLAY})
) OR EXISTS (
    SELECT FROM jobrunner.edges JOIN jobrunner.dead_letters ON id = job WHERE needs = $2 AND replayed_as IS NULL
)"""

_DELETE_LETTERS: Final = """
DELETE FROM jobrunner.dead_letters WHERE letter = ANY (ARRAY(
    SELECT letter FROM jobrunner.dead_letters WHERE batch = $1 AND batch IS NOT NULL AND replayed_as IS NULL LIMIT $2
))
RETURNING seq, id"""
_DELETE_JOBS: Final = """
DELETE FROM jobrunner.jobs WHERE seq = ANY (ARRAY(
    SELECT seq FROM jobrunner.jobs WHERE batch = $1 AND batch IS NOT NULL LIMIT $2
))
RETURNING seq, id"""
_DELETE_WAITING: Final = f"""
DELETE FROM jobrunner.jobs WHERE state || '' = 'blocked' AND id = ANY (ARRAY(
    SELECT job FROM jobrunner.edges JOIN jobrunner.jobs ON id = job
    WHERE needs = (SELECT id FROM jobrunner.batches WHERE seq = $1) AND {_WAITS_FOR_A_REPLAY}
))
RETURNING seq, id"""
_DELETE_EDGES: Final = "DELETE FROM jobrunner.edges WHERE job = ANY ($1::text[])"


async def due(
    tx: Transaction, limits: Due, died_before: int, after: tuple[int, int]
) -> tuple[list[int], tuple[int, int] | None]:
    """Find batches that are due, oldest first, in one step.

    A batch is due once the longest retention of the tasks of its members has passed since its end, or if its end is
    older than the finished jobs that are kept.

    Returns:
        ``seq`` of the batches, and the start of the next step (None at the end).
    """
    newest = await surplus(tx, limits.keep)
    rows = await tx.fetch(_ENDED, *after, latest(limits, newest), BATCHES_PER_STEP)
    found: list[int] = []
    for ended_at, seq, id in rows:
        is_old = ended_at <= newest[0]
        if not is_old:
            # Without retentions of their own the tasks do not matter.
            tasks = await tx.fetch(_TASKS, seq) if limits.by_task else ()
            is_old = is_past_retention(
                ended_at,
                [task for (task,) in tasks],
                before=limits.before,
                by_task=limits.by_task,
            )
        if is_old and not await tx.fetchval(_IS_USED, seq, id, died_before):
            found.append(seq)
    is_last = len(rows) < BATCHES_PER_STEP
    return found, None if is_last else (rows[-1][0], rows[-1][1])


async def delete(tx: Transaction, batch: int, limit: int) -> int:
    """Delete one slice of a due batch, unless it was opened again.

    Returns:
        The number of deleted jobs and dead letters; below ``limit`` nothing of the batch is left.
    """
    await batch_locks.hold(tx, [batch])
    row = await tx.fetchrow(
        "SELECT FROM jobrunner.batches WHERE seq = $1 AND ended_at IS NOT NULL", batch
    )
    if row is None:
        return 0
    gone: list[tuple[int, str]] = []
    for statement in (_DELETE_LETTERS, _DELETE_JOBS):
        rows = await tx.fetch(statement, batch, limit - len(gone))
        gone += [(seq, id) for seq, id in rows]
    if len(gone) < limit:
        gone += [(seq, id) for seq, id in await tx.fetch(_DELETE_WAITING, batch)]
        await tx.execute("DELETE FROM jobrunner.batches WHERE seq = $1", batch)
    await history.delete(tx, [seq for seq, _ in gone])
    await tx.execute(_DELETE_EDGES, [id for _, id in gone])
    return min(len(gone), limit)
