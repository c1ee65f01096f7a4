"""Adds to the counters of a store and reads them, inside an open transaction."""

import sqlite3
from collections import Counter
from collections.abc import Iterable

from jobrunner.store import counters
from jobrunner.store.counters import CounterKey, Counters
from jobrunner.store.statistics import StatisticsRow

_MOST = (1 << 63) - 1

# The number of a row is its age: a new one follows all others. A sum of times passes 64 bits if the clock steps from
# 1970 to now while five thousand jobs wait; the column would refuse the sum, and with it each later round.
_ADD = f"""
INSERT INTO jobrunner_counters (name, queue, task, number) VALUES (?, ?, ?, ?)
ON CONFLICT (name, queue, task) DO UPDATE SET
    number = iif(number > {_MOST} - excluded.number, 0, number) + excluded.number"""


def add(conn: sqlite3.Connection, more: Counters) -> None:
    """Add to counters; one that does not exist yet begins at 0."""
    conn.executemany(_ADD, [(*key, min(number, _MOST)) for key, number in more.items()])


def count(conn: sqlite3.Connection, name: str, of: Iterable[tuple[str, str]]) -> None:
    """Count each of these pairs of queue and task once under a name."""
    add(conn, Counter((name, queue, task) for queue, task in of))


def of_row(row: StatisticsRow) -> Counters:
    """Return what a row of statistics adds to counters."""
    found = dict(row.counts)
    if row.succeeded:
        found[counters.attempts("succeeded")] = row.succeeded
    for name, histogram in ((counters.WAIT, row.wait), (counters.RUN, row.run)):
        for power, count in histogram.by_power().items():
            found[f"{name}:{power}"] = count
    return {(name, row.queue, row.task): number for name, number in found.items()}


def read(conn: sqlite3.Connection) -> dict[CounterKey, int]:
    """Return all counters, the oldest first."""
    rows = conn.execute("SELECT name, queue, task, number FROM jobrunner_counters ORDER BY counter")
    return {(name, queue, task): number for name, queue, task, number in rows}
