"""Reads and writes schedules and their ticks inside an open transaction."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from jobrunner.core.clock import MAX_US
from jobrunner.core.model import Enqueue, Enqueued
from jobrunner.core.schedule import (
    Definition,
    Fire,
    Fired,
    ScheduleChange,
    ScheduleRow,
    TickOutcome,
    TickRow,
    Timing,
)
from jobrunner.store.sqlite.sql.statements import UNFINISHED

_COLUMNS = (
    "id, source, task, args, cron, timezone, every, run_at, start_at, end_at, options, misfire, grace, cap, overlap,"
    " jitter, revision, edition, paused, disabled, created_at, next, last, last_fired, last_job, fired, skipped"
)
_SELECT = f"SELECT {_COLUMNS} FROM jobrunner_schedules"
_PUT = (
    f"INSERT OR REPLACE INTO jobrunner_schedules ({_COLUMNS})"
    f" VALUES ({', '.join('?' for _ in _COLUMNS.split(','))})"
)

# Written as in the partial index.
_ACTIVE = "next IS NOT NULL AND paused = 0 AND disabled = 0"

_DUE = f"""
{_SELECT} WHERE {_ACTIVE} AND task = ? AND next <= ? ORDER BY next LIMIT ?"""

# One seek per task that has schedules, however many schedules it has; compare WAITING_TASKS.
_NEXT_BY_TASK = f"""
WITH RECURSIVE scheduled (task) AS (
    SELECT min(task) FROM jobrunner_schedules WHERE {_ACTIVE}
    UNION ALL
    SELECT (SELECT min(task) FROM jobrunner_schedules WHERE {_ACTIVE} AND task > scheduled.task)
    FROM scheduled WHERE scheduled.task IS NOT NULL
)
SELECT task, (SELECT min(next) FROM jobrunner_schedules WHERE {_ACTIVE} AND task = scheduled.task)
FROM scheduled WHERE task IS NOT NULL"""

_AS_SEEN = "id = ? AND next IS ? AND revision = ? AND edition = ?"

_ADVANCE = f"""
UPDATE jobrunner_schedules SET next = ?, last = ?
WHERE {_AS_SEEN} AND paused = 0 AND disabled = 0"""

_COUNT = """
UPDATE jobrunner_schedules SET fired = fired + ?, skipped = skipped + ?, last_fired = coalesce(?, last_fired),
    last_job = coalesce(?, last_job)
WHERE id = ?"""

_RECORD = """
INSERT INTO jobrunner_schedule_ticks (schedule, instant, until, count, outcome, job, at)
VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (schedule, instant) DO NOTHING"""

_UNFINISHED_JOB = f"SELECT 1 FROM jobrunner_jobs WHERE schedule = ? AND {UNFINISHED} LIMIT 1"

_PRUNE = """
DELETE FROM jobrunner_schedule_ticks WHERE (schedule, instant) IN (
    SELECT schedule, instant FROM jobrunner_schedule_ticks AS tick
    WHERE at < ? AND until < coalesce((SELECT last FROM jobrunner_schedules WHERE id = tick.schedule), until + 1)
    ORDER BY at LIMIT ?
)"""


# -- reads -----------------------------------------------------------------------------------


def get(conn: sqlite3.Connection, id: str) -> ScheduleRow | None:
    """Return a schedule by its id."""
    return next(map(_row, conn.execute(f"{_SELECT} WHERE id = ?", (id,))), None)


def rows(
    conn: sqlite3.Connection, task: str | None, after: str | None, limit: int
) -> Sequence[ScheduleRow]:
    """Return the schedules with an id above ``after``, ordered by id."""
    of_task, values = ("", ()) if task is None else ("task = ? AND", (task,))
    found = conn.execute(
        f"{_SELECT} WHERE {of_task} id > ? ORDER BY id LIMIT ?", (*values, after or "", limit)
    )
    return [_row(row) for row in found]


def declared(conn: sqlite3.Connection) -> Sequence[ScheduleRow]:
    """Return every schedule that was declared in code."""
    return [_row(row) for row in conn.execute(f"{_SELECT} WHERE source = 'code'")]


def due(
    conn: sqlite3.Connection, tasks: frozenset[str], now: int, limit: int
) -> Sequence[ScheduleRow]:
    """Return the tasks' due schedules, the longest overdue first."""
    found: list[ScheduleRow] = []
    for task, first in conn.execute(_NEXT_BY_TASK).fetchall():
        if task in tasks and first <= now:
            found += map(_row, conn.execute(_DUE, (task, now, limit)))
    found.sort(key=lambda row: (row.next or 0, row.id))
    return found[:limit]


def next_tick(conn: sqlite3.Connection, tasks: frozenset[str]) -> int | None:
    """Return the next tick of the tasks' schedules; an overdue one is in the past."""
    return min((due for task, due in conn.execute(_NEXT_BY_TASK) if task in tasks), default=None)


