"""Stores limits: the numbers that the code declares, and those that were set at run time."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from jobrunner.core.limits import Limit, LimitName, LimitRow
from jobrunner.store.limit_protocol import LaneCounts
from jobrunner.store.postgres.sql.lanes import changed, open_lanes_of
from jobrunner.store.postgres.sql.limits import limit_of
from jobrunner.store.postgres.sql.transaction import Transaction

_COLUMNS: Final = """
    scope, name, concurrency, rate, per, burst, max_waiting, revision,
    set_concurrency, set_rate, set_per, set_burst, set_max_waiting, set_at"""
_SELECT: Final = f"SELECT {_COLUMNS} FROM jobrunner.limits"
_GET: Final = f"{_SELECT} WHERE scope = $1 AND name = $2"

_DECLARE: Final = """
INSERT INTO jobrunner.limits (scope, name, concurrency, rate, per, burst, max_waiting, revision)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (scope, name) DO UPDATE SET
    concurrency = excluded.concurrency, rate = excluded.rate, per = excluded.per, burst = excluded.burst,
    max_waiting = excluded.max_waiting, revision = excluded.revision"""

_SET: Final = """
INSERT INTO jobrunner.limits (
    scope, name, set_concurrency, set_rate, set_per, set_burst, set_max_waiting, set_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (scope, name) DO UPDATE SET
    set_concurrency = excluded.set_concurrency, set_rate = excluded.set_rate, set_per = excluded.set_per,
    set_burst = excluded.set_burst, set_max_waiting = excluded.set_max_waiting, set_at = excluded.set_at"""

_RESET: Final = """
UPDATE jobrunner.limits SET set_concurrency = NULL, set_rate = NULL, set_per = NULL, set_burst = NULL,
    set_max_waiting = NULL, set_at = NULL
WHERE scope = $1 AND name = $2 AND set_at IS NOT NULL"""

_REMOVE: Final = """
DELETE FROM jobrunner.limits WHERE scope = $1 AND name = $2 AND revision IS NULL AND set_at IS NULL"""


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


async def get(tx: Transaction, name: LimitName) -> LimitRow | None:
    """Return a limit by its name."""
    row = await tx.fetchrow(_GET, *name)
    return None if row is None else _row(row)


async def _locked(tx: Transaction, name: LimitName) -> LimitRow | None:
    row = await tx.fetchrow(f"{_GET} FOR UPDATE", *name)
    return None if row is None else _row(row)


async def page(tx: Transaction, after: LimitName | None, limit: int) -> Sequence[LimitRow]:
    """Return limits above a name: of queues, tasks and all lanes of a task, then of single lanes."""
    order = "scope = 'lane', scope, name"
    test, values = "true", list[object]()
    if after is not None:
        test, values = f"({order}) > ($2, $3, $4)", [after.scope == "lane", *after]
    rows = await tx.fetch(f"{_SELECT} WHERE {test} ORDER BY {order} LIMIT $1", limit, *values)
    return [_row(row) for row in rows]


async def changes(
    tx: Transaction, limits: Mapping[LimitName, Limit], revision: int
) -> Sequence[LimitName]:
    """Return the names of the declared limits that may replace stored ones."""
    stored = {
        row.name: row for row in map(_row, await tx.fetch(f"{_SELECT} WHERE scope <> 'lane'"))
    }
    found: list[LimitName] = []
    for name, limit in limits.items():
        row = stored.get(name)
        if row is None or row.revision is None:
            if limit != Limit():
                found.append(name)
        elif row.revision < revision or (row.revision == revision and row.declared != limit):
            found.append(name)
    return found


async def declare(
    tx: Transaction, limits: Mapping[LimitName, Limit], revision: int
) -> Sequence[LimitName]:
    """Store declared limits; see ``LimitStore.declare``."""
    await tx.execute("LOCK TABLE jobrunner.limits IN SHARE ROW EXCLUSIVE MODE")
    found: list[LimitName] = []
    for name in await changes(tx, limits, revision):
        before = await get(tx, name)
        limit = limits[name]
        noted = None if limit == Limit() else revision
        await tx.execute(_DECLARE, *name, *_numbers(limit), noted)
        await tx.execute(_REMOVE, *name)
        if before is None or before.declared != limit:
            found.append(name)
            await _open(tx, name)
    return found


async def set_limit(tx: Transaction, name: LimitName, limit: Limit, now: int) -> LimitRow:
    """Set numbers at run time; see ``LimitStore.set``."""
    before = await _locked(tx, name)
    merged = limit if before is None else before.set.overridden(limit)
    await tx.execute(_SET, *name, *_numbers(merged), now)
    await _open(tx, name)
    return LimitRow(
        name,
        Limit() if before is None else before.declared,
        None if before is None else before.revision,
        merged,
        now,
    )


async def reset(tx: Transaction, name: LimitName) -> bool:
    """Remove the numbers that were set at run time; return False if there are none."""
    was_set = changed(await tx.execute(_RESET, *name)) > 0
    await tx.execute(_REMOVE, *name)
    await _open(tx, name)
    return was_set


async def _open(tx: Transaction, name: LimitName) -> None:
    """Let the next claim visit the lanes of a changed limit."""
    if name.scope == "lane":
        await open_lanes_of(tx, name.name, name.name + "\1")
    elif name.scope == "lanes":
        # All names that begin with "task[": "\\" is the character after "[".
        await open_lanes_of(tx, f"{name.name}[", f"{name.name}\\")


async def lane_counts(tx: Transaction, cap: int) -> LaneCounts:
    """Count the lanes in each state, each up to ``cap``."""
    counts = [
        await tx.fetchval(
            "SELECT count(*) FROM (SELECT FROM jobrunner.lanes WHERE state = $1 LIMIT $2) few",
            *(state, cap),
        )
        for state in LaneCounts._fields
    ]
    return LaneCounts(*counts)
