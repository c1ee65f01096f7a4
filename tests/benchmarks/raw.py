"""The yardstick: the least that a fair durable queue in plain ``sqlite3`` can do, with one connection and no asyncio.

One table with a unique public id and a partial index on what waits; WAL and ``synchronous=FULL``, as we have it.  A
life cycle is insert, claim (one UPDATE with RETURNING) and delete, each in transactions of ``BATCH`` rows: no attempt
rows, no leases, no validation, nobody to answer one by one.
"""

import sqlite3
import time
from pathlib import Path
from typing import NamedTuple

BATCH = 500

SCHEMA = """
CREATE TABLE queue (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, task TEXT NOT NULL, payload TEXT NOT NULL,
    state TEXT NOT NULL, run_at INTEGER NOT NULL
);
CREATE INDEX queue_waiting ON queue (run_at, seq) WHERE state = 'queued';
"""

INSERT = (
    "INSERT INTO queue (id, task, payload, state, run_at) VALUES (?, 'noop', '{}', 'queued', ?)"
)

CLAIM = """
UPDATE queue SET state = 'running' WHERE seq IN (
    SELECT seq FROM queue WHERE state = 'queued' ORDER BY run_at, seq LIMIT ?
) RETURNING seq"""

DELETE = "DELETE FROM queue WHERE seq = ?"


class Rates(NamedTuple):
    """Rows per second."""

    inserts: float
    life_cycles: float


def batched(directory: Path, rows: int) -> Rates:
    """Insert all rows, then claim and delete them all, in batches."""
    conn = _open(directory)
    ids = [_id(number) for number in range(rows)]
    started = time.perf_counter()
    for first in range(0, rows, BATCH):
        conn.execute("BEGIN IMMEDIATE")
        conn.executemany(
            INSERT, zip(ids[first : first + BATCH], range(first, first + BATCH), strict=False)
        )
        conn.execute("COMMIT")
    inserted = time.perf_counter()
    for _ in range(0, rows, BATCH):
        conn.execute("BEGIN IMMEDIATE")
        claimed = conn.execute(CLAIM, (BATCH,)).fetchall()
        conn.execute("COMMIT")
        conn.execute("BEGIN IMMEDIATE")
        conn.executemany(DELETE, claimed)
        conn.execute("COMMIT")
    ended = time.perf_counter()
    conn.close()
    return Rates(inserts=rows / (inserted - started), life_cycles=rows / (ended - started))


def single_commits(directory: Path, commits: int) -> list[float]:
    """Insert rows one by one, a transaction each; return how long each took in ms."""
    conn = _open(directory)
    took = []
    for number in range(commits):
        started = time.perf_counter()
        conn.execute("BEGIN IMMEDIATE")
        conn.execute(INSERT, (_id(number), number))
        conn.execute("COMMIT")
        took.append((time.perf_counter() - started) * 1000)
    conn.close()
    return took


def _id(number: int) -> str:
    return f"0190a{number:07d}-0000-7000-8000-000000000000"


def _open(directory: Path) -> sqlite3.Connection:
    conn = sqlite3.connect(directory / "raw.sqlite", isolation_level=None)
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("PRAGMA synchronous = FULL")
    conn.executescript(SCHEMA)
    return conn
