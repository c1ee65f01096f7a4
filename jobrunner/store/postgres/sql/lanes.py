"""Keeps the list of lanes with queued jobs, inside an open transaction.

Every statement that makes a job of a lane claimable is followed by ``arrived``, and every one that ends or moves such a
job by ``left``, so the commit that frees a lane also opens it.
"""

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from jobrunner.store.postgres.sql.states import EARLIER_IN_LANE, LANED, LANED_ROW
from jobrunner.store.postgres.sql.transaction import Transaction

WOKEN_PER_ROUND: Final = 500
"""Maximum number of lanes that a round opens because their buckets have tokens again."""

# One row for each lane: a statement may not change a row twice. An open lane keeps its place unless the new job comes
# before all others of the lane.
_ARRIVED: Final = f"""
INSERT INTO jobrunner.lanes (lane, queue, task, ordered, priority, turn, state)
SELECT lane, queue, min(task), bool_or(coalesce(ordered, false)), max(priority),
    (array_agg(run_at ORDER BY seq))[1], 'open'
FROM jobrunner.jobs WHERE {{}} AND {LANED_ROW} GROUP BY lane, queue ORDER BY lane, queue
ON CONFLICT (lane, queue) DO UPDATE SET
    priority = greatest(lanes.priority, excluded.priority), ordered = lanes.ordered OR excluded.ordered{{}}
RETURNING state = 'open'"""
# A job that was there before may be the oldest of its lane; a new one is not.
_REOPEN: Final = (
    ", state = CASE WHEN lanes.ordered AND lanes.state = 'full' THEN 'open' ELSE lanes.state END"
)
# Before the list: two that add the first jobs of a lane at once, also to two queues, wait for each other here.
_MAKE_LOCKS: Final = f"""
INSERT INTO jobrunner.lane_locks (lane)
SELECT DISTINCT lane FROM jobrunner.jobs WHERE {{}} AND {LANED_ROW} ORDER BY lane
ON CONFLICT (lane) DO NOTHING"""
_BY_SEQ: Final = "seq = ANY ($1::bigint[])"
_BY_ID: Final = "id = ANY ($1::text[])"

# Locked whatever their state is: a claim that has not committed may be about to write "full", having counted a job that
# this transaction ends. An UPDATE of full lanes alone would not wait for it, and the lane would stay full for ever.
_LOCK: Final = """
SELECT id FROM jobrunner.lanes WHERE lane = ANY ($1::text[]) ORDER BY id FOR NO KEY UPDATE"""
_OPEN_FULL: Final = """
UPDATE jobrunner.lanes SET state = 'open' WHERE state = 'full' AND id = ANY ($1::bigint[])"""

_ANY_OPEN: Final = "SELECT EXISTS (SELECT FROM jobrunner.lanes WHERE state = 'open')"

_WAKE: Final = """
UPDATE jobrunner.lanes SET state = 'open', wake_at = NULL WHERE state = 'empty' AND id = ANY (ARRAY(
    SELECT id FROM jobrunner.lanes WHERE state = 'empty' AND wake_at <= $1 ORDER BY wake_at LIMIT $2
    FOR NO KEY UPDATE SKIP LOCKED
))"""


def changed(status: str) -> int:
    """Return the number of rows from a statement's status, such as ``UPDATE 3``."""
    return int(status.rpartition(" ")[2])


async def arrived(tx: Transaction, seqs: Sequence[int]) -> int:
    """List the lanes of those jobs that are queued in one; return the number that may be claimed."""
    return await _arrived(tx, _BY_SEQ, seqs, _REOPEN) if seqs else 0


async def arrived_new(tx: Transaction, ids: Sequence[str]) -> int:
    """List the lanes of new jobs, as ``arrived`` does."""
    return await _arrived(tx, _BY_ID, ids, "") if ids else 0


async def _arrived(
    tx: Transaction, which: str, keys: Sequence[int] | Sequence[str], reopen: str
) -> int:
    await tx.execute(_MAKE_LOCKS.format(which), keys)
    return sum(is_open for (is_open,) in await tx.fetch(_ARRIVED.format(which, reopen), keys))


async def left(tx: Transaction, lanes: Collection[str | None]) -> int:
    """Open the full ones of these lanes; return their number.

    A job of each has ended or moved.  None stands for a job without a lane.
    """
    names = [lane for lane in lanes if lane is not None]
    if not names:
        return 0
    ids = [id for (id,) in await tx.fetch(_LOCK, names)]
    return changed(await tx.execute(_OPEN_FULL, ids)) if ids else 0


