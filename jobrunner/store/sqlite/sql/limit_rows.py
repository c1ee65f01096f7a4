"""Stores limits: the numbers that the code declares, and those that were set at run time."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from jobrunner.core.limits import Limit, LimitName, LimitRow
from jobrunner.store.limit_protocol import LaneCounts
from jobrunner.store.sqlite.sql.lanes import open_lanes_of
from jobrunner.store.sqlite.sql.limits import limit_of

_COLUMNS: Final = """
    scope, name, concurrency, rate, per, burst, max_waiting, revision,
    set_concurrency, set_rate, set_per, set_burst, set_max_waiting, set_at"""
_SELECT: Final = f"SELECT {_COLUMNS} FROM jobrunner_limits"

_DECLARE: Final = """
INSERT INTO jobrunner_limits (scope, name, concurrency, rate, per, burst, max_waiting, revision)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (scope, name) DO UPDATE SET
    concurrency = excluded.concurrency, rate = excluded.rate, per = excluded.per, burst = excluded.burst,
    max_waiting = excluded.max_waiting, revision = excluded.revision"""

_SET: Final = """
INSERT INTO jobrunner_limits (
    scope, name, set_concurrency, set_rate, set_per, set_burst, set_max_waiting, set_at
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (scope, name) DO UPDATE SET
    set_concurrency = excluded.set_concurrency, set_rate = excluded.set_rate, set_per = excluded.set_per,
    set_burst = excluded.set_burst, set_max_waiting = excluded.set_max_waiting, set_at = excluded.set_at"""

_RESET: Final = """
UPDATE jobrunner_limits SET set_concurrency = NULL, set_rate = NULL, set_per = NULL, set_burst = NULL,
    set_max_waiting = NULL, set_at = NULL
WHERE scope = ? AND name = ? AND set_at IS NOT NULL"""

_REMOVE: Final = """
DELETE FROM jobrunner_limits WHERE scope = ? AND name = ? AND revision IS NULL AND set_at IS NULL"""


def _row(columns: Sequence[Any]) -> LimitRow:
    scope, name, *rest = columns
    declared, own = rest[:5], rest[6:11]
    return LimitRow(
        LimitName(scope, name),
        limit_of(*declared[:4])._replace(max_waiting=declared[4]),
        rest[5],
        limit_of(*own[:4])._replace(max_waiting=own[4]),
        rest[11],
    )


def _numbers(limit: Limit) -> tuple[int | None, ...]:
    rate = limit.rate
    per_rate = (None, None, None) if rate is None else tuple(rate)
    return (limit.concurrency, *per_rate, limit.max_waiting)


def get(conn: sqlite3.Connection, name: LimitName) -> LimitRow | None:
    """Return a limit by its name."""
    row = conn.execute(f"{_SELECT} WHERE scope = ? AND name = ?", name).fetchone()
    return None if row is None else _row(row)


def page(conn: sqlite3.Connection, after: LimitName | None, limit: int) -> Sequence[LimitRow]:
    """Return limits above a name: of queues, tasks and all lanes of a task, then of single lanes."""
    order = "scope = 'lane', scope, name"
    test, values = "TRUE", ()
    if after is not None:
        test, values = f"({order}) > (?, ?, ?)", (after.scope == "lane", *after)  # type: ignore[assignment]
    rows = conn.execute(f"{_SELECT} WHERE {test} ORDER BY {order} LIMIT ?", (*values, limit))
    return [_row(row) for row in rows]


def changes(
    conn: sqlite3.Connection, limits: Mapping[LimitName, Limit], revision: int
) -> Sequence[LimitName]:
    """Return the names of the declared limits that may replace stored ones."""
    stored = {row.name: row for row in map(_row, conn.execute(f"{_SELECT} WHERE scope <> 'lane'"))}
    changed: list[LimitName] = []
    for name, limit in limits.items():
        row = stored.get(name)
        if row is None or row.revision is None:
            if limit != Limit():
                changed.append(name)
        elif row.revision < revision or (row.revision == revision and row.declared != limit):
            changed.append(name)
    return changed


def declare(
    conn: sqlite3.Connection, limits: Mapping[LimitName, Limit], revision: int
) -> Sequence[LimitName]:
    """Store declared limits; see ``LimitStore.declare``."""
    written = changes(conn, limits, revision)
    changed: list[LimitName] = []
    for name in written:
        before = get(conn, name)
        limit = limits[name]
        noted = None if limit == Limit() else revision
        conn.execute(_DECLARE, (*name, *_numbers(limit), noted))
        conn.execute(_REMOVE, name)
        if before is None or before.declared != limit:
            changed.append(name)
            _open(conn, name)
    return changed


def set_limit(conn: sqlite3.Connection, name: LimitName, limit: Limit, now: int) -> LimitRow:
    """Set numbers at run time; see ``LimitStore.set``."""
    before = get(conn, name)
    merged = limit if before is None else before.set.overridden(limit)
    conn.execute(_SET, (*name, *_numbers(merged), now))
    _open(conn, name)
    return LimitRow(
        name,
        Limit() if before is None else before.declared,
        None if before is None else before.revision,
        merged,
        now,
    )


def reset(conn: sqlite3.Connection, name: LimitName) -> bool:
    """Remove the numbers that were set at run time; return False if there are none."""
    was_set = conn.execute(_RESET, name).rowcount > 0
    conn.execute(_REMOVE, name)
    _open(conn, name)
    return was_set


def _open(conn: sqlite3.Connection, name: LimitName) -> None:
    """Let the next claim visit the lanes of a changed limit."""
    if name.scope == "lane":
        open_lanes_of(conn, name.name, name.name + "\0")
    elif name.scope == "lanes":
        # All names that begin with "task[": "\\" is the character after "[".
        open_lanes_of(conn, f"{name.name}[", f"{name.name}\\")


def lane_counts(conn: sqlite3.Connection, cap: int) -> LaneCounts:
    """Count the lanes in each state, each up to ``cap``."""
    counts = [
        conn.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM jobrunner_lanes WHERE state = '{state}' LIMIT ?)",
            (cap,),
        ).fetchone()[0]
        for state in LaneCounts._fields
    ]
    return LaneCounts(*counts)
