"""Reads and writes schedules and their ticks inside an open transaction."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

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
from jobrunner.store.postgres.sql.lanes import changed
from jobrunner.store.postgres.sql.states import UNFINISHED
from jobrunner.store.postgres.sql.transaction import Transaction

_COLUMNS: Final = (
    "id, source, task, args, cron, timezone, every, run_at, start_at, end_at, options, misfire, grace, cap, overlap,"
    " jitter, revision, edition, paused, disabled, created_at, next, last, last_fired, last_job, fired, skipped"
)
_NAMES: Final = _COLUMNS.split(", ")
_SELECT: Final = f"SELECT {_COLUMNS} FROM jobrunner.schedules"
_PUT: Final = (
    f"INSERT INTO jobrunner.schedules ({_COLUMNS})"
    f" VALUES ({', '.join(f'${number}' for number, _ in enumerate(_NAMES, 1))})"
    f" ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _NAMES[1:])}"
)

_ACTIVE: Final = "next IS NOT NULL AND NOT paused AND NOT disabled"

# One seek for each task.
_DUE: Final = f"""
SELECT {", ".join(f"due.{name}" for name in _NAMES)} FROM unnest($1::text[]) AS wanted (task), LATERAL (
    {_SELECT} WHERE {_ACTIVE} AND task = wanted.task AND next <= $2 ORDER BY next LIMIT $3
) AS due
ORDER BY next, id LIMIT $3"""
_NEXT: Final = f"""
SELECT min(first.next) FROM unnest($1::text[]) AS wanted (task), LATERAL (
    SELECT next FROM jobrunner.schedules WHERE {_ACTIVE} AND task = wanted.task ORDER BY next LIMIT 1
) AS first"""

_AS_SEEN: Final = "id = $1 AND next IS NOT DISTINCT FROM $2 AND revision = $3 AND edition = $4"

_ADVANCE: Final = f"""
UPDATE jobrunner.schedules SET next = $5, last = $6 WHERE {_AS_SEEN} AND NOT paused AND NOT disabled"""

_COUNT: Final = """
UPDATE jobrunner.schedules SET fired = fired + $2, skipped = skipped + $3, last_fired = coalesce($4, last_fired),
    last_job = coalesce($5, last_job)
WHERE id = $1"""

_RECORD: Final = """
INSERT INTO jobrunner.schedule_ticks (schedule, instant, until, count, outcome, job, at)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (schedule, instant) DO NOTHING"""

_UNFINISHED_JOB: Final = f"""
SELECT FROM jobrunner.jobs WHERE schedule = $1 AND schedule IS NOT NULL AND {UNFINISHED} LIMIT 1"""

_PRUNE: Final = """
DELETE FROM jobrunner.schedule_ticks WHERE (schedule, instant) IN (
    SELECT schedule, instant FROM jobrunner.schedule_ticks AS tick
    WHERE at < $1 AND until < coalesce((SELECT last FROM jobrunner.schedules WHERE id = tick.schedule), until + 1)
    ORDER BY at LIMIT $2
)"""


# -- reads -----------------------------------------------------------------------------------


async def get(tx: Transaction, id: str) -> ScheduleRow | None:
    """Return a schedule by its id."""
    row = await tx.fetchrow(f"{_SELECT} WHERE id = $1", id)
    return None if row is None else _row(row)


async def rows(
    tx: Transaction, task: str | None, after: str | None, limit: int
) -> Sequence[ScheduleRow]:
    """Return the schedules with an id above ``after``, ordered by id."""
    of_task, values = ("", ()) if task is None else ("task = $3 AND", (task,))
    found = await tx.fetch(
        f"{_SELECT} WHERE {of_task} id > $1 ORDER BY id LIMIT $2", after or "", limit, *values
    )
    return [_row(row) for row in found]


async def declared(tx: Transaction) -> Sequence[ScheduleRow]:
    """Return every schedule that was declared in code."""
    return [_row(row) for row in await tx.fetch(f"{_SELECT} WHERE source = 'code' ORDER BY id")]


async def due(
    tx: Transaction, tasks: frozenset[str], now: int, limit: int
) -> Sequence[ScheduleRow]:
    """Return the tasks' due schedules, the longest overdue first."""
    return [_row(row) for row in await tx.fetch(_DUE, sorted(tasks), now, limit)]


async def next_tick(tx: Transaction, tasks: frozenset[str]) -> int | None:
    """Return the next tick of the tasks' schedules; an overdue one is in the past."""
    found: int | None = await tx.fetchval(_NEXT, sorted(tasks))
    return found


