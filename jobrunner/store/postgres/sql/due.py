"""Expires and promotes due jobs inside an open transaction."""

from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from jobrunner.core.errors import StoreBusy
from jobrunner.store.counters import EXPIRED
from jobrunner.store.effects import Effects
from jobrunner.store.postgres.sql import ends, lanes
from jobrunner.store.postgres.sql.ends import End
from jobrunner.store.postgres.sql.savepoints import Savepoints
from jobrunner.store.postgres.sql.states import WAITING
from jobrunner.store.postgres.sql.transaction import Transaction

PROMOTED_PER_ROUND: Final = 500
"""Maximum number of jobs promoted in a round, so that 10,000 due at once do not delay the others for long."""

# Rows that another transaction holds are its business. For ``state || ''`` see states.py.
_PROMOTE: Final = """
UPDATE jobrunner.jobs SET state = 'queued' WHERE state || '' = 'scheduled' AND seq = ANY (ARRAY(
    SELECT seq FROM jobrunner.jobs WHERE state = 'scheduled' AND run_at <= $1 {} ORDER BY run_at LIMIT $2
    FOR NO KEY UPDATE SKIP LOCKED
))
RETURNING seq, lane"""
_PROMOTE_ALL: Final = _PROMOTE.format("")
_PROMOTE_PLAIN: Final = _PROMOTE.format("AND lane IS NULL")
_DUE_IN_LANES: Final = """
SELECT seq, lane FROM jobrunner.jobs WHERE state = 'scheduled' AND run_at <= $1 AND lane IS NOT NULL
ORDER BY run_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED"""
_PROMOTE_THESE: Final = """
UPDATE jobrunner.jobs SET state = 'queued' WHERE state || '' = 'scheduled' AND seq = ANY ($1::bigint[])"""
_EXPIRE: Final = f"""
UPDATE jobrunner.jobs SET state = 'expired', finished_at = $1
WHERE state || '' IN ('queued', 'scheduled') AND seq = ANY (ARRAY(
    SELECT seq FROM jobrunner.jobs
    WHERE expires_at <= $1 AND expires_at IS NOT NULL AND {WAITING}
    ORDER BY expires_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
))
RETURNING id, chain, batch, queue, task, lane"""
_NEXT: Final = f"""
SELECT least(
    (SELECT min(run_at) FROM jobrunner.jobs WHERE state = 'scheduled'),
    (SELECT min(expires_at) FROM jobrunner.jobs WHERE expires_at IS NOT NULL AND {WAITING}),
    (SELECT min(wake_at) FROM jobrunner.lanes WHERE state = 'empty'),
    CASE WHEN EXISTS (SELECT FROM jobrunner.followups) THEN 0 END
)"""


async def expire(tx: Transaction, now: int, effects: Effects) -> int:
    """Expire due jobs; return their number."""
    expired = await tx.fetch(_EXPIRE, now, PROMOTED_PER_ROUND)
    if expired:
        await tx.wait_shortly()
        tx.count(EXPIRED, [(queue, task) for *_, queue, task, _ in expired])
        await lanes.left(tx, {lane for *_, lane in expired})
        stopped = [End(id, chain, batch, "stopped") for id, chain, batch, *_ in expired]
        await ends.follow(tx, now, stopped, effects)
    return len(expired)


async def promote(tx: Transaction, now: int, effects: Effects) -> int:
    """Queue due jobs; return their number."""
    promoted = await tx.fetch(_PROMOTE_ALL, now, PROMOTED_PER_ROUND)
    laned = [seq for seq, lane in promoted if lane is not None]
    if laned:
        await tx.wait_shortly()
        await lanes.arrived(tx, laned)
    _add(effects, promoted, laned)
    return len(promoted)


async def promote_apart(
    tx: Transaction, savepoints: Savepoints, now: int, effects: Effects
) -> tuple[int, bool]:
    """Do the same, lane by lane; return also whether lanes were left, since others hold them."""
    is_left = False
    promoted = await tx.fetch(_PROMOTE_PLAIN, now, PROMOTED_PER_ROUND)
    _add(effects, promoted, ())
    due = await tx.fetch(_DUE_IN_LANES, now, PROMOTED_PER_ROUND)
    for lane, rows in groupby(sorted(due, key=itemgetter(1)), key=itemgetter(1)):
        seqs = [seq for seq, _ in rows]
        try:
            async with savepoints.item({("lane", lane)}):
                await tx.execute(_PROMOTE_THESE, seqs)
                await lanes.arrived(tx, seqs)
        except StoreBusy:
            is_left = True
        else:
            _add(effects, seqs, seqs)
    return len(promoted), is_left


def _add(effects: Effects, promoted: Any, laned: Any) -> None:
    effects.added += len(promoted)
    effects.laned += len(laned)


async def next_due(tx: Transaction) -> int | None:
    """Return the next time at which a stored job becomes due or expires."""
    found: int | None = await tx.fetchval(_NEXT)
    return found
