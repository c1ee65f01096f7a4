"""What can be asked of the file without changing it, inside one read transaction; none holds a cursor open."""

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from jobrunner.model import AttemptRow, Filter, JobRow, QueueStats
from jobrunner.store.protocol import Page
from jobrunner.store.sqlite.statements import WAITING_TASKS

COUNT_CAP: Final = 100_000
"""Counting stops here: a page must not cost more the longer the queue is."""
MAX_INTEGER: Final = 2**63 - 1
"""The largest that SQLite knows."""

_JOB = """
SELECT seq, id, task, queue, state, args, created_at, run_at, attempt, priority, key, tag, expires_at, max_attempts,
    timeout, started_at, first_started_at, finished_at, result, result_omitted, cancel_requested, crashes, replays,
    replay_of, schedule, scheduled_for, chain, after
FROM jobrunner_jobs"""

_LETTER = """
SELECT seq, id, task, queue, 'dead', args, created_at, run_at, attempt, priority, key, tag, expires_at, max_attempts,
    timeout, started_at, first_started_at, died_at, NULL, NULL, 0, crashes, replays,
    replay_of, schedule, scheduled_for, chain, after, reason, error_type, error, traceback, replayed_as, letter
FROM jobrunner_dead_letters"""


def get(conn: sqlite3.Connection, id: str) -> JobRow | None:
    """Return a job or dead letter by its id."""
    for query in (_JOB, _LETTER):
        row = conn.execute(f"{query} WHERE id = ?", (id,)).fetchone()
        if row is not None:
            return JobRow(*row[: len(JobRow._fields)])
    return None


def attempts(conn: sqlite3.Connection, seq: int) -> Sequence[AttemptRow]:
    """Return a job's attempts, oldest first, the running one last."""
    rows = conn.execute(
        """
        SELECT attempt, lease, worker, started_at, finished_at, outcome, error_type, error, traceback
        FROM jobrunner_attempts WHERE job = :seq
        UNION ALL
        SELECT attempt, lease, worker, started_at, NULL, NULL, NULL, NULL, NULL
        FROM jobrunner_jobs WHERE seq = :seq AND state = 'running'
        ORDER BY lease
        """,
        {"seq": seq},
    )
    return [AttemptRow(*row) for row in rows]


def jobs(conn: sqlite3.Connection, where: Filter, before: int | None, limit: int) -> Page:
    """Return a page of jobs, newest first."""
    clause, values = _where(where, since="created_at", cursor="seq", before=before)
    rows = conn.execute(
        f"{_JOB} {clause} ORDER BY seq DESC LIMIT ?", (*values, limit + 1)
    ).fetchall()
    more = len(rows) > limit
    found = [JobRow(*row) for row in rows[:limit]]
    return Page(found, found[-1].seq if more else None)


def dead_letters(conn: sqlite3.Connection, where: Filter, before: int | None, limit: int) -> Page:
    """Return a page of dead letters, last died first."""
    clause, values = letters_where(where, before)
    rows = conn.execute(
        f"{_LETTER} {clause} ORDER BY letter DESC LIMIT ?", (*values, limit + 1)
    ).fetchall()
    more = len(rows) > limit
    rows = rows[:limit]
    return Page([JobRow(*row[:-1]) for row in rows], rows[-1][-1] if more else None)


def count_dead_letters(conn: sqlite3.Connection, where: Filter, cap: int) -> int:
    """Count dead letters, at most ``cap``."""
    clause, values = letters_where(where, None)
    (count,) = conn.execute(
        f"SELECT count(*) FROM (SELECT 1 FROM jobrunner_dead_letters {clause} LIMIT ?)",
        (*values, cap),
    ).fetchone()
    return int(count)


def letters_where(where: Filter, before: int | None) -> tuple[str, list[Any]]:
    """Return the clause and values that pick the dead letters which ``where`` means and nobody has replayed yet."""
    clause, values = _where(where, since="died_at", cursor="letter", before=before)
    return f"{clause} AND replayed_as IS NULL" if clause else "WHERE replayed_as IS NULL", values


def _where(where: Filter, *, since: str, cursor: str, before: int | None) -> tuple[str, list[Any]]:
    tests = [
        ("task = ?", where.task),
        ("queue = ?", where.queue),
        ("state = ?", where.state),
        ("reason = ?", where.reason),
        ("tag = ?", where.tag),
        ("key = ?", where.key),
        (f"{since} >= ?", where.since),
        (f"{since} < ?", where.until),
        (f"{cursor} < ?", before),
    ]
    asked = [(test, value) for test, value in tests if value is not None]
    if not asked:
        return "", []
    return f"WHERE {' AND '.join(test for test, _ in asked)}", [value for _, value in asked]


