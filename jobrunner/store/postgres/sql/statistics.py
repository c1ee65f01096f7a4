"""Adds to the statistics of minutes, rolls minutes up into hours, and sums both.

Beside the rows of tasks there are their sums: a row with an empty task for each queue, and one with an empty queue too
for everything.  A histogram is read and written back, so writers take turns behind a lock, which they take last.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

from jobrunner.core.histogram import Histogram
from jobrunner.core.model import DeadReason
from jobrunner.store import counters as counter_names
from jobrunner.store.postgres import locks
from jobrunner.store.postgres.sql import counters
from jobrunner.store.postgres.sql.lanes import changed
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.statistics import HOUR_US, LENGTH_US, MINUTE_US, By, Per, StatisticsRow, Total

_TABLES: Final[dict[Per, str]] = {"minute": "jobrunner.minutes", "hour": "jobrunner.hours"}
_COLUMNS: Final = "start, queue, task, succeeded, failed, dead, wait, run"

Key = tuple[int, str, str]
"""Start, queue and task."""


# -- adding --------------------------------------------------------------------------------------------


def add_dead(
    tx: Transaction, dead: Mapping[tuple[str, str], int], reason: DeadReason, now: int
) -> None:
    """Count dead letters that the store itself makes, by queue and task."""
    start = now - now % MINUTE_US
    name = counter_names.dead(reason)
    tx.statistics += [
        StatisticsRow(start, queue, task, 0, 0, number, Histogram(), Histogram(), {name: number})
        for (queue, task), number in dead.items()
    ]


async def flush(tx: Transaction) -> None:
    """Write what the transaction adds to counters and statistics; its last statements."""
    for row in tx.statistics:
        tx.counted.update(counters.of_row(row))
    await counters.add(tx, tx.counted)
    minutes: defaultdict[Key, Total] = defaultdict(Total)
    for row in tx.statistics:
        start, queue, task = row.key
        if task:
            for key in ((start, queue, task), (start, queue, ""), (start, "", "")):
                minutes[key].add(row)
    if minutes:
        await locks.lock(tx.connection, locks.STATISTICS)
        until = await _rolled_up_until(tx)
        late = _hours(one.row(*key) for key, one in minutes.items() if key[0] < until)
        await _add_to(tx, "minute", minutes)
        await _add_to(tx, "hour", late)


def _hours(minutes: Iterable[StatisticsRow]) -> Mapping[Key, Total]:
    hours: defaultdict[Key, Total] = defaultdict(Total)
    for row in minutes:
        hours[row.start - row.start % HOUR_US, row.queue, row.task].add(row)
    return hours


async def _add_to(tx: Transaction, per: Per, rows: Mapping[Key, Total]) -> None:
    """Add rows to what a table has of them; the totals are then those in the table."""
    if not rows:
        return
    table = _TABLES[per]
    found = await tx.fetch(
        f"SELECT {_COLUMNS} FROM {table} JOIN unnest($1::bigint[], $2::text[], $3::text[])"
        " AS wanted (start, queue, task) USING (start, queue, task)",
        *zip(*rows, strict=True),
    )
    for start, queue, task, *columns in found:
        rows[start, queue, task].add_encoded(*columns)
    values = [
        (*key, one.succeeded, one.failed, one.dead, one.wait.encode(), one.run.encode())
        for key, one in rows.items()
    ]
    await tx.execute(
        f"INSERT INTO {table} ({_COLUMNS}) SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[],"
        " $4::bigint[], $5::bigint[], $6::bigint[], $7::bytea[], $8::bytea[])"
        " ON CONFLICT (start, task, queue) DO UPDATE SET succeeded = excluded.succeeded, failed = excluded.failed,"
        " dead = excluded.dead, wait = excluded.wait, run = excluded.run",
        *zip(*values, strict=True),
    )


def _row(start: int, queue: str, task: str, *columns: Any) -> StatisticsRow:
    total = Total()
    total.add_encoded(*columns)
    return total.row(start, queue, task)


# -- hours ---------------------------------------------------------------------------------------------


async def _rolled_up_until(tx: Transaction) -> int:
    """Return the time before which all minutes are part of their hours."""
    found = await tx.fetchval("SELECT value FROM jobrunner.meta WHERE name = 'rolled_up_until'")
    return 0 if found is None else int(found)


async def roll_up(tx: Transaction, before: int) -> bool:
    """Add the oldest minute that no hour has yet to its hour; return False if there is none."""
    await locks.lock(tx.connection, locks.STATISTICS)
    start = await tx.fetchval(
        "SELECT min(start) FROM jobrunner.minutes WHERE start >= $1 AND start < $2",
        await _rolled_up_until(tx),
        before,
    )
    if start is None:
        return False
    rows = await tx.fetch(f"SELECT {_COLUMNS} FROM jobrunner.minutes WHERE start = $1", start)
    await _add_to(tx, "hour", _hours([_row(*columns) for columns in rows]))
    await tx.execute(
        "INSERT INTO jobrunner.meta VALUES ('rolled_up_until', $1)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        str(start + MINUTE_US),
    )
    return True


async def prune(tx: Transaction, minutes_before: int, hours_before: int, limit: int) -> int:
    """Delete old minutes that are part of their hours, and old hours; return the number of rows."""
    await locks.lock(tx.connection, locks.STATISTICS)
    deleted = 0
    minutes_before = min(minutes_before, await _rolled_up_until(tx))
    for table, before in (("jobrunner.minutes", minutes_before), ("jobrunner.hours", hours_before)):
        status = await tx.execute(
            f"DELETE FROM {table} WHERE (start, task, queue) IN ("
            f" SELECT start, task, queue FROM {table} WHERE start < $1 ORDER BY start LIMIT $2)",
            before,
            limit - deleted,
        )
        deleted += changed(status)
    return deleted


# -- reading -------------------------------------------------------------------------------------------


class Wanted(NamedTuple):
    """The rows to add up, and how; see ``StatisticsStore.read``."""

    per: Per
    since: int
    until: int
    by: By
    queue: str | None
    task: str | None

    def where(self) -> str:
        """Return the condition for the rows: sums if they are enough, else those of tasks.

        The queue is $1 and the task $2.
        """
        of_task = "task > ''" if self.by == "task" else "task = ''"
        of_queue = "queue = ''" if self.by == "time" else "queue > ''"
        if self.task is not None:
            of_task, of_queue = "task = $2", "queue > ''"
        if self.queue is not None:
            of_queue = "queue = $1"
        return f"($1::text IS NULL OR true) AND ($2::text IS NULL OR true) AND {of_task} AND {of_queue}"

    def key(self, start: int, queue: str, task: str) -> Key:
        """Return the key of the sum that a row belongs to."""
        if self.by == "time":
            return start - start % LENGTH_US[self.per], self.queue or "", self.task or ""
        if self.by == "queue":
            return self.since, queue, self.task or ""
        return self.since, self.queue or "", task


async def read(tx: Transaction, wanted: Wanted) -> Sequence[StatisticsRow]:
    """Add up minutes or hours."""
    sums: defaultdict[Key, Total] = defaultdict(Total)
    condition = wanted.where()

    async def add(table: str, since: int, until: int) -> None:
        rows = await tx.fetch(
            f"SELECT {_COLUMNS} FROM {table} WHERE {condition} AND start >= $3 AND start < $4",
            *(wanted.queue, wanted.task, since, until),
        )
        for start, queue, task, *columns in rows:
            sums[wanted.key(start, queue, task)].add_encoded(*columns)

    await add(_TABLES[wanted.per], wanted.since, wanted.until)
    if wanted.per == "hour":
        first = max(wanted.since, await _rolled_up_until(tx))
        await add("jobrunner.minutes", first, wanted.until)
    return [total.row(*key) for key, total in sorted(sums.items(), key=itemgetter(0))]
