"""Stores the progress of attempts, and deletes the history of jobs."""

import sqlite3
from collections.abc import Sequence

from jobrunner.core.model import Progressed

# An attempt whose session has settled the job may still report what it did before.
_KEEP_PROGRESS = """
INSERT INTO jobrunner_progress (job, lease, value)
SELECT seq, lease, ? FROM jobrunner_jobs
WHERE seq = ? AND lease = ? AND (worker = ? OR state = 'succeeded')
ON CONFLICT (job) DO UPDATE SET lease = excluded.lease, value = excluded.value"""


def keep_progress(conn: sqlite3.Connection, progress: Sequence[Progressed]) -> None:
    """Store the progress of attempts; drop that of attempts that are no longer their worker's."""
    conn.executemany(
        _KEEP_PROGRESS, [(value, job.seq, job.lease, job.worker) for job, value in progress]
    )


def delete(conn: sqlite3.Connection, jobs: Sequence[tuple[int]]) -> None:
    """Delete the attempts, the progress and the memos of jobs, given by ``seq``."""
    conn.executemany("DELETE FROM jobrunner_attempts WHERE job = ?", jobs)
    conn.executemany("DELETE FROM jobrunner_progress WHERE job = ?", jobs)
    conn.executemany("DELETE FROM jobrunner_steps WHERE job = ?", jobs)
