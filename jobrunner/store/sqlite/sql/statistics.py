"""Adds to the statistics of minutes, rolls minutes up into hours, and sums both.

Runs inside an open transaction.  Beside the rows of tasks there are their sums: a row with an empty task for each
queue, and one with an empty queue too for everything.
"""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

from jobrunner.core.clock import now_s
from jobrunner.core.histogram import Histogram
from jobrunner.core.model import DeadReason
from jobrunner.store import counters as counter_names
from jobrunner.store.counters import CounterKey
from jobrunner.store.sqlite.sql import counters, walks
from jobrunner.store.statistics import HOUR_US, LENGTH_US, MINUTE_US, By, Per, StatisticsRow, Total

_TABLES: Final[dict[Per, str]] = {"minute": "jobrunner_minutes", "hour": "jobrunner_hours"}
_COLUMNS: Final = "start, queue, task, succeeded, failed, dead, wait, run"

Key = tuple[int, str, str]
"""Start, queue and task."""

_ROLLED_UP_UNTIL: Final = "SELECT value FROM jobrunner_meta WHERE name = 'rolled_up_until'"
_NOTE_ROLLED_UP: Final = """
INSERT INTO jobrunner_meta (name, value) VALUES ('rolled_up_until', ?)
ON CONFLICT (name) DO UPDATE SET value = excluded.value"""


# -- adding --------------------------------------------------------------------------------------------


def add(conn: sqlite3.Connection, rows: Iterable[StatisticsRow]) -> None:
    """Add rows of minutes and their sums, and to the counters.

    Those of minutes that were rolled up are also added to their hours.
    """
    minutes: defaultdict[Key, Total] = defaultdict(Total)
    counted = Counter[CounterKey]()
    for row in rows:
        counted.update(counters.of_row(row))
        start, queue, task = row.key
        if not task:
            continue
        for key in ((start, queue, task), (start, queue, ""), (start, "", "")):
            minutes[key].add(row)
    counters.add(conn, counted)
    until = _rolled_up_until(conn)
    late = _hours(one.row(*key) for key, one in minutes.items() if key[0] < until)
    _add_to(conn, "minute", minutes)
    _add_to(conn, "hour", late)


def add_dead(
    conn: sqlite3.Connection, dead: Mapping[tuple[str, str], int], reason: DeadReason, now: int
) -> None:
    """Count dead letters that the store itself makes, by queue and task."""
    start = now - now % MINUTE_US
    name = counter_names.dead(reason)
    add(
        conn,
        [
            StatisticsRow(
                start, queue, task, 0, 0, number, Histogram(), Histogram(), {name: number}
            )
            for (queue, task), number in dead.items()
        ],
    )


def _hours(minutes: Iterable[StatisticsRow]) -> Mapping[Key, Total]:
    hours: defaultdict[Key, Total] = defaultdict(Total)
    for row in minutes:
        hours[row.start - row.start % HOUR_US, row.queue, row.task].add(row)
    return hours


def _add_to(conn: sqlite3.Connection, per: Per, rows: Mapping[Key, Total]) -> None:
    """Add rows to what a table has of them; the totals are then those in the table."""
    for key, total in rows.items():
        found = conn.execute(
            f"SELECT succeeded, failed, dead, wait, run FROM {_TABLES[per]}"
            " WHERE start = ? AND queue = ? AND task = ?",
            key,
        ).fetchone()
        if found is not None:
            total.add_encoded(*found)
    conn.executemany(
        f"INSERT OR REPLACE INTO {_TABLES[per]} ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (*key, one.succeeded, one.failed, one.dead, one.wait.encode(), one.run.encode())
            for key, one in rows.items()
        ],
    )


def _row(start: int, queue: str, task: str, *columns: Any) -> StatisticsRow:
    total = Total()
    total.add_encoded(*columns)
    return total.row(start, queue, task)


# -- hours ---------------------------------------------------------------------------------------------


