"""Unblocks or cancels the jobs behind those that end in a chain."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from jobrunner.store.counters import CANCELLED
from jobrunner.store.effects import Effects
from jobrunner.store.postgres.sql import followups, lanes
from jobrunner.store.postgres.sql.transaction import Transaction

# A blocked job that has run before has left its place in the chain: it waits for something else.
_BEHIND: Final = "state = 'blocked' AND lease = 0 AND after = ANY ($1::text[])"

# Due now at the earliest, so that they do not overtake jobs that were queued before.
_UNBLOCK: Final = f"""
UPDATE jobrunner.jobs SET
    state = CASE WHEN run_at <= greatest($2::bigint, created_at) THEN 'queued' ELSE 'scheduled' END,
    run_at = greatest(run_at, $2)
WHERE {_BEHIND}
RETURNING state, run_at, expires_at, seq, lane"""

# OFFSET 0 keeps the subquery apart: joined, it may become one read of all blocked jobs instead of a seek for each.
_REST: Final = f"""
WITH RECURSIVE rest (seq, id) AS (
    SELECT seq, id FROM jobrunner.jobs WHERE {_BEHIND} {{test}}
    UNION ALL
    SELECT next.seq, next.id FROM rest, LATERAL (
        SELECT seq, id FROM jobrunner.jobs WHERE state = 'blocked' AND lease = 0 AND after = rest.id {{test}} OFFSET 0
    ) AS next
)"""
# The state again: another transaction may have unblocked or ended one since the statement began.
_CANCEL_REST: Final = f"""
{_REST.format(test="")}, slice AS MATERIALIZED (SELECT seq FROM rest LIMIT $3), gone AS (
    UPDATE jobrunner.jobs SET state = 'cancelled', finished_at = $2
    WHERE seq = ANY (ARRAY(SELECT seq FROM slice)) AND state || '' = 'blocked'
    RETURNING id, queue, task
)
SELECT size.number, gone.* FROM (SELECT count(*) AS number FROM slice) size LEFT JOIN gone ON true"""

# Those of these jobs whose death cancels the jobs behind them.
_STOPPED_BY_DEATH: Final = f"""
SELECT DISTINCT after FROM jobrunner.jobs WHERE {_BEHIND} AND on_dead = 'cancel'"""
_STILL_BLOCKED: Final = f"SELECT DISTINCT after FROM jobrunner.jobs WHERE {_BEHIND}"


async def follow(
    tx: Transaction,
    now: int,
    *,
    succeeded: Sequence[str],
    died: Sequence[str],
    stopped: Sequence[str],
    effects: Effects,
) -> None:
    """Unblock the job behind each that succeeded or died; cancel all jobs behind each stopped one.

    In a chain with ``on_dead="cancel"`` a job that died stops the chain too.

    Args:
        tx: the transaction that ends the jobs.
        now: the current time.
        succeeded: ids of jobs of chains that succeeded.
        died: ids of those that died.
        stopped: ids of those that were cancelled or expired.
        effects: notes the unblocked jobs.
    """
    if died:
        rows = await tx.fetch(_STOPPED_BY_DEATH, died)
        stopped = [*stopped, *(id for (id,) in rows)]
    if stopped:
        behind = await cancel_rest(tx, now, stopped)
        effects.left_over = effects.left_over or bool(behind.left)
    done = [*succeeded, *died]
    if done:
        unblocked = await tx.fetch(_UNBLOCK, done, now)
        await lanes.arrived(tx, [seq for *_, seq, lane in unblocked if lane is not None])
        for state, run_at, expires_at, *_ in unblocked:
            effects.add(state, run_at, expires_at)


class Behind(NamedTuple):
    """The jobs behind stopped ones that one transaction has cancelled."""

    cancelled: Sequence[str]
    """Their ids."""
    left: Sequence[str]
    """Ids of jobs whose followers are left to later transactions."""


NOTHING: Final = Behind((), ())


async def cancel_rest(tx: Transaction, now: int, stopped: Sequence[str]) -> Behind:
    """Cancel the jobs behind each stopped one, up to the size of a slice."""
    rows = await tx.fetch(_CANCEL_REST, stopped, now, followups.SLICE)
    gone = [(id, queue, task) for _, id, queue, task in rows if id is not None]
    tx.count(CANCELLED, [(queue, task) for _, queue, task in gone])
    cancelled = [id for id, *_ in gone]
    if rows[0]["number"] < followups.SLICE:
        return Behind(cancelled, ())
    rest = await tx.fetch(_STILL_BLOCKED, [*stopped, *cancelled])
    left = [id for (id,) in rest]
    await followups.leave(tx, [(id, None) for id in left])
    return Behind(cancelled, left)


async def count_rest(
    tx: Transaction, ids: Sequence[str], test: str, values: Sequence[object]
) -> int:
    """Count the jobs behind these, up to the first that passes a test; its values begin at $2."""
    statement = _REST.format(test=f"AND ({test}) IS NOT TRUE") + " SELECT count(*) FROM rest"
    return int(await tx.fetchval(statement, ids, *values))
