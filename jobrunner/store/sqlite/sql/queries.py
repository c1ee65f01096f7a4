"""Reads jobs, dead letters and queues inside a read transaction; leaves no cursor open."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

from jobrunner.core.clock import now_s
from jobrunner.core.model import AttemptRow, Filter, JobRow, QueueStats, State
from jobrunner.store.sqlite.sql import groups, walks
from jobrunner.store.sqlite.sql.statements import UNFINISHED, WAITING_TASKS
from jobrunner.store.sqlite.sql.walks import EVERYTHING, MAX_INTEGER, Position, Rows, Step

COUNT_CAP: Final = 10_000
"""Counting stops at this number, so that a long queue does not make a page slower."""
COUNT_S: Final = 0.01
"""Counting stops after this time, however many queues there are."""
_CAPS: Final = (100, 1_000, COUNT_CAP)
"""Every queue is counted up to the first cap; then, as long as there is time, up to the next ones."""
FEW: Final = 2_000
"""If a state has at most this many jobs, a list reads them all; else it walks all jobs, and soon finds enough."""
PAGE_ROOM: Final = 4_000_000
"""Maximum characters of arguments, errors and tracebacks on a page."""
LARGEST_WINDOW: Final = 2_000
"""Maximum keys in a window of jobs: the filtered columns follow the arguments (up to 1 MiB), which are read too."""

_JOB = """
    seq, id, task, queue, state, args, created_at, run_at, attempt, priority, key, tag, expires_at, max_attempts,
    timeout, started_at, first_started_at, finished_at, result, result_omitted, cancel_requested, crashes, replays,
    replay_of, schedule, scheduled_for, chain, after"""

_LISTED_JOB = _JOB.replace(" args,", " '',").replace(" result,", " NULL,").partition(",")[2]
"""The columns after the key; without arguments and results, which may have a megabyte each."""

_LETTER = """
    seq, id, task, queue, 'dead', args, created_at, run_at, attempt, priority, key, tag, expires_at, max_attempts,
    timeout, started_at, first_started_at, died_at, NULL, NULL, 0, crashes, replays,
    replay_of, schedule, scheduled_for, chain, after, reason, error_type, error, traceback, replayed_as,
    fingerprint"""

_BY_STATE: Final[Mapping[State | None, str]] = {
    # Each uses the partial index of its state.
    "queued": "SELECT seq FROM jobrunner_jobs WHERE state = 'queued' AND suspect = 0"
    " UNION ALL SELECT seq FROM jobrunner_jobs WHERE state = 'queued' AND suspect = 1",
    "scheduled": "SELECT seq FROM jobrunner_jobs INDEXED BY jobrunner_jobs_scheduled WHERE state = 'scheduled'",
    "running": "SELECT seq FROM jobrunner_jobs INDEXED BY jobrunner_jobs_running WHERE state = 'running'",
    "blocked": "SELECT seq FROM jobrunner_jobs INDEXED BY jobrunner_jobs_blocked WHERE state = 'blocked'",
}

_UNFINISHED: Final = " UNION ALL ".join(_BY_STATE.values())

_QUEUED = """
SELECT ?, count(*) FROM (
    SELECT 1 FROM jobrunner_jobs WHERE state = 'queued' AND suspect = 0 AND queue = ? LIMIT ?
)"""
_BY_QUEUE = (
    "SELECT queue, count(*) FROM (SELECT queue FROM jobrunner_jobs WHERE {} LIMIT ?) GROUP BY queue"
)
_SUSPECTS = _BY_QUEUE.format("state = 'queued' AND suspect = 1")
_SCHEDULED = _BY_QUEUE.format("state = 'scheduled' ORDER BY run_at")
_BLOCKED = _BY_QUEUE.format("state = 'blocked'")


def get(conn: sqlite3.Connection, id: str) -> JobRow | None:
    """Return a job or dead letter by its id."""
    for columns, table in ((_JOB, "jobrunner_jobs"), (_LETTER, "jobrunner_dead_letters")):
        row = conn.execute(f"SELECT {columns} FROM {table} WHERE id = ?", (id,)).fetchone()
        if row is not None:
            return JobRow(*row)
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


def jobs(
    conn: sqlite3.Connection, where: Filter, position: Position | None, limit: int, room: int
) -> Step:
    """Run one step of a walk through jobs, newest first, without arguments and results."""
    test, values = job_test(where)
    rows = Rows("jobrunner_jobs", "NOT INDEXED", "seq", test, values, largest=LARGEST_WINDOW)
    if where.key is not None or where.tag is not None:
        rows = _by_label(rows, where)
    elif where.state in _BY_STATE:
        rows = _if_few(conn, rows, _BY_STATE[where.state]) or rows
    return walks.step(conn, rows, _LISTED_JOB, position, limit=limit, room=room)


def unfinished(
    conn: sqlite3.Connection, where: Filter, position: Position | None, limit: int, room: int
) -> Step:
    """Run one step of a walk through unfinished jobs: id, state and chain."""
    test, values = job_test(where)
    rows = Rows(
        *("jobrunner_jobs", "NOT INDEXED", "seq", f"{UNFINISHED} AND {test}", values),
        largest=LARGEST_WINDOW,
    )
    few = _if_few(conn, rows, _BY_STATE.get(where.state, _UNFINISHED))
    if few is not None:
        rows = few
    elif where.key is not None or where.tag is not None:
        rows = _by_label(rows, where)
    return walks.step(conn, rows, "id, state, chain", position, limit=limit, room=room)


def _by_label(rows: Rows, where: Filter) -> Rows:
    """Walk along the index of the key or the tag that the filter names."""
    label = "tag" if where.key is None else "key"
    return rows._replace(how=f"INDEXED BY jobrunner_jobs_by_{label}", largest=EVERYTHING)


def _if_few(conn: sqlite3.Connection, rows: Rows, among: str) -> Rows | None:
    """Restrict a walk to the jobs of a statement; None if it has more than ``FEW``."""
    few = conn.execute(f"{among} LIMIT {FEW + 1}").fetchall()
    if len(few) > FEW:
        return None
    return rows._replace(
        test=f"seq IN (SELECT value FROM json_each(?)) AND {rows.test}",
        values=(json.dumps([seq for (seq,) in few]), *rows.values),
        window=EVERYTHING,
        largest=EVERYTHING,
    )


def dead_letters(
    conn: sqlite3.Connection, where: Filter, position: Position | None, limit: int, room: int
) -> Step:
    """Run one step of a walk through dead letters, most recent death first."""
    return walks.step(conn, letters(conn, where), _LETTER, position, limit=limit, room=room)


def count_dead_letters(
    conn: sqlite3.Connection, where: Filter, position: Position | None, cap: int
) -> tuple[int, Position | None]:
    """Run one step of counting dead letters."""
    rows = letters(conn, where)
    if where.group is not None:
        rows = rows._replace(how=groups.INDEX, window=EVERYTHING, largest=EVERYTHING)
    return walks.count(conn, rows, position, cap=cap)


def letters(conn: sqlite3.Connection, where: Filter) -> Rows:
    """Return the rows to walk: dead letters that match ``where`` and were not replayed."""
    test, values = _test(where, since="died_at")
    rows = Rows(
        "jobrunner_dead_letters",
        "INDEXED BY jobrunner_dead_letters_listed",
        "letter",
        f"replayed_as IS NULL AND {test}",
        values,
    )
    if where.group is not None and groups.is_small(conn, where.group):
        rows = rows._replace(
            how="NOT INDEXED",
            test=f"letter IN ({groups.LETTERS}) AND {rows.test}",
            values=(where.group, *rows.values),
            window=EVERYTHING,
            largest=EVERYTHING,
        )
    return rows


def job_test(where: Filter) -> tuple[str, tuple[str | int, ...]]:
    """Return a condition on the columns of jobs for a filter, with its values."""
    return _test(where, since="created_at")


def _test(where: Filter, *, since: str) -> tuple[str, tuple[str | int, ...]]:
    tests = [
        ("task = ?", where.task),
        ("queue = ?", where.queue),
        ("state = ?", where.state),
        ("reason = ?", where.reason),
        ("tag = ?", where.tag),
        ("key = ?", where.key),
        ("fingerprint = ?", where.group),
        (f"{since} >= ?", where.since),
        (f"{since} < ?", where.until),
    ]
    asked = [(test, value) for test, value in tests if value is not None]
    return " AND ".join(test for test, _ in asked) or "TRUE", tuple(value for _, value in asked)


def queues(conn: sqlite3.Connection) -> Sequence[QueueStats]:
    """Return the queues that have unfinished jobs or are paused."""
    paused = {name for (name,) in conn.execute("SELECT queue FROM jobrunner_paused_queues")}
    running = dict(
        conn.execute(
            "SELECT queue, count(*) FROM jobrunner_jobs WHERE state = 'running' GROUP BY queue"
        )
    )
    queued = {name: _Count(_QUEUED, name, name) for name in _queues_with_queued(conn)}
    suspects, scheduled, blocked = _Count(_SUSPECTS), _Count(_SCHEDULED), _Count(_BLOCKED)
    over_all = (suspects, scheduled, blocked)
    _count(conn, [*over_all, *queued.values()])
    oldest: dict[str, int] = {}
    for name, _, due in waiting_tasks(conn):
        oldest[name] = min(due, oldest.get(name, due))
    names = sorted(paused.union(running, queued, *(count.by_queue for count in over_all)))
    found: list[QueueStats] = []
    for name in names:
        waiting = (suspects, queued[name]) if name in queued else (suspects,)
        found.append(
            QueueStats(
                name,
                name in paused,
                sum(count.by_queue.get(name, 0) for count in waiting),
                scheduled.by_queue.get(name, 0),
                blocked.by_queue.get(name, 0),
                running.get(name, 0),
                oldest.get(name),
                all(count.complete for count in (*waiting, scheduled, blocked)),
            )
        )
    return found


class _Count:
    """Counts rows by queue, up to a cap."""

    def __init__(self, select: str, *values: str) -> None:
        self.by_queue: Mapping[str, int] = {}
        self.complete = False
        self._select = select
        self._values = values

    def up_to(self, conn: sqlite3.Connection, cap: int) -> None:
        self.by_queue = dict(conn.execute(self._select, (*self._values, cap)))
        self.complete = sum(self.by_queue.values()) < cap


def _count(conn: sqlite3.Connection, counts: Sequence[_Count]) -> None:
    """Count up to the smallest cap, then to larger ones while there is time."""
    first, *larger = _CAPS
    for count in counts:
        count.up_to(conn, first)
    with walks.interrupted(conn, now_s() + COUNT_S):
        for cap in larger:
            for count in counts:
                if not count.complete:
                    count.up_to(conn, cap)


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
    """Return the earliest due time of the task's queued jobs; one seek per priority.

    The first job in claim order is not enough: a job of lower priority that starves behind it must be found.
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
