"""Adds to the statistics of minutes, rolls minutes up into hours, and sums both.

Runs inside an open transaction.  Beside the rows of tasks there are their sums: a row with an empty task for each
queue, and one with an empty queue too for everything.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from jobrunner.core.clock import now_s
from jobrunner.core.histogram import Histogram
from jobrunner.store.sqlite.sql import walks
from jobrunner.store.statistics import HOUR_US, LENGTH_US, MINUTE_US, By, Per, StatisticsRow, summed

_TABLES: Final[dict[Per, str]] = {"minute": "jobrunner_minutes", "hour": "jobrunner_hours"}
_COLUMNS: Final = "start, queue, task, succeeded, failed, dead, wait, run"

_ROLLED_UP_UNTIL: Final = "SELECT value FROM jobrunner_meta WHERE name = 'rolled_up_until'"
_NOTE_ROLLED_UP: Final = """
INSERT INTO jobrunner_meta (name, value) VALUES ('rolled_up_until', ?)
ON CONFLICT (name) DO UPDATE SET value = excluded.value"""


# -- adding --------------------------------------------------------------------------------------------


def add(conn: sqlite3.Connection, rows: Iterable[StatisticsRow]) -> None:
    """Add rows of minutes and their sums; those of minutes that were rolled up also to their hours."""
    minutes = summed(
        row._replace(queue=queue, task=task)
        for row in rows
        for queue, task in ((row.queue, row.task), (row.queue, ""), ("", ""))
    )
    _add_to(conn, "minute", minutes)
    until = _rolled_up_until(conn)
    _add_to(conn, "hour", _hours(row for row in minutes if row.start < until))


def add_dead(conn: sqlite3.Connection, dead: Mapping[tuple[str, str], int], now: int) -> None:
    """Count dead letters that no attempt of a live worker made, by queue and task."""
    start = now - now % MINUTE_US
    add(
        conn,
        [
            StatisticsRow(start, queue, task, 0, 0, number, Histogram(), Histogram())
            for (queue, task), number in dead.items()
        ],
    )


def _hours(minutes: Iterable[StatisticsRow]) -> Sequence[StatisticsRow]:
    return summed(row._replace(start=row.start - row.start % HOUR_US) for row in minutes)


def _add_to(conn: sqlite3.Connection, per: Per, rows: Iterable[StatisticsRow]) -> None:
    written: list[tuple[Any, ...]] = []
    for row in rows:
        found = conn.execute(
            f"SELECT {_COLUMNS} FROM {_TABLES[per]} WHERE start = ? AND queue = ? AND task = ?",
            row.key,
        ).fetchone()
        total = row if found is None else row.plus(_row(found))
        written.append((*total[:-2], total.wait.encode(), total.run.encode()))
    if written:
        conn.executemany(
            f"INSERT OR REPLACE INTO {_TABLES[per]} ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            written,
        )


def _row(columns: tuple[Any, ...]) -> StatisticsRow:
    start, queue, task, succeeded, failed, dead, wait, run = columns
    return StatisticsRow(
        *(start, queue, task, succeeded, failed, dead),
        wait=Histogram.decode(wait),
        run=Histogram.decode(run),
    )


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
    _add_to(conn, "hour", _hours(map(_row, rows.fetchall())))
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

    def key(self, start: int, queue: str, task: str) -> tuple[int, str, str]:
        """Return the key of the sum that a row belongs to."""
        if self.by == "time":
            return start - start % LENGTH_US[self.per], self.queue or "", self.task or ""
        if self.by == "queue":
            return self.since, queue, self.task or ""
        return self.since, self.queue or "", task


class _Sum:
    __slots__ = ("dead", "failed", "run", "succeeded", "wait")

    def __init__(self) -> None:
        self.succeeded = self.failed = self.dead = 0
        self.wait = Histogram()
        self.run = Histogram()


class Sums:
    """The sums of the rows that were read so far."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self._sums: defaultdict[tuple[int, str, str], _Sum] = defaultdict(_Sum)

    def add(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add rows of a table."""
        for start, queue, task, succeeded, failed, dead, wait, run in rows:
            total = self._sums[self.wanted.key(start, queue, task)]
            total.succeeded += succeeded
            total.failed += failed
            total.dead += dead
            total.wait.add_encoded(wait)
            total.run.add_encoded(run)

    def rows(self) -> Sequence[StatisticsRow]:
        """Return the sums in the order of their keys."""
        return [
            StatisticsRow(*key, one.succeeded, one.failed, one.dead, one.wait, one.run)
            for key, one in sorted(self._sums.items())
        ]


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
