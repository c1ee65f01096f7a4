"""Lets go or cancels the jobs behind those that have ended, inside the transaction that ends them.

Every place where a job ends calls the one function here, so that a follower is never left behind: it is let go, or
cancelled, by the very commit that ends the job before it.  A job that is in no chain is not asked about.
"""

import json
import sqlite3
from collections.abc import Sequence

from jobrunner.core.model import State
from jobrunner.store.sqlite.sql.statements import CANCEL_REST, LET_GO


def follow(
    conn: sqlite3.Connection, now: int, *, done: Sequence[str] = (), stopped: Sequence[str] = ()
) -> Sequence[tuple[State, int, int | None]]:
    """Let go the job behind each that is done; cancel all that wait behind each that was stopped.

    Args:
        conn: inside the transaction in which the jobs end.
        now: the present.
        done: ids of jobs that have succeeded or are dead.
        stopped: ids of jobs that were cancelled or have expired.

    Returns:
        State, due time and expiry of each job that was let go.
    """
    if stopped:
        conn.execute(CANCEL_REST, {"now": now, "ended": json.dumps(stopped)})
    if not done:
        return ()
    return conn.execute(LET_GO, {"now": now, "ended": json.dumps(done)}).fetchall()
