"""Unblocks or cancels the jobs behind those that end in the same transaction.

All code that ends a job calls ``follow``, so the commit that ends a job also unblocks or cancels the job behind it.
Callers leave out jobs that are in no chain.
"""

import json
import sqlite3
from collections.abc import Sequence

from jobrunner.core.model import State
from jobrunner.store.sqlite.sql.statements import CANCEL_REST, COUNT_REST, UNBLOCK


def follow(
    conn: sqlite3.Connection, now: int, *, done: Sequence[str] = (), stopped: Sequence[str] = ()
) -> Sequence[tuple[State, int, int | None]]:
    """Unblock the job behind each done one; cancel all jobs behind each stopped one.

    Args:
        conn: the connection, in the transaction that ends the jobs.
        now: the current time.
        done: ids of jobs that succeeded or died.
        stopped: ids of jobs that were cancelled or expired.

    Returns:
        State, due time and expiry of each unblocked job.
    """
    if stopped:
        cancel_rest(conn, now, stopped)
    if not done:
        return ()
    return conn.execute(UNBLOCK, {"now": now, "ended": json.dumps(done)}).fetchall()


def cancel_rest(conn: sqlite3.Connection, now: int, stopped: Sequence[str]) -> list[str]:
    """Cancel all jobs behind each stopped one; return their ids."""
    rows = conn.execute(CANCEL_REST, {"now": now, "ended": json.dumps(stopped)}).fetchall()
    return [id for (id,) in rows]


def count_rest(
    conn: sqlite3.Connection, ids: Sequence[str], test: str, values: Sequence[str | int]
) -> int:
    """Count the jobs behind these, up to the first that passes a test."""
    row = conn.execute(COUNT_REST.format(test), (json.dumps(ids), *values, *values)).fetchone()
    return int(row[0])
