"""Stores which processes watch which jobs; runs inside an open transaction."""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from jobrunner.store.protocol import WATCH_US

_PUT = "INSERT INTO jobrunner_watchers (watcher, doorbell, jobs, beat_at) VALUES (?, ?, ?, ?)"


def put(
    conn: sqlite3.Connection, watcher: int, doorbell: str, jobs: Collection[str], now: int
) -> None:
    """Store the jobs of a watcher, or delete it if there are none; delete those of killed processes too."""
    conn.execute(
        "DELETE FROM jobrunner_watchers WHERE watcher = ? OR beat_at < ?", (watcher, now - WATCH_US)
    )
    if jobs:
        conn.execute(_PUT, (watcher, doorbell, json.dumps(sorted(jobs)), now))


def others(conn: sqlite3.Connection, watcher: int, now: int) -> Mapping[str, Sequence[str]]:
    """Return the doorbells of the other watchers, by the job that they watch."""
    found: dict[str, list[str]] = defaultdict(list)
    rows = conn.execute(
        "SELECT doorbell, jobs FROM jobrunner_watchers WHERE watcher <> ? AND beat_at >= ?",
        (watcher, now - WATCH_US),
    )
    for doorbell, jobs in rows:
        for job in json.loads(jobs):
            found[job].append(doorbell)
    return found
