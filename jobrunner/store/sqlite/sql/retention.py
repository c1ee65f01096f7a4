"""Deletes jobs and dead letters that are past their time, in slices so short that no claim waits for them.

What is to go is found by a reader, since rows that stay may have to be stepped over; the write lock is held to delete.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from jobrunner.core.clock import now_s
from jobrunner.store.sqlite.sql import walks
from jobrunner.store.sqlite.sql.statements import FINISHED

ROWS_PER_LOOK: Final = 1_000


class End(NamedTuple):
    """A place among the finished jobs: those that ended at one instant are in order of age."""

    finished_at: int
    seq: int


OLDEST: Final = End(-(2**63), 0)
"""Before all of them."""


class Due(NamedTuple):
    """The ages from which on finished jobs are past their time."""

    before: int
    """Those that ended earlier."""
    by_task: Mapping[str, int]
    """The same, for tasks with a retention of their own."""
    surplus: End | None
    """Those up to here, since there are too many."""


def surplus(conn: sqlite3.Connection, keep: int) -> End | None:
    """Return the place up to which finished jobs are more than ``keep``, None if they are not."""
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
    """Find finished jobs that are past their time, the oldest first, until the step's time is up.

    Returns:
        Their numbers, ``limit`` at most, and where the next step begins; None at the end.
    """
    latest = max(
        due.before, *due.by_task.values(), due.surplus.finished_at + 1 if due.surplus else 0
    )
    found: list[int] = []
    end_s = now_s() + walks.STEP_S
    while True:
        rows = conn.execute(
            f"""
            SELECT finished_at, seq, task FROM jobrunner_jobs
            WHERE {FINISHED} AND (finished_at, seq) > (?, ?) AND finished_at < ?
            ORDER BY finished_at, seq LIMIT {ROWS_PER_LOOK}
            """,
            (*after, latest),
        ).fetchall()
        for finished_at, seq, task in rows:
            after = End(finished_at, seq)
            is_surplus = due.surplus is not None and after <= due.surplus
            if is_surplus or finished_at < due.by_task.get(task, due.before):
                found.append(seq)
                if len(found) == limit:
                    return found, after
        if len(rows) < ROWS_PER_LOOK:
            return found, None
        if now_s() >= end_s:
            return found, after


def dead_letters(conn: sqlite3.Connection, before: int, limit: int) -> Sequence[int]:
    """Return dead letters that died before an instant, the oldest first."""
    rows = conn.execute(
        "SELECT letter FROM jobrunner_dead_letters WHERE died_at < ? ORDER BY died_at LIMIT ?",
        (before, limit),
    )
    return [letter for (letter,) in rows]


def delete(conn: sqlite3.Connection, jobs: Sequence[int], letters: Sequence[int]) -> int:
    """Delete finished jobs and dead letters with their attempts; return how many were there still."""
    # A finished job stays so, but a dead letter may have been put back meanwhile, under the same number.
    gone = [
        conn.execute(
            "DELETE FROM jobrunner_dead_letters WHERE letter = ? RETURNING seq", (letter,)
        ).fetchone()
        for letter in letters
    ]
    rows = [(seq,) for seq in jobs] + [row for row in gone if row is not None]
    deleted = conn.executemany(
        "DELETE FROM jobrunner_jobs WHERE seq = ?", [(seq,) for seq in jobs]
    ).rowcount
    conn.executemany("DELETE FROM jobrunner_attempts WHERE job = ?", rows)
    return deleted + sum(row is not None for row in gone)