def _rolled_up_until(conn: sqlite3.Connection) -> int:
    """Return the time before which all minutes are part of their hours."""
    found = conn.execute(_ROLLED_UP_UNTIL).fetchone()
    return 0 if found is None else int(found[0])


def roll_up(conn: sqlite3.Connection, before: int) -> bool:
    """Add the oldest minute that no hour has yet to its hour; return False if there is none."""
    (start,) = conn.execute(
        "SELECT min(start) FROM jobrunner_minutes WHERE start >= ? AND start < ?",
        (_rolled_up_until(conn), before),
    ).fetchone()
    if start is None:
        return False
    rows = conn.execute(f"SELECT {_COLUMNS} FROM jobrunner_minutes WHERE start = ?", (start,))
    _add_to(conn, "hour", _hours([_row(*columns) for columns in rows]))
    conn.execute(_NOTE_ROLLED_UP, (start + MINUTE_US,))
    return True


def prune(conn: sqlite3.Connection, minutes_before: int, hours_before: int, limit: int) -> int:
    """Delete old minutes that are part of their hours, and old hours; return the number of rows."""
    deleted = 0
    minutes_before = min(minutes_before, _rolled_up_until(conn))
    for table, before in (("jobrunner_minutes", minutes_before), ("jobrunner_hours", hours_before)):
        deleted += conn.execute(
            f"""
            DELETE FROM {table} WHERE (start, task, queue) IN (
                SELECT start, task, queue FROM {table} WHERE start < ? ORDER BY start LIMIT ?
            )""",
            (before, limit - deleted),
        ).rowcount
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

    def where(self) -> tuple[str, dict[str, object]]:
        """Return the condition for the rows: sums if they are enough, else those of tasks."""
        of_task = "task > ''" if self.by == "task" else "task = ''"
        of_queue = "queue = ''" if self.by == "time" else "queue > ''"
        if self.task is not None:
            of_task, of_queue = "task = :task", "queue > ''"
        if self.queue is not None:
            of_queue = "queue = :queue"
        return f"{of_task} AND {of_queue}", {"task": self.task, "queue": self.queue}

    def key(self, start: int, queue: str, task: str) -> Key:
        """Return the key of the sum that a row belongs to."""
        if self.by == "time":
            return start - start % LENGTH_US[self.per], self.queue or "", self.task or ""
        if self.by == "queue":
            return self.since, queue, self.task or ""
        return self.since, self.queue or "", task


class Sums:
    """The sums of the rows that were read so far."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self._sums: defaultdict[Key, Total] = defaultdict(Total)

    def add(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add rows of a table."""
        for start, queue, task, *columns in rows:
            self._sums[self.wanted.key(start, queue, task)].add_encoded(*columns)

    def rows(self) -> Sequence[StatisticsRow]:
        """Return the sums in the order of their keys."""
        return [total.row(*key) for key, total in sorted(self._sums.items(), key=itemgetter(0))]


def read(conn: sqlite3.Connection, sums: Sums, start: int) -> int | None:
    """Add up minutes or hours from ``start`` on until the step's time is up.

    Returns:
        The start of the next step; None at the end.
    """
    wanted = sums.wanted
    condition, values = wanted.where()
    length = LENGTH_US[wanted.per]
    in_table = f"SELECT {_COLUMNS} FROM {_TABLES[wanted.per]} WHERE start = :start AND {condition}"
    not_rolled_up = f"SELECT {_COLUMNS} FROM jobrunner_minutes WHERE start >= :first AND start < :end AND {condition}"
    until = _rolled_up_until(conn)
    end_s = now_s() + walks.STEP_S
    while start < wanted.until:
        sums.add(conn.execute(in_table, {**values, "start": start}))
        end = start + length
        if wanted.per == "hour" and end > until:
            first = max(start, until)
            sums.add(conn.execute(not_rolled_up, {**values, "first": first, "end": end}))
        start = end
        if now_s() >= end_s:
            break
    return start if start < wanted.until else None
