"""Stores and cancels batches inside an open write transaction."""

import json
import sqlite3
from collections.abc import Collection, Sequence
from typing import Final

from jobrunner.core.errors import BatchEnded, InvalidBatch
from jobrunner.core.model import BatchEnqueue, Enqueue, NewBatch
from jobrunner.core.workflows import BatchEnqueued, BatchRow
from jobrunner.store.counters import CANCELLED
from jobrunner.store.effects import Effects
from jobrunner.store.sqlite.sql import batch_rows, counters, edges, followups, insert, lanes
from jobrunner.store.sqlite.sql.edges import Needed
from jobrunner.store.sqlite.sql.statements import UNFINISHED
from jobrunner.store.workflow_rules import require_stored

_INSERT: Final = """
INSERT INTO jobrunner_batches (id, name, state, created_at, parent) VALUES (?, ?, 'running', ?, ?) RETURNING seq"""
_TAKES_MEMBERS: Final = """
SELECT seq FROM jobrunner_batches WHERE id = ? AND ended_at IS NULL AND cancelled_at IS NULL"""
_MEMBERS: Final = """
SELECT value, j.batch IS ? OR d.batch IS ? FROM json_each(?)
LEFT JOIN jobrunner_jobs j ON j.id = value LEFT JOIN jobrunner_dead_letters d ON d.id = value"""

_CANCEL: Final = """
UPDATE jobrunner_batches SET cancelled_at = ?
WHERE {} AND ended_at IS NULL AND cancelled_at IS NULL RETURNING id, seq"""
_CANCEL_ONE: Final = _CANCEL.format("id = ?")
_CANCEL_CHILDREN: Final = _CANCEL.format("parent IN (SELECT value FROM json_each(?))")

# Of all running jobs, which are few: those of the batch are found by no index of their own.
_REQUEST: Final = """
UPDATE jobrunner_jobs INDEXED BY jobrunner_jobs_running SET cancel_requested = 1
WHERE state = 'running' AND batch IN (SELECT value FROM json_each(?)) AND cancel_requested = 0"""
_CANCEL_WAITING: Final = f"""
UPDATE jobrunner_jobs SET state = 'cancelled', finished_at = ?
WHERE seq IN (
    SELECT seq FROM jobrunner_jobs INDEXED BY jobrunner_jobs_batch_unfinished
    WHERE batch = ? AND batch IS NOT NULL AND {UNFINISHED} AND state <> 'running' LIMIT ?
)
RETURNING id, queue, task, lane"""
_IS_CANCELLED: Final = """
SELECT id, seq FROM jobrunner_batches
WHERE seq IN (SELECT value FROM json_each(?)) AND cancelled_at IS NOT NULL AND ended_at IS NULL"""


def enqueue(
    conn: sqlite3.Connection, request: BatchEnqueue, now: int, effects: Effects
) -> BatchEnqueued:
    """Store the jobs and edges of one call.

    After an error the caller rolls back, to a savepoint or wholly.

    Raises:
        BatchEnded: The batch has ended or was cancelled.
        KeyTaken: Another job holds the key of a callback, or of a job that waits for others or others wait for.
        InvalidBatch: An edge needs a job outside the batch.
    """
    if isinstance(request.batch, NewBatch):
        new = request.batch
        ((seq,),) = conn.execute(_INSERT, (new.id, new.name, new.created_at, new.parent)).fetchall()
        batch = new.id
    else:
        batch = request.batch
        seq = _taking_members(conn, batch)
    blocked = {edge.job for edge in request.edges}
    members = insert.members(conn, request.members, now, batch=seq, blocked=blocked)
    callbacks = insert.members(conn, request.callbacks, now, batch=None, blocked=blocked)
    require_stored(request, members, callbacks)
    effects.add_stored(request.members, members)
    effects.add_stored(request.callbacks, callbacks)
    if request.edges:
        edges.insert(conn, request.edges)
        new_ids = {job.id for job in request.members}
        before = {edge.needs for edge in request.edges} - new_ids - {batch}
        _reconcile_with(conn, now, seq, before, effects)
    if not any(job.created for job in members):
        edges.finish(conn, now, [seq], effects)
    return BatchEnqueued(members, callbacks)


def _taking_members(conn: sqlite3.Connection, id: str) -> int:
    row = conn.execute(_TAKES_MEMBERS, (id,)).fetchone()
    if row is None:
        raise BatchEnded(
            f"batch {id} has ended or was cancelled, and takes no more jobs: enqueue another batch"
        )
    return int(row[0])


def _reconcile_with(
    conn: sqlite3.Connection, now: int, batch: int, before: Collection[str], effects: Effects
) -> None:
    """Bring new edges in line with what has become of older members."""
    if not before:
        return
    found = conn.execute(_MEMBERS, (batch, batch, json.dumps(sorted(before)))).fetchall()
    unknown = [id for id, is_member in found if not is_member]
    if unknown:
        raise InvalidBatch(
            f"{unknown[0]} is no job of the batch: a job waits for jobs of its own batch only"
        )
    ends = edges.ends_of(conn, sorted(before))
    edges.reconcile(conn, now, [Needed(id, batch, end) for id, end in ends.items()], effects)


def added(conn: sqlite3.Connection, jobs: Sequence[Enqueue], effects: Effects) -> None:
    """Cancel members again that a running member has added to a cancelled batch."""
    batches = {job.batch for job in jobs if job.batch is not None}
    if batches:
        rows = conn.execute(_IS_CANCELLED, (json.dumps(sorted(batches)),)).fetchall()
        effects.left_over = followups.leave(conn, rows) or effects.left_over


def cancel(conn: sqlite3.Connection, id: str, now: int) -> BatchRow | None:
    """Request the cancel of a batch, whatever its size; return it as it was before."""
    row = batch_rows.get(conn, id)
    _cancelling(conn, conn.execute(_CANCEL_ONE, (now, id)).fetchall(), Effects())
    return row


def cancel_children(
    conn: sqlite3.Connection, parents: Sequence[str], now: int, effects: Effects
) -> None:
    """Request the cancel of the batches that these jobs have made and wait for."""
    rows = conn.execute(_CANCEL_CHILDREN, (now, json.dumps(parents))).fetchall()
    _cancelling(conn, rows, effects)


def _cancelling(
    conn: sqlite3.Connection, rows: Sequence[tuple[str, int]], effects: Effects
) -> None:
    if not rows:
        return
    conn.execute(_REQUEST, (json.dumps([seq for _, seq in rows]),))
    effects.left_over = followups.leave(conn, rows) or effects.left_over


def sweep(conn: sqlite3.Connection, id: str, batch: int, now: int, effects: Effects) -> None:
    """Cancel one slice of the waiting members of a cancelled batch.

    Running members are asked to stop.
    """
    gone = conn.execute(_CANCEL_WAITING, (now, batch, followups.SLICE)).fetchall()
    counters.count(conn, CANCELLED, [(queue, task) for _, queue, task, _ in gone])
    effects.added += lanes.left(conn, {lane for *_, lane in gone})
    ids = [job for job, *_ in gone]
    # Whoever waits for one of these is a member too, and goes as well.
    edges.void(conn, ids)
    if ids:
        cancel_children(conn, ids, now, effects)
    if len(gone) == followups.SLICE:
        effects.left_over = True
        return
    conn.execute(_REQUEST, (json.dumps([batch]),))
    followups.done(conn, [id])
    edges.finish(conn, now, [batch], effects)
