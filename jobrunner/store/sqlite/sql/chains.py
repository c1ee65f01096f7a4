"""Unblocks or cancels the jobs behind those that end in a chain."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

from jobrunner.store.counters import CANCELLED
from jobrunner.store.effects import Effects
from jobrunner.store.sqlite.sql import counters, followups, lanes
from jobrunner.store.sqlite.sql.statements import (
    CANCEL_REST,
    COUNT_REST,
    STILL_BLOCKED,
    STOPPED_BY_DEATH,
    UNBLOCK,
)


def follow(
    conn: sqlite3.Connection,
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
        conn: the connection, in the transaction that ends the jobs.
        now: the current time.
        succeeded: ids of jobs of chains that succeeded.
        died: ids of those that died.
        stopped: ids of those that were cancelled or expired.
        effects: notes the unblocked jobs.
    """
    if died:
        rows = conn.execute(STOPPED_BY_DEATH, (json.dumps(died),)).fetchall()
        stopped = [*stopped, *(id for (id,) in rows)]
    if stopped:
        behind = cancel_rest(conn, now, stopped)
        effects.left_over = effects.left_over or bool(behind.left)
    done = [*succeeded, *died]
    if done:
        unblocked = conn.execute(UNBLOCK, {"now": now, "ended": json.dumps(done)}).fetchall()
        lanes.arrived(conn, [seq for *_, seq, lane in unblocked if lane is not None])
        for state, run_at, expires_at, *_ in unblocked:
            effects.add(state, run_at, expires_at)


class Behind(NamedTuple):
    """The jobs behind stopped ones that one transaction has cancelled."""

    cancelled: Sequence[str]
    """Their ids."""
    left: Sequence[str]
    """Ids of jobs whose followers are left to later transactions."""


NOTHING: Final = Behind((), ())


def cancel_rest(conn: sqlite3.Connection, now: int, stopped: Sequence[str]) -> Behind:
    """Cancel the jobs behind each stopped one, up to the size of a slice."""
    given = {"now": now, "ended": json.dumps(stopped), "limit": followups.SLICE}
    rows = conn.execute(CANCEL_REST, given).fetchall()
    counters.count(conn, CANCELLED, [(queue, task) for _, queue, task in rows])
    cancelled = [id for id, _, _ in rows]
    if len(rows) < followups.SLICE:
        return Behind(cancelled, ())
    rest = conn.execute(STILL_BLOCKED, (json.dumps([*stopped, *cancelled]),)).fetchall()
    left = [id for (id,) in rest]
    followups.leave(conn, [(id, None) for id in left])
    return Behind(cancelled, left)


def count_rest(
    conn: sqlite3.Connection, ids: Sequence[str], test: str, values: Sequence[str | int]
) -> int:
    """Count the jobs behind these, up to the first that passes a test."""
    row = conn.execute(COUNT_REST.format(test), (json.dumps(ids), *values, *values)).fetchone()
    return int(row[0])