def ticks(conn: sqlite3.Connection, id: str, before: int | None, limit: int) -> Sequence[TickRow]:
    """Return the recorded ticks of a schedule before an instant, newest first."""
    found = conn.execute(
        "SELECT instant, until, count, outcome, job, at FROM jobrunner_schedule_ticks"
        " WHERE schedule = ? AND instant < ? ORDER BY instant DESC LIMIT ?",
        (id, MAX_US if before is None else before, limit),
    )
    return [TickRow(*row) for row in found]


def _row(row: Sequence[Any]) -> ScheduleRow:
    id, source, task, args, *timing = row[:10]
    options, misfire, grace, cap, overlap, jitter = row[10:16]
    revision, edition, paused, disabled, *rest = row[16:]
    definition = Definition(
        task, args, Timing(*timing), options, misfire, grace, cap, overlap, jitter
    )
    return ScheduleRow(
        id, source, definition, revision, edition, bool(paused), bool(disabled), *rest
    )


# -- changes ---------------------------------------------------------------------------------


def change(conn: sqlite3.Connection, changes: Sequence[ScheduleChange]) -> bool:
    """Write, replace and remove schedules; change none if one has changed since it was read."""
    for seen, row in changes:
        wanted = seen or row
        if wanted is not None and not _is_as_seen(conn, wanted.id, seen):
            return False
    for seen, row in changes:
        if row is not None:
            _put(conn, row._replace(edition=0 if seen is None else seen.edition + 1))
        elif seen is not None:
            conn.execute("DELETE FROM jobrunner_schedules WHERE id = ?", (seen.id,))
            conn.execute("DELETE FROM jobrunner_schedule_ticks WHERE schedule = ?", (seen.id,))
    return True


def _is_as_seen(conn: sqlite3.Connection, id: str, seen: ScheduleRow | None) -> bool:
    if seen is None:
        return get(conn, id) is None
    found = conn.execute(
        f"SELECT 1 FROM jobrunner_schedules WHERE {_AS_SEEN}",
        (id, seen.next, seen.revision, seen.edition),
    )
    return found.fetchone() is not None


def _put(conn: sqlite3.Connection, row: ScheduleRow) -> None:
    id, source, (task, args, timing, *policy), *rest = row
    conn.execute(_PUT, (id, source, task, args, *timing, *policy, *rest))


# -- ticks -----------------------------------------------------------------------------------


def fire(
    conn: sqlite3.Connection,
    fire: Fire,
    now: int,
    insert: Callable[[Sequence[Enqueue]], Sequence[Enqueued]],
) -> Fired:
    """Advance a schedule from the seen tick to the next one; record ticks and store their jobs.

    Args:
        conn: the write connection.
        fire: the step of the schedule.
        now: the current time, recorded with the ticks.
        insert: stores jobs; returns the holder of the key for a job whose key is taken.
    """
    seen = fire.seen
    last = max(tick.until or tick.instant for tick in fire.ticks)
    advanced = conn.execute(
        _ADVANCE, (fire.next, last, seen.id, seen.next, seen.revision, seen.edition)
    )
    if advanced.rowcount == 0:
        return Fired(advanced=False)
    jobs: list[Enqueued] = []
    skipped: dict[TickOutcome, int] = {}
    last_fired: int | None = None
    for instant, decided, job, until, number in fire.ticks:
        outcome = decided
        if job is not None and _overlaps(conn, seen):
            outcome, job = "overlap", None  # noqa: PLW2901 - the tick makes no job
        values = (seen.id, instant, until or instant, number, outcome, job.id if job else None, now)
        if conn.execute(_RECORD, values).rowcount == 0:
            # A recorded tick never fires again, even if the schedule was set back to it.
            continue
        if job is not None:
            (stored,) = insert([job])
            if stored.created:
                jobs.append(stored)
                last_fired = instant
                continue
            outcome = "key"
            conn.execute(
                "UPDATE jobrunner_schedule_ticks SET outcome = ?, job = NULL WHERE schedule = ? AND instant = ?",
                (outcome, seen.id, instant),
            )
        skipped[outcome] = skipped.get(outcome, 0) + number
    last_job = jobs[-1].id if jobs else None
    conn.execute(_COUNT, (len(jobs), sum(skipped.values()), last_fired, last_job, seen.id))
    return Fired(advanced=True, jobs=jobs, skipped=skipped)


def _overlaps(conn: sqlite3.Connection, row: ScheduleRow) -> bool:
    if row.definition.overlap != "skip":
        return False
    return conn.execute(_UNFINISHED_JOB, (row.id,)).fetchone() is not None


def prune_ticks(conn: sqlite3.Connection, before: int, limit: int) -> int:
    """Delete one slice of old ticks; the last tick of each schedule stays."""
    return conn.execute(_PRUNE, (before, limit)).rowcount
