"""Files with a past: a million rows put in by plain SQL, into the tables that the package's own migrations make.

The only place of the benchmark that knows the tables; all rows are such as the store would have written.
"""

import sqlite3
import time
from pathlib import Path

from jobrunner.store.sqlite.maintenance import migrate

DAY_US = 86_400_000_000

NUMBERS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows) "

WAITING = f"""
INSERT INTO jobrunner_jobs (id, task, queue, state, args, priority, created_at, run_at)
{NUMBERS} SELECT printf('%08x-0000-7000-8000-%012x', :group, i), :task, :queue, :state, '{{"number":1}}', 0, :now,
    :run_at + i
FROM n"""

FINISHED = f"""
INSERT INTO jobrunner_jobs (
    id, task, queue, state, args, priority, created_at, run_at, attempt, lease, started_at, first_started_at,
    finished_at
)
{NUMBERS} SELECT printf('%08x-0000-7000-8000-%012x', :group, i), :task, :queue, 'succeeded', '{{"number":1}}', 0,
    :now, :now, 1, 1, :now, :now, :now - :rows + i
FROM n"""

THEIR_ATTEMPTS = """
INSERT INTO jobrunner_attempts (job, lease, attempt, worker, started_at, finished_at, outcome)
SELECT seq, 1, 1, 1, :now, :now, 'succeeded' FROM jobrunner_jobs WHERE state = 'succeeded'"""

DEAD = f"""
INSERT INTO jobrunner_dead_letters (
    seq, id, task, queue, args, priority, created_at, run_at, attempt, lease, started_at, first_started_at, crashes,
    replays, died_at, reason, error_type, error, traceback
)
{NUMBERS} SELECT :first + i, printf('%08x-0000-7000-8000-%012x', :group, i), :task, :queue, '{{"number":1}}', 0, :now,
    :now, 1, 1, :now, :now, 0, 0, :now - :rows + i, 'exhausted', 'ValueError', 'no', 'Traceback: no'
FROM n"""

SCHEDULED = f"""
INSERT INTO jobrunner_schedules (
    id, source, task, args, cron, timezone, options, misfire, cap, overlap, jitter, revision, edition, paused,
    disabled, created_at, next, fired, skipped
)
{NUMBERS} SELECT printf('schedule:%d:%d', :group, i), 'stored', :task, '{{"number":1}}', '0 8 * * *', 'UTC', '{{}}',
    'latest', 100, 'allow', 0, 0, 0, 0, 0, :now, :next + i, 0, 0
FROM n"""


class Past:
    """A database file that is filled before anybody opens it."""

    def __init__(self, file: Path) -> None:
        self._now = time.time_ns() // 1000
        self._groups = 0
        self._conn = sqlite3.connect(file, isolation_level=None)
        self._conn.execute("PRAGMA journal_mode = WAL")
        self._conn.execute("PRAGMA synchronous = OFF")
        self._conn.execute("PRAGMA cache_size = -262144")
        while migrate.check(self._conn):
            self._conn.execute("BEGIN IMMEDIATE")
            migrate.migrate_one(self._conn)
            self._conn.execute("COMMIT")

    def future(self, rows: int, *, task: str = "noop", queue: str = "default") -> None:
        """Add jobs that are due in ten days."""
        self._add(WAITING, rows, task, queue, state="scheduled", run_at=self._now + 10 * DAY_US)

    def queued(self, rows: int, *, task: str = "noop", queue: str = "default") -> None:
        """Add jobs that have been due for a day: they stand at the head of their queue."""
        self._add(WAITING, rows, task, queue, state="queued", run_at=self._now - DAY_US)

    def finished(self, rows: int, *, task: str = "noop", queue: str = "default") -> None:
        """Add jobs that have just succeeded, with their attempts."""
        self._add(FINISHED, rows, task, queue)
        self._conn.execute(THEIR_ATTEMPTS, {"now": self._now})

    def dead(self, rows: int, *, task: str = "noop", queue: str = "default") -> None:
        """Add dead letters."""
        (first,) = self._conn.execute("SELECT coalesce(max(seq), 0) FROM jobrunner_jobs").fetchone()
        self._add(DEAD, rows, task, queue, first=first)
        # Their numbers count as used, as they do after a move.
        self._conn.execute(
            "UPDATE sqlite_sequence SET seq = ? WHERE name = 'jobrunner_jobs'", (first + rows,)
        )

    def schedules(self, rows: int, *, task: str = "noop") -> None:
        """Add schedules that were stored at run time and tick in ten days."""
        self._add(SCHEDULED, rows, task, "default", next=self._now + 10 * DAY_US)

    def paused(self, queue: str) -> None:
        """Pause a queue."""
        self._conn.execute("INSERT INTO jobrunner_paused_queues VALUES (?, ?)", (queue, self._now))

    def close(self) -> None:
        """Move everything into the file and close it."""
        self._conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._conn.close()

    def _add(self, statement: str, rows: int, task: str, queue: str, **more: int | str) -> None:
        self._groups += 1
        values = {
            "rows": rows,
            "group": self._groups,
            "task": task,
            "queue": queue,
            "now": self._now,
        }
        self._conn.execute("BEGIN")
        self._conn.execute(statement, values | more)
        self._conn.execute("COMMIT")