async def is_any_open(tx: Transaction) -> bool:
    """Return whether a claim finds a lane to visit."""
    found: bool = await tx.fetchval(_ANY_OPEN)
    return found


async def wake(tx: Transaction, now: int) -> int:
    """Open lanes whose buckets have tokens again; return their number."""
    return changed(await tx.execute(_WAKE, now, WOKEN_PER_ROUND))


async def open_lanes_of(tx: Transaction, first: str, end: str) -> int:
    """Open the lanes with a name from ``first`` to below ``end``; return their number."""
    return changed(
        await tx.execute(
            "UPDATE jobrunner.lanes SET state = 'open', wake_at = NULL WHERE id = ANY (ARRAY("
            " SELECT id FROM jobrunner.lanes WHERE lane >= $1 AND lane < $2 ORDER BY id FOR NO KEY UPDATE"
            ")) AND state <> 'open'",
            first,
            end,
        )
    )


# -- repair --------------------------------------------------------------------------------------------

_UNLISTED: Final = f"""
SELECT min(seq) FROM jobrunner.jobs job
WHERE {LANED} AND NOT EXISTS (
    SELECT FROM jobrunner.lanes listed JOIN jobrunner.lane_locks USING (lane)
    WHERE listed.lane = job.lane AND listed.queue = job.queue
)
GROUP BY queue, task, lane LIMIT $1"""

# A turn that lies ahead was stored before the clock was set back, and so was the end of the wait for a bucket.
_STALE: Final = f"""
SELECT id, (
    state = 'full'
    AND NOT EXISTS (
        SELECT FROM jobrunner.jobs WHERE lane = listed.lane AND state = 'running' AND lane IS NOT NULL
    )
    AND (NOT ordered OR NOT EXISTS (
        SELECT FROM jobrunner.jobs head WHERE head.seq = (
            SELECT min(seq) FROM jobrunner.jobs WHERE lane = listed.lane AND {EARLIER_IN_LANE}
        ) AND NOT (head.queue = listed.queue AND {LANED})
    ))
) OR turn > $1::bigint + 1000000 OR (state = 'empty' AND wake_at <= $1)
FROM jobrunner.lanes listed WHERE id > $2 ORDER BY id LIMIT $3"""

_OPEN: Final = """
UPDATE jobrunner.lanes SET state = 'open', wake_at = NULL, turn = least(turn, $1)
WHERE id = ANY ($2::bigint[])"""


class Faults(NamedTuple):
    """The faults that one slice of a repair has found."""

    unlisted: Sequence[int]
    """``seq`` of a queued job of each lane that the list lacks."""
    stale: Sequence[int]
    """Rows of the list that wait for nothing."""
    after: int | None
    """The last checked row of the list; None at the end."""


async def faults(tx: Transaction, after: int | None, now: int, limit: int) -> Faults:
    """Find the faults of one slice of the list, without changing anything; None begins."""
    unlisted: list[int] = []
    if after is None:
        unlisted = [seq for (seq,) in await tx.fetch(_UNLISTED, limit)]
        if len(unlisted) == limit:
            return Faults(unlisted, (), None)
    rows = await tx.fetch(_STALE, now, after or 0, limit)
    stale = [id for id, is_stale in rows if is_stale]
    return Faults(unlisted, stale, rows[-1][0] if len(rows) == limit else None)


async def prune_locks(tx: Transaction, limit: int) -> int:
    """Delete the locks of some lanes in which nothing waits; return their number.

    A transaction that adds a job to such a lane makes its lock again, and waits for this one first.
    """
    return changed(
        await tx.execute(
            "DELETE FROM jobrunner.lane_locks WHERE lane = ANY (ARRAY("
            " SELECT lane FROM jobrunner.lane_locks spare"
            " WHERE NOT EXISTS (SELECT FROM jobrunner.lanes listed WHERE listed.lane = spare.lane)"
            " ORDER BY lane LIMIT $1 FOR UPDATE SKIP LOCKED"
            "))",
            limit,
        )
    )


async def repair(tx: Transaction, found: Faults, now: int) -> int:
    """List lanes that are missing and open those that are stale; return their number."""
    opened = changed(await tx.execute(_OPEN, now, found.stale)) if found.stale else 0
    return opened + await arrived(tx, found.unlisted)
