"""Deletes batches past their retention, with their members, edges and memos, in short slices.

As in ``retention``, a read connection finds them.  The row of the batch goes last, so that a kill between two slices
leaves nothing behind.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import Final

from jobrunner.store.sqlite.sql import history
from jobrunner.store.sqlite.sql.retention import Due, End
from jobrunner.store.sqlite.sql.statements import UNFINISHED
from jobrunner.store.workflow_rules import is_past_retention

BATCHES_PER_STEP: Final = 100

_ENDED: Final = """
SELECT ended_at, seq, id, state FROM jobrunner_batches
WHERE ended_at IS NOT NULL AND (ended_at, seq) > (?, ?) AND ended_at < ?
ORDER BY ended_at, seq LIMIT ?"""
_TASKS: Final = """
SELECT DISTINCT task FROM jobrunner_jobs INDEXED BY jobrunner_jobs_batch WHERE batch = ? AND batch IS NOT NULL"""

# A callback that waits for a success that only a replay could bring goes with the batch.
_WAITS_FOR_A_REPLAY: Final = (
    "jobrunner_edges.state = 1 AND need = 'success' AND jobrunner_jobs.state = 'blocked'"
)
_UNFINISHED_CALLBACK: Final = UNFINISHED.replace("state", "jobrunner_jobs.state")
# Somebody may still replay a dead letter, or read the results: a callback, or the job that made the batch.
_IS_USED: Final = f"""
SELECT EXISTS (
    SELECT 1 FROM jobrunner_dead_letters INDEXED BY jobrunner_dead_letters_batch
    WHERE batch = :seq AND batch IS NOT NULL AND replayed_as IS NULL AND died_at >= :died_before
) OR EXISTS (
    SELECT 1 FROM jobrunner_edges JOIN jobrunner_jobs ON id = job
    WHERE needs = :id AND {_UNFINISHED_CALLBACK} AND NOT ({_WAITS_FOR_A_REPLAY})
) OR EXISTS (
    SELECT 1 FROM jobrunner_edges JOIN jobrunner_dead_letters ON id = job
    WHERE needs = :id AND replayed_as IS NULL
)"""

_DELETE_LETTERS: Final = """
DELETE FROM jobrunner_dead_letters WHERE letter IN (
    SELECT letter FROM jobrunner_dead_letters INDEXED BY jobrunner_dead_letters_batch
    WHERE batch = ? AND batch IS NOT NULL AND replayed_as IS NULL LIMIT ?
) RETURNING seq, id"""
_DELETE_JOBS: Final = """
DELETE FROM jobrunner_jobs WHERE seq IN (
    SELECT seq FROM jobrunner_jobs INDEXED BY jobrunner_jobs_batch WHERE batch = ? AND batch IS NOT NULL LIMIT ?
) RETURNING seq, id"""
_DELETE_WAITING: Final = f"""
DELETE FROM jobrunner_jobs WHERE id IN (
    SELECT job FROM jobrunner_edges JOIN jobrunner_jobs ON id = job
    WHERE needs = (SELECT id FROM jobrunner_batches WHERE seq = ?) AND {_WAITS_FOR_A_REPLAY}
) RETURNING seq, id"""
_DELETE_EDGES: Final = "DELETE FROM jobrunner_edges WHERE job IN (SELECT value FROM json_each(?))"


def due(
    conn: sqlite3.Connection, limits: Due, died_before: int, after: End
) -> tuple[list[int], End | None]:
    """Find batches that are due, oldest first, in one step.

    A batch is due once the longest retention of the tasks of its members has passed since its end, or if its end is
    older than the finished jobs that are kept.

    Returns:
        ``seq`` of the batches, and the start of the next step (None at the end).
    """
    latest = max(
        limits.before,
        *limits.by_task.values(),
        limits.surplus.finished_at + 1 if limits.surplus else 0,
    )
    rows = conn.execute(_ENDED, (*after, latest, BATCHES_PER_STEP)).fetchall()
    found = [
        seq
        for ended_at, seq, id, _ in rows
        if _is_old(conn, limits, ended_at, seq)
        and not conn.execute(
            _IS_USED, {"seq": seq, "id": id, "died_before": died_before}
        ).fetchone()[0]
    ]
    is_last = len(rows) < BATCHES_PER_STEP
    return found, None if is_last else End(rows[-1][0], rows[-1][1])


def _is_old(conn: sqlite3.Connection, limits: Due, ended_at: int, batch: int) -> bool:
    if limits.surplus is not None and ended_at <= limits.surplus.finished_at:
        return True
    # Without retentions of their own the tasks do not matter.
    rows = conn.execute(_TASKS, (batch,)).fetchall() if limits.by_task else ()
    return is_past_retention(
        ended_at, [task for (task,) in rows], before=limits.before, by_task=limits.by_task
    )


def delete(conn: sqlite3.Connection, batch: int, limit: int) -> int:
    """Delete one slice of a due batch, unless it was opened again.

    Returns:
        The number of deleted jobs and dead letters; below ``limit`` nothing of the batch is left.
    """
    row = conn.execute(
        "SELECT 1 FROM jobrunner_batches WHERE seq = ? AND ended_at IS NOT NULL", (batch,)
    ).fetchone()
    if row is None:
        return 0
    gone: list[tuple[int, str]] = []
    for statement in (_DELETE_LETTERS, _DELETE_JOBS):
        gone += conn.execute(statement, (batch, limit - len(gone))).fetchall()
    if len(gone) < limit:
        gone += conn.execute(_DELETE_WAITING, (batch,)).fetchall()
        conn.execute("DELETE FROM jobrunner_batches WHERE seq = ?", (batch,))
    _forget(conn, gone)
    return min(len(gone), limit)


def _forget(conn: sqlite3.Connection, gone: Sequence[tuple[int, str]]) -> None:
    history.delete(conn, [(seq,) for seq, _ in gone])
    conn.execute(_DELETE_EDGES, (json.dumps([id for _, id in gone]),))
