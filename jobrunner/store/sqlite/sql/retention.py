"""Deletes jobs and dead letters past their retention, in short slices.

A read connection finds the rows, since many rows that stay may lie between them; the write lock is held only for the
deletion, so that claims do not wait.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from jobrunner.core.clock import now_s
from jobrunner.store.sqlite.sql import history, walks
from jobrunner.store.sqlite.sql.statements import FINISHED

ROWS_PER_STEP: Final = 1_000


# Of callbacks, and of jobs that have made batches: the edges of members go with the batch.
_FORGET_EDGES: Final = """
DELETE FROM jobrunner_edges
WHERE job IN (SELECT id FROM jobrunner_jobs WHERE seq IN (SELECT value FROM json_each(?)))"""


class End(NamedTuple):
    """A position among the finished jobs, ordered by ``(finished_at, seq)``."""

    finished_at: int
    seq: int


OLDEST: Final = End(-(2**63), 0)
"""The position before all finished jobs."""


class Due(NamedTuple):
    """The limits that make a finished job due for deletion."""

    before: int
    """Jobs that finished before this time are due."""
    by_task: Mapping[str, int]
    """Overrides ``before`` for tasks with their own retention."""
    surplus: End | None
    """Jobs up to this position are due too, since there are too many."""


def surplus(conn: sqlite3.Connection, keep: int) -> End | None:
    """Return the newest finished job beyond the ``keep`` newest; None if there is none."""
    lowest, highest = conn.execute(
        "SELECT (SELECT min(seq) FROM jobrunner_jobs), (SELECT max(seq) FROM jobrunner_jobs)"
    ).fetchone()
    if lowest is None or highest - lowest < keep:
        return None
    row = conn.execute(
        f"""
        SELECT finished_at, seq FROM jobrunner_jobs WHERE {FINISHED}
        ORDER BY finished_at DESC, seq DESC LIMIT 1 OFFSET ?
        """,
        (keep,),
    ).fetchone()
    return None if row is None else End(*row)


def finished(
    conn: sqlite3.Connection, due: Due, after: End, limit: int
) -> tuple[list[int], End | None]:
    """Find finished jobs that are due, oldest first, until the step's time is up.

    Returns:
        ``seq`` of at most ``limit`` jobs, and the start of the next step (None at the end).
    """
    latest = max(
        due.before, *due.by_task.values(), due.surplus.finished_at + 1 if due.surplus else 0
    )
    found: list[int] = []
    end_s = now_s() + walks.STEP_S
    while True:
        rows = conn.execute(
            f"""
            SELECT finished_at, seq, task, batch FROM jobrunner_jobs
            WHERE {FINISHED} AND (finished_at, seq) > (?, ?) AND finished_at < ?
            ORDER BY finished_at, seq LIMIT {ROWS_PER_STEP}
            """,
            (*after, latest),
        ).fetchall()
        for finished_at, seq, task, batch in rows:
            after = End(finished_at, seq)
            if batch is not None:
                continue  # It goes with its batch.
            is_surplus = due.surplus is not None and after <= due.surplus
            if is_surplus or finished_at < due.by_task.get(task, due.before):
                found.append(seq)
                if len(found) == limit:
                    return found, after
        if len(rows) < ROWS_PER_STEP:
            return found, None
        if now_s() >= end_s:
            return found, after


def dead_letters(conn: sqlite3.Connection, before: int, limit: int) -> Sequence[int]:
    """Return the dead letters that died before a time, oldest first."""
    rows = conn.execute(
        "SELECT letter FROM jobrunner_dead_letters"
        " WHERE died_at < ? AND (batch IS NULL OR replayed_as IS NOT NULL) ORDER BY died_at LIMIT ?",
        (before, limit),
    )
    return [letter for (letter,) in rows]


def delete(conn: sqlite3.Connection, jobs: Sequence[int], letters: Sequence[int]) -> int:
    """Delete jobs and dead letters with their attempts; return the number of deleted rows."""
    # A finished job stays finished, but a dead letter may have been replayed since it was found, under the same seq.
    gone = [
        conn.execute(
            "DELETE FROM jobrunner_dead_letters WHERE letter = ? RETURNING seq", (letter,)
        ).fetchone()
        for letter in letters
    ]
    rows = [(seq,) for seq in jobs] + [row for row in gone if row is not None]
    conn.execute(_FORGET_EDGES, (json.dumps(jobs),))
    deleted = conn.executemany(
        "DELETE FROM jobrunner_jobs WHERE seq = ?", [(seq,) for seq in jobs]
    ).rowcount
    history.delete(conn, rows)
    return deleted + sum(row is not None for row in gone)
