"""Goes on with what earlier transactions have left over, slice by slice."""

import sqlite3
from typing import Final

from jobrunner.store.effects import Effects
from jobrunner.store.sqlite.sql import batches, chains, edges, followups, replays
from jobrunner.store.sqlite.sql.edges import Needed

_CANCELLED_BATCH: Final = """
SELECT f.id, f.batch FROM jobrunner_followups f JOIN jobrunner_batches b ON b.id = f.id LIMIT 1"""
_IN_CHAINS: Final = "SELECT id FROM jobrunner_followups WHERE batch IS NULL LIMIT ?"
_IN_BATCHES: Final = "SELECT id, batch FROM jobrunner_followups WHERE batch IS NOT NULL LIMIT ?"

_REPLACED: Final = """
SELECT f.id, f.batch, d.replayed_as FROM jobrunner_followups f
JOIN jobrunner_dead_letters d ON d.id = f.id AND d.replayed_as IS NOT NULL LIMIT 1"""


def go_on(conn: sqlite3.Connection, now: int, effects: Effects) -> None:
    """Do one slice, if anything is left over."""
    if followups.is_empty(conn):
        return
    batch = conn.execute(_CANCELLED_BATCH).fetchone()
    if batch is not None:
        id, seq = batch
        batches.sweep(conn, id, seq, now, effects)
    elif not _go_on_with_chains(conn, now):
        _go_on_with_edges(conn, now, effects)
    if not followups.is_empty(conn):
        effects.left_over = True


def _go_on_with_chains(conn: sqlite3.Connection, now: int) -> bool:
    ids = [id for (id,) in conn.execute(_IN_CHAINS, (followups.SLICE,)).fetchall()]
    if ids:
        # Each was cancelled in an earlier slice, and so are the jobs behind it.
        followups.done(conn, ids)
        chains.cancel_rest(conn, now, ids)
    return bool(ids)


def _go_on_with_edges(conn: sqlite3.Connection, now: int, effects: Effects) -> None:
    replaced = conn.execute(_REPLACED).fetchone()
    if replaced is not None:
        old, batch, new = replaced
        followups.done(conn, [old])
        replays.move(conn, old, new, batch, now, effects)
        return
    rows = conn.execute(_IN_BATCHES, (followups.SLICE,)).fetchall()
    ids = [id for id, _ in rows]
    followups.done(conn, ids)
    ends = edges.ends_of(conn, ids)
    edges.reconcile(conn, now, [Needed(id, batch, ends[id]) for id, batch in rows], effects)
