"""Unblocks or cancels the jobs behind those that end in the same transaction.

All code that ends a job calls ``follow``, so the commit that ends a job also unblocks or cancels the job behind it.
Callers leave out jobs that are in no chain.
"""

import json
import sqlite3
from collections.abc import Sequence

from jobrunner.core.model import State
from jobrunner.store.sqlite.sql.statements import CANCEL_REST, UNBLOCK


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
        conn.execute(CANCEL_REST, {"now": now, "ended": json.dumps(stopped)})
    if not done:
        return ()
    return conn.execute(UNBLOCK, {"now": now, "ended": json.dumps(done)}).fetchall()
