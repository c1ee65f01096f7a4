"""Cancels jobs, and pauses and resumes queues, inside an open write transaction."""

import sqlite3
from collections.abc import Sequence

from jobrunner.core.model import JobRow
from jobrunner.store import rules
from jobrunner.store.sqlite.sql import chains, queries
from jobrunner.store.sqlite.sql.statements import CANCEL_REQUESTS


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


def cancel_requests(conn: sqlite3.Connection, worker: int) -> Sequence[tuple[int, int]]:
    return conn.execute(CANCEL_REQUESTS, (worker,)).fetchall()


def pause(conn: sqlite3.Connection, queue: str, now: int) -> None:
    conn.execute(
        "INSERT INTO jobrunner_paused_queues VALUES (?, ?) ON CONFLICT (queue) DO NOTHING",
        (queue, now),
    )


def resume(conn: sqlite3.Connection, queue: str) -> None:
    conn.execute("DELETE FROM jobrunner_paused_queues WHERE queue = ?", (queue,))