def queues(conn: sqlite3.Connection) -> Sequence[QueueStats]:
    """Return the queues that hold waiting or running jobs, or are paused."""
    paused = {name for (name,) in conn.execute("SELECT queue FROM jobrunner_paused_queues")}
    queued = {name: _count_queued(conn, name) for name in _queues_with_queued(conn)}
    scheduled = dict(
        conn.execute(
            f"""
            SELECT queue, count(*) FROM (
                SELECT queue FROM jobrunner_jobs WHERE state = 'scheduled' ORDER BY run_at LIMIT {COUNT_CAP}
            ) GROUP BY queue
            """
        )
    )
    blocked = dict(
        conn.execute(
            f"""
            SELECT queue, count(*) FROM (
                SELECT queue FROM jobrunner_jobs WHERE state = 'blocked' LIMIT {COUNT_CAP}
            ) GROUP BY queue
            """
        )
    )
    running = dict(
        conn.execute(
            "SELECT queue, count(*) FROM jobrunner_jobs WHERE state = 'running' GROUP BY queue"
        )
    )
    suspects = dict(
        conn.execute(
            "SELECT queue, count(*) FROM jobrunner_jobs WHERE state = 'queued' AND suspect = 1 GROUP BY queue"
        )
    )
    oldest: dict[str, int] = {}
    for name, _, due in waiting_tasks(conn):
        oldest[name] = min(due, oldest.get(name, due))
    names = sorted(paused.union(queued, scheduled, blocked, running, suspects))
    return [
        QueueStats(
            name,
            name in paused,
            queued.get(name, 0) + suspects.get(name, 0),
            scheduled.get(name, 0),
            blocked.get(name, 0),
            running.get(name, 0),
            oldest.get(name),
        )
        for name in names
    ]


def _queues_with_queued(conn: sqlite3.Connection) -> list[str]:
    return [
        name
        for (name,) in conn.execute(
            """
            WITH RECURSIVE waiting (queue) AS (
                SELECT min(queue) FROM jobrunner_jobs WHERE state = 'queued' AND suspect = 0
                UNION ALL
                SELECT (
                    SELECT min(queue) FROM jobrunner_jobs
                    WHERE state = 'queued' AND suspect = 0 AND queue > waiting.queue
                ) FROM waiting WHERE waiting.queue IS NOT NULL
            )
            SELECT queue FROM waiting WHERE queue IS NOT NULL
            """
        )
    ]


def _count_queued(conn: sqlite3.Connection, queue: str) -> int:
    (count,) = conn.execute(
        f"""
        SELECT count(*) FROM (
            SELECT 1 FROM jobrunner_jobs
            WHERE state = 'queued' AND suspect = 0 AND queue = ? LIMIT {COUNT_CAP}
        )
        """,
        (queue,),
    ).fetchone()
    return int(count)


def waiting_tasks(conn: sqlite3.Connection) -> Sequence[tuple[str, str, int]]:
    """Return ``(queue, task, due_since)`` for each pair with queued jobs."""
    due_since: dict[tuple[str, str], int] = {
        (queue, task): due
        for queue, task, due in conn.execute(
            """
            SELECT queue, task, min(run_at) FROM jobrunner_jobs
            WHERE state = 'queued' AND suspect = 1 GROUP BY queue, task
            """
        )
    }
    for queue in _queues_with_queued(conn):
        for (task,) in conn.execute(WAITING_TASKS, {"queue": queue}):
            due = _oldest_due(conn, queue, task)
            due_since[queue, task] = min(due, due_since.get((queue, task), due))
    return [(queue, task, due) for (queue, task), due in sorted(due_since.items())]


def _oldest_due(conn: sqlite3.Connection, queue: str, task: str) -> int:
    """Return when the longest-waiting job of the task became due; one seek for each priority that occurs.

    The first in claim order would not do: what starves behind it is just what is to be seen.
    """
    firsts: list[int] = []
    priority = MAX_INTEGER
    while True:
        row = conn.execute(
            """
            SELECT priority, run_at FROM jobrunner_jobs
            WHERE state = 'queued' AND suspect = 0 AND queue = ? AND task = ? AND priority < ?
            ORDER BY priority DESC, run_at LIMIT 1
            """,
            (queue, task, priority),
        ).fetchone()
        if row is None:
            return min(firsts)
        priority, due = row
        firsts.append(due)
