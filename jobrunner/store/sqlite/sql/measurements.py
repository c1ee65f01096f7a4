"""Reads what a monitoring system wants to know, inside a read transaction."""

import os
import sqlite3
from pathlib import Path
from typing import Final

from jobrunner.store.measurements import BatchCounts, Measurements
from jobrunner.store.sqlite.sql import counters, limit_rows, queues, workers

CAP: Final = 10_000
_LAST_TICKS = """
SELECT id, last FROM jobrunner_schedules WHERE last IS NOT NULL ORDER BY created_at, id"""

# From the index alone.
_BATCHES: Final = """
SELECT count(*) FROM (
    SELECT 1 FROM jobrunner_batches INDEXED BY jobrunner_batches_running
    WHERE state = 'running' AND cancelled_at IS {} LIMIT ?
)"""


def read(conn: sqlite3.Connection, path: Path, counting: queues.Counting) -> Measurements:
    """Return all measurements, of one snapshot but for counts that ``counting`` remembers."""
    return Measurements(
        counters=counters.read(conn),
        queues=queues.queues(conn, counting),
        workers=workers.rows(conn),
        last_ticks=dict(conn.execute(_LAST_TICKS)),
        file_bytes=_size(path),
        log_bytes=_size(Path(f"{path}-wal")),
        lanes=limit_rows.lane_counts(conn, CAP),
        batches=_batches(conn),
    )


def _batches(conn: sqlite3.Connection) -> BatchCounts:
    ((running,),) = conn.execute(_BATCHES.format("NULL"), (CAP,)).fetchall()
    ((cancelling,),) = conn.execute(_BATCHES.format("NOT NULL"), (CAP,)).fetchall()
    return BatchCounts(running, cancelling)


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
