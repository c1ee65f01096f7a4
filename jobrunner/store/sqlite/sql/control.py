"""Cancels and reschedules jobs, and pauses and resumes queues, inside an open write transaction."""

import json
import sqlite3
from collections.abc import Sequence

from jobrunner.core.errors import JobNotFound
from jobrunner.core.model import Filter, JobRow
from jobrunner.store import rules
from jobrunner.store.sqlite.sql import chains, queries
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
        conn.execute(
            "UPDATE jobrunner_jobs SET state = 'cancelled', finished_at = ? WHERE seq = ?",
            (now, row.seq),
        )
        if row.chain is not None:
            chains.follow(conn, now, stopped=[id])
    elif what == "requested":
        conn.execute("UPDATE jobrunner_jobs SET cancel_requested = 1 WHERE seq = ?", (row.seq,))
    return row


def cancel_slice(
    conn: sqlite3.Connection, seqs: Sequence[int], where: Filter, now: int
) -> tuple[list[str], list[int]]:
    """Cancel those of these jobs that still match; see ``JobStore.cancel_all``.

    Returns:
        The ids of the cancelled jobs, and ``seq`` of those that were asked to stop.
    """
    test, values = queries.job_test(where)
    found = json.dumps(seqs)
    rows = conn.execute(CANCEL_SLICE.format(test), (now, found, *values)).fetchall()
    cancelled = [id for id, _ in rows]
    chained = [id for id, chain in rows if chain is not None]
    if chained:
        cancelled += chains.cancel_rest(conn, now, chained)
    requested = conn.execute(REQUEST_SLICE.format(test), (found, *values)).fetchall()
    return cancelled, [seq for (seq,) in requested]


def reschedule(conn: sqlite3.Connection, id: str, run_at: int, now: int) -> JobRow:
    """Make a waiting job due at another time; see ``JobStore.reschedule``."""
    row = queries.get(conn, id)
    if row is None:
        raise JobNotFound(f"no job has the id {id}; it may be past its retention")
    after = rules.rescheduled(row, run_at, now)
    conn.execute(RESCHEDULE, (after.state, after.run_at, after.seq))
    return after


def cancel_requests(conn: sqlite3.Connection, worker: int) -> Sequence[tuple[int, int]]:
    return conn.execute(CANCEL_REQUESTS, (worker,)).fetchall()


def pause(conn: sqlite3.Connection, queue: str, now: int) -> None:
    conn.execute(
        "INSERT INTO jobrunner_paused_queues VALUES (?, ?) ON CONFLICT (queue) DO NOTHING",
        (queue, now),
    )


def resume(conn: sqlite3.Connection, queue: str) -> None:
    conn.execute("DELETE FROM jobrunner_paused_queues WHERE queue = ?", (queue,))