async def ticks(tx: Transaction, id: str, before: int | None, limit: int) -> Sequence[TickRow]:
    """Return the recorded ticks of a schedule before an instant, newest first."""
    found = await tx.fetch(
        "SELECT instant, until, count, outcome, job, at FROM jobrunner.schedule_ticks"
        " WHERE schedule = $1 AND instant < $2 ORDER BY instant DESC LIMIT $3",
        *(id, MAX_US if before is None else before, limit),
    )
    return [TickRow(*row) for row in found]


def _row(row: Any) -> ScheduleRow:
    columns = tuple(row)
    id, source, task, args, *timing = columns[:10]
    return ScheduleRow(
        id, source, Definition(task, args, Timing(*timing), *columns[10:16]), *columns[16:]
    )


# -- changes ---------------------------------------------------------------------------------


async def change(tx: Transaction, changes: Sequence[ScheduleChange]) -> bool:
    """Write, replace and remove schedules; change none if one has changed since it was read."""
    for seen, row in changes:
        wanted = seen or row
        if wanted is not None and not await _is_as_seen(tx, wanted.id, seen):
            return False
    for seen, row in changes:
        if row is not None:
            await _put(tx, row._replace(edition=0 if seen is None else seen.edition + 1))
        elif seen is not None:
            await tx.execute("DELETE FROM jobrunner.schedules WHERE id = $1", seen.id)
            await tx.execute("DELETE FROM jobrunner.schedule_ticks WHERE schedule = $1", seen.id)
    return True


async def _is_as_seen(tx: Transaction, id: str, seen: ScheduleRow | None) -> bool:
    """Lock a schedule and compare it with what was seen."""
    await tx.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended('jobrunner schedule ' || $1, 0))", id
    )
    row = await tx.fetchrow(f"{_SELECT} WHERE id = $1 FOR UPDATE", id)
    if row is None or seen is None:
        return row is None and seen is None
    found = _row(row)
    return (found.next, found.revision, found.edition) == (seen.next, seen.revision, seen.edition)


async def _put(tx: Transaction, row: ScheduleRow) -> None:
    id, source, (task, args, timing, *policy), *rest = row
    await tx.execute(_PUT, id, source, task, args, *timing, *policy, *rest)


# -- ticks -----------------------------------------------------------------------------------


async def fire(
    tx: Transaction,
    fire: Fire,
    now: int,
    insert: Callable[[Sequence[Enqueue]], Awaitable[Sequence[Enqueued]]],
) -> Fired:
    """Advance a schedule from the seen tick to the next one; record ticks and store their jobs.

    Args:
        tx: the transaction.
        fire: the step of the schedule.
        now: the current time, recorded with the ticks.
        insert: stores jobs; returns the holder of the key for a job whose key is taken.
    """
    seen = fire.seen
    last = max(tick.until or tick.instant for tick in fire.ticks)
    fence = (seen.id, seen.next, seen.revision, seen.edition)
    if not changed(await tx.execute(_ADVANCE, *fence, fire.next, last)):
        return Fired(advanced=False)
    jobs: list[Enqueued] = []
    skipped: dict[TickOutcome, int] = {}
    last_fired: int | None = None
    for instant, decided, job, until, number in fire.ticks:
        outcome = decided
        if job is not None and await _overlaps(tx, seen):
            outcome, job = "overlap", None  # noqa: PLW2901 - the tick makes no job
        values = (seen.id, instant, until or instant, number, outcome, job.id if job else None, now)
        if not changed(await tx.execute(_RECORD, *values)):
            # A recorded tick never fires again, even if the schedule was set back to it.
            continue
        if job is not None:
            (stored,) = await insert([job])
            if stored.created:
                jobs.append(stored)
                last_fired = instant
                continue
            outcome = "key"
            await tx.execute(
                "UPDATE jobrunner.schedule_ticks SET outcome = $3, job = NULL WHERE schedule = $1 AND instant = $2",
                *(seen.id, instant, outcome),
            )
        skipped[outcome] = skipped.get(outcome, 0) + number
    last_job = jobs[-1].id if jobs else None
    await tx.execute(_COUNT, seen.id, len(jobs), sum(skipped.values()), last_fired, last_job)
    return Fired(advanced=True, jobs=jobs, skipped=skipped)


async def _overlaps(tx: Transaction, row: ScheduleRow) -> bool:
    if row.definition.overlap != "skip":
        return False
    return await tx.fetchrow(_UNFINISHED_JOB, row.id) is not None


async def prune_ticks(tx: Transaction, before: int, limit: int) -> int:
    """Delete one slice of old ticks; the last tick of each schedule stays."""
    return changed(await tx.execute(_PRUNE, before, limit))
