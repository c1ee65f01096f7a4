"""Cancels and reschedules jobs, and pauses and resumes queues, inside an open transaction."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from jobrunner.core.errors import InvalidOptions, JobNotFound
from jobrunner.core.model import Filter, JobRow
from jobrunner.store import rules
from jobrunner.store.counters import CANCELLED
from jobrunner.store.effects import Effects
from jobrunner.store.postgres.sql import batch_locks, chains, ends, followups, lanes, queries, steps
from jobrunner.store.postgres.sql.ends import End
from jobrunner.store.postgres.sql.transaction import Transaction

# Read after it: what another transaction has committed about the row until the lock was there is seen.
_LOCK: Final = "SELECT FROM jobrunner.jobs WHERE id = $1 FOR NO KEY UPDATE"
_LOCK_SLICE: Final = (
    "SELECT FROM jobrunner.jobs WHERE seq = ANY ($1::bigint[]) ORDER BY seq FOR NO KEY UPDATE"
)


class CancelledJobs(NamedTuple):
    """The result of a transaction that cancels jobs by a filter."""

    cancelled: Sequence[str]
    """Ids."""
    requested: Sequence[int] = ()
    """``seq`` of the jobs that were asked to stop."""
    left: Sequence[str] = ()
    """Ids of cancelled jobs in chains whose followers are still to be cancelled."""


async def _locked(tx: Transaction, id: str) -> JobRow | None:
    """Lock a job after its batches; return it as it is then, or a dead letter."""
    if "\0" not in id:
        await batch_locks.hold_of_job(tx, id)
        await tx.execute(_LOCK, id)
    return await queries.get(tx, id)


async def cancel(tx: Transaction, id: str, now: int) -> JobRow | None:
    """Cancel a waiting job or ask a running one to stop; see ``JobStore.cancel``."""
    row = await _locked(tx, id)
    if row is None:
        return None
    what = rules.on_cancel(row.state)
    if what == "cancelled":
        batch = await tx.fetchval(
            "UPDATE jobrunner.jobs SET state = 'cancelled', finished_at = $2 WHERE seq = $1 RETURNING batch",
            *(row.seq, now),
        )
        await lanes.left(tx, [row.lane])
        tx.count(CANCELLED, [(row.queue, row.task)])
        await ends.follow(tx, now, [End(id, row.chain, batch, "stopped")], Effects())
    elif what == "requested":
        await tx.execute(
            "UPDATE jobrunner.jobs SET cancel_requested = true WHERE seq = $1", row.seq
        )
    return row


async def cancel_slice(
    tx: Transaction, seqs: Sequence[int], where: Filter, now: int
) -> CancelledJobs:
    """Cancel those of these jobs that still match; see ``JobStore.cancel_all``."""
    await batch_locks.hold_of_rows(tx, seqs)
    await tx.execute(_LOCK_SLICE, seqs)
    test = queries.job_test(where, first=3)
    rows = await tx.fetch(
        "UPDATE jobrunner.jobs SET state = 'cancelled', finished_at = $2 WHERE seq = ANY ($1::bigint[])"
        f" AND state IN ('scheduled', 'queued', 'blocked') AND {test.text}"
        " RETURNING id, chain, batch, queue, task, lane",
        *(seqs, now, *test.values),
    )
    tx.count(CANCELLED, [(queue, task) for *_, queue, task, _ in rows])
    await lanes.left(tx, {lane for *_, lane in rows})
    test = queries.job_test(where, first=2)
    requested = await tx.fetch(
        "UPDATE jobrunner.jobs SET cancel_requested = true WHERE seq = ANY ($1::bigint[])"
        f" AND state = 'running' AND {test.text} RETURNING seq",
        *(seqs, *test.values),
    )
    stopped = [End(id, None, batch, "stopped") for id, _, batch, *_ in rows]
    if stopped:
        await ends.follow(tx, now, stopped, Effects())
    chained = [id for id, chain, *_ in rows if chain is not None]
    behind = await chains.cancel_rest(tx, now, chained) if chained else chains.NOTHING
    cancelled = [*(id for id, *_ in rows), *behind.cancelled]
    return CancelledJobs(cancelled, [seq for (seq,) in requested], behind.left)


async def cancel_behind(tx: Transaction, left: Sequence[str], now: int) -> CancelledJobs:
    """Cancel the next slice of the jobs in chains that ``cancel_slice`` has left."""
    await followups.done(tx, left)
    behind = await chains.cancel_rest(tx, now, left)
    return CancelledJobs(behind.cancelled, left=behind.left)


async def reschedule(tx: Transaction, id: str, run_at: int, now: int) -> JobRow:
    """Make a waiting job due at another time; see ``JobStore.reschedule``."""
    row = await _locked(tx, id)
    if row is None:
        raise JobNotFound(f"no job has the id {id}; it may be past its retention")
    after = rules.rescheduled(row, run_at, now, (await steps.waits_of(tx, [row])).get(row.seq))
    await tx.execute(
        "UPDATE jobrunner.jobs SET state = $1, run_at = $2 WHERE seq = $3",
        *(after.state, after.run_at, after.seq),
    )
    if row.lane is not None:
        await lanes.left(tx, [row.lane])
        await lanes.arrived(tx, [row.seq])
    # Read again: whether it is retrying now follows from its history.
    return await queries.get(tx, id) or after


async def plan_reschedule(
    tx: Transaction, seqs: Sequence[int], where: Filter, run_at: int, now: int
) -> tuple[int, int]:
    """Count what ``reschedule_slice`` would do."""
    changes, expiring = await _rescheduled(tx, seqs, where, run_at, now)
    return len(changes), expiring


async def reschedule_slice(
    tx: Transaction, seqs: Sequence[int], where: Filter, run_at: int, now: int
) -> tuple[int, int]:
    """Reschedule those of these jobs that still match; see ``JobStore.reschedule_all``.

    Returns:
        The numbers of jobs that are due at the new time, and of those that would expire before it.
    """
    await tx.execute(_LOCK_SLICE, seqs)
    changes, expiring = await _rescheduled(tx, seqs, where, run_at, now)
    # Many are due already and stay as they are.
    changed = [after for before, after in changes if after != before]
    if changed:
        await tx.execute(
            "UPDATE jobrunner.jobs job SET state = d.state, run_at = d.run_at"
            " FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS d (seq, state, run_at) WHERE job.seq = d.seq",
            *zip(*((job.seq, job.state, job.run_at) for job in changed), strict=True),
        )
    laned = [job for job in changed if job.lane is not None]
    await lanes.left(tx, {job.lane for job in laned})
    await lanes.arrived(tx, [job.seq for job in laned])
    return len(changes), expiring


async def _rescheduled(
    tx: Transaction, seqs: Sequence[int], where: Filter, run_at: int, now: int
) -> tuple[list[tuple[JobRow, JobRow]], int]:
    """Return each waiting job before and after; and the number that would expire."""
    changes: list[tuple[JobRow, JobRow]] = []
    expiring = 0
    rows = await queries.waiting(tx, seqs, where)
    parked = await steps.waits_of(tx, rows)
    for before in rows:
        if before.seq in parked:
            continue
        try:
            changes.append((before, rules.rescheduled(before, run_at, now)))
        except InvalidOptions:
            expiring += 1
    return changes, expiring


async def cancel_requests(tx: Transaction, worker: int) -> Sequence[tuple[int, int]]:
    """Return ``(seq, lease)`` of the worker's running jobs that were asked to stop."""
    rows = await tx.fetch(
        "SELECT seq, lease FROM jobrunner.jobs WHERE state = 'running' AND cancel_requested AND worker = $1",
        worker,
    )
    return [(seq, lease) for seq, lease in rows]


async def pause(tx: Transaction, queue: str, now: int) -> None:
    """Stop claims from a queue."""
    await tx.execute(
        "INSERT INTO jobrunner.paused_queues VALUES ($1, $2) ON CONFLICT (queue) DO NOTHING",
        *(queue, now),
    )


async def resume(tx: Transaction, queue: str) -> None:
    """Undo ``pause``."""
    await tx.execute("DELETE FROM jobrunner.paused_queues WHERE queue = $1", queue)
