"""Cancels and reschedules jobs, and pauses and resumes queues, inside an open write transaction."""

import json
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from jobrunner.core.errors import InvalidOptions, JobNotFound
from jobrunner.core.model import Filter, JobRow
from jobrunner.store import rules
from jobrunner.store.counters import CANCELLED
from jobrunner.store.effects import Effects
from jobrunner.store.sqlite.sql import (
    chains,
    counters,
    ends,
    followups,
    lanes,
    queries,
    steps,
)
from jobrunner.store.sqlite.sql.ends import End
from jobrunner.store.sqlite.sql.statements import (
    CANCEL_REQUESTS,
    CANCEL_SLICE,
    REQUEST_SLICE,
    RESCHEDULE,
)


def cancel(conn: sqlite3.Connection, id: str, now: int) -> JobRow | None:
    row = queries.get(conn, id)
    if row is None:
        return None
    what = rules.on_cancel(row.state)
    if what == "cancelled":
        ((batch,),) = conn.execute(
            "UPDATE jobrunner_jobs SET state = 'cancelled', finished_at = ? WHERE seq = ?"
            " RETURNING batch",
            (now, row.seq),
        ).fetchall()
        lanes.left(conn, [row.lane])
        counters.count(conn, CANCELLED, [(row.queue, row.task)])
        ends.follow(conn, now, [End(id, row.chain, batch, "stopped")], Effects())
    elif what == "requested":
        conn.execute("UPDATE jobrunner_jobs SET cancel_requested = 1 WHERE seq = ?", (row.seq,))
    return row


class CancelledJobs(NamedTuple):
    """The result of a transaction that cancels jobs by a filter."""

    cancelled: Sequence[str]
    """Ids."""
    requested: Sequence[int] = ()
    """``seq`` of the jobs that were asked to stop."""
    left: Sequence[str] = ()
    """Ids of cancelled jobs in chains whose followers are still to be cancelled."""


def cancel_slice(
    conn: sqlite3.Connection, seqs: Sequence[int], where: Filter, now: int
) -> CancelledJobs:
    """Cancel those of these jobs that still match; see ``JobStore.cancel_all``."""
    test, values = queries.job_test(where)
    found = json.dumps(seqs)
    rows = conn.execute(CANCEL_SLICE.format(test), (now, found, *values)).fetchall()
    counters.count(conn, CANCELLED, [(queue, task) for *_, queue, task, _ in rows])
    lanes.left(conn, {lane for *_, lane in rows})
    requested = conn.execute(REQUEST_SLICE.format(test), (found, *values)).fetchall()
    stopped = [End(id, None, batch, "stopped") for id, _, batch, *_ in rows]
    if stopped:
        ends.follow(conn, now, stopped, Effects())
    chained = [id for id, chain, *_ in rows if chain is not None]
    behind = chains.cancel_rest(conn, now, chained) if chained else chains.NOTHING
    return CancelledJobs(
        [*(id for id, *_ in rows), *behind.cancelled], [seq for (seq,) in requested], behind.left
    )


def cancel_behind(conn: sqlite3.Connection, left: Sequence[str], now: int) -> CancelledJobs:
    """Cancel the next slice of the jobs in chains that ``cancel_slice`` has left."""
    followups.done(conn, left)
    behind = chains.cancel_rest(conn, now, left)
    return CancelledJobs(behind.cancelled, left=behind.left)


def reschedule(conn: sqlite3.Connection, id: str, run_at: int, now: int) -> JobRow:
    """Make a waiting job due at another time; see ``JobStore.reschedule``."""
    row = queries.get(conn, id)
    if row is None:
        raise JobNotFound(f"no job has the id {id}; it may be past its retention")
    after = rules.rescheduled(row, run_at, now, steps.waits_of(conn, [row]).get(row.seq))
    conn.execute(RESCHEDULE, (after.state, after.run_at, after.seq))
    if row.lane is not None:
        lanes.left(conn, [row.lane])
        lanes.arrived(conn, [row.seq])
    # Read again: whether it is retrying now follows from its history.
    return queries.get(conn, id) or after


def plan_reschedule(
    conn: sqlite3.Connection, seqs: Sequence[int], where: Filter, run_at: int, now: int
) -> tuple[int, int]:
    """Count what ``reschedule_slice`` would do."""
    changes, expiring = _rescheduled(conn, seqs, where, run_at, now)
    return len(changes), expiring


def reschedule_slice(
    conn: sqlite3.Connection, seqs: Sequence[int], where: Filter, run_at: int, now: int
) -> tuple[int, int]:
    """Reschedule those of these jobs that still match; see ``JobStore.reschedule_all``.

    Returns:
        The numbers of jobs that are due at the new time, and of those that would expire before it.
    """
    changes, expiring = _rescheduled(conn, seqs, where, run_at, now)
    # Many are due already and stay as they are.
    changed = [after for before, after in changes if after != before]
    conn.executemany(RESCHEDULE, [(job.state, job.run_at, job.seq) for job in changed])
    laned = [job for job in changed if job.lane is not None]
    if laned:
        lanes.left(conn, {job.lane for job in laned})
        lanes.arrived(conn, [job.seq for job in laned])
    return len(changes), expiring


def _rescheduled(
    conn: sqlite3.Connection, seqs: Sequence[int], where: Filter, run_at: int, now: int
) -> tuple[list[tuple[JobRow, JobRow]], int]:
    """Return each waiting job before and after, and how many would expire."""
    changes: list[tuple[JobRow, JobRow]] = []
    expiring = 0
    rows = queries.waiting(conn, seqs, where)
    parked = steps.waits_of(conn, rows)
    for before in rows:
        if before.seq in parked:
            continue
        try:
            changes.append((before, rules.rescheduled(before, run_at, now)))
        except InvalidOptions:
            expiring += 1
    return changes, expiring


def cancel_requests(conn: sqlite3.Connection, worker: int) -> Sequence[tuple[int, int]]:
    return conn.execute(CANCEL_REQUESTS, (worker,)).fetchall()


def pause(conn: sqlite3.Connection, queue: str, now: int) -> None:
    conn.execute(
        "INSERT INTO jobrunner_paused_queues VALUES (?, ?) ON CONFLICT (queue) DO NOTHING",
        (queue, now),
    )


def resume(conn: sqlite3.Connection, queue: str) -> None:
    conn.execute("DELETE FROM jobrunner_paused_queues WHERE queue = ?", (queue,))
