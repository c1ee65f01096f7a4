"""Applies replays and deletions of dead letters to batches and waiting jobs."""

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Final

from jobrunner.store.effects import Effects
from jobrunner.store.sqlite.sql import edges, followups
from jobrunner.store.sqlite.sql.edges import Needed

_CLOSED: Final = """
SELECT ids.value FROM json_each(?) ids
WHERE NOT EXISTS (SELECT 1 FROM jobrunner_batches WHERE seq = ids.value AND cancelled_at IS NULL)"""
_LEAVE: Final = (
    "UPDATE jobrunner_jobs SET batch = NULL WHERE id IN (SELECT value FROM json_each(?))"
)
_GIVE_UP: Final = """
UPDATE jobrunner_edges SET state = -1 WHERE needs IN (SELECT value FROM json_each(?)) AND state = 2"""
_REOPEN: Final = """
UPDATE jobrunner_batches SET state = 'running', ended_at = NULL
WHERE seq IN (SELECT value FROM json_each(?)) AND state = 'failed'"""

_WAITERS: Final = """
SELECT job FROM jobrunner_edges INDEXED BY jobrunner_edges_needs WHERE needs = ? LIMIT ?"""
_MOVE: Final = """
UPDATE jobrunner_edges SET needs = :new WHERE needs = :old AND job IN (SELECT value FROM json_each(:jobs))"""
_MOVE_OWN: Final = "UPDATE jobrunner_edges SET job = ? WHERE job = ?"
_MOVE_RESULTS: Final = """
UPDATE jobrunner_jobs SET handed = replace(handed, :old, :new)
WHERE id IN (SELECT value FROM json_each(:jobs)) AND handed IS NOT NULL"""
_CALLBACKS: Final = """
SELECT job FROM jobrunner_edges INDEXED BY jobrunner_edges_needs
WHERE needs = (SELECT id FROM jobrunner_batches WHERE seq = ?)"""

_DELETED: Final = (
    "UPDATE jobrunner_batches SET deleted = deleted + ? WHERE seq = ? RETURNING ended_at"
)
_FORGET_EDGES: Final = "DELETE FROM jobrunner_edges WHERE job IN (SELECT value FROM json_each(?))"


def replayed(
    conn: sqlite3.Connection, jobs: Sequence[tuple[str, int]], now: int, effects: Effects
) -> None:
    """Run the batches of replayed members again, and revive what their deaths had cancelled.

    A job of a cancelled batch leaves it: that batch stays as it is.

    Args:
        conn: the connection, in the transaction that has put the jobs back.
        jobs: id and batch of each.
        now: the current time.
        effects: notes what is left to later transactions.
    """
    batches = json.dumps(sorted({batch for _, batch in jobs}))
    closed = {seq for (seq,) in conn.execute(_CLOSED, (batches,)).fetchall()}
    leaving = json.dumps([id for id, batch in jobs if batch in closed])
    if closed:
        conn.execute(_LEAVE, (leaving,))
        conn.execute(_GIVE_UP, (leaving,))
    conn.execute(_REOPEN, (batches,))
    back = [Needed(id, batch, "unfinished") for id, batch in jobs if batch not in closed]
    edges.reconcile(conn, now, back, effects)


def takes_replays(conn: sqlite3.Connection, batch: int | None) -> bool:
    """Return whether a replayed member stays in its batch."""
    if batch is None:
        return False
    return conn.execute(_CLOSED, (json.dumps([batch]),)).fetchone() is None


def move(
    conn: sqlite3.Connection, old: str, new: str, batch: int, now: int, effects: Effects
) -> None:
    """Move one slice of edges from a dead letter to its replacement."""
    jobs = [job for (job,) in conn.execute(_WAITERS, (old, followups.SLICE)).fetchall()]
    given = {"old": old, "new": new, "jobs": json.dumps(jobs)}
    conn.execute(_MOVE, given)
    conn.execute(_MOVE_RESULTS, given)
    if len(jobs) == followups.SLICE:
        effects.left_over = followups.leave(conn, [(old, batch)])
    ends = edges.ends_of(conn, [new])
    edges.reconcile(conn, now, [Needed(new, batch, ends[new])], effects)


def replaced(
    conn: sqlite3.Connection, old: str, new: str, batch: int, now: int, effects: Effects
) -> None:
    """Give a dead letter's place in its batch to the job that replaces it."""
    conn.execute(_MOVE_OWN, (new, old))
    called = [job for (job,) in conn.execute(_CALLBACKS, (batch,)).fetchall()]
    conn.execute(_MOVE_RESULTS, {"old": old, "new": new, "jobs": json.dumps(called)})
    conn.execute(_REOPEN, (json.dumps([batch]),))
    move(conn, old, new, batch, now, effects)


def replaced_callback(conn: sqlite3.Connection, old: str, new: str) -> None:
    """Let the job that replaces a dead callback belong to the same batch."""
    conn.execute(_MOVE_OWN, (new, old))


def deleted(
    conn: sqlite3.Connection, letters: Sequence[tuple[str, int | None, str | None]]
) -> None:
    """Note that dead letters were deleted: their batches can never succeed.

    Args:
        conn: the connection, in the transaction that deletes them.
        letters: id, batch and ``replayed_as`` of each.
    """
    conn.execute(_FORGET_EDGES, (json.dumps([id for id, *_ in letters]),))
    batches = Counter(
        batch for _, batch, replayed_as in letters if batch is not None and replayed_as is None
    )
    for batch, number in batches.items():
        for (ended_at,) in conn.execute(_DELETED, (number, batch)).fetchall():
            if ended_at is not None:
                edges.call_back(conn, ended_at, batch, Effects())
