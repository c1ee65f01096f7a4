"""Reads jobs, dead letters and queues inside a read transaction; leaves no cursor open."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

from jobrunner.core.model import AttemptRow, Filter, JobRow, State
from jobrunner.store.sqlite.sql import groups, walks
from jobrunner.store.sqlite.sql.statements import (
    LANED,
    PLAIN,
    RETRYING,
    UNFINISHED,
    WAITING,
)
from jobrunner.store.sqlite.sql.walks import EVERYTHING, Position, Rows, Step

FEW: Final = 2_000
"""If a state has at most this many jobs, a list reads them all; else it walks all jobs, and soon finds enough."""
PAGE_ROOM: Final = 4_000_000
"""Maximum characters of arguments, errors and tracebacks on a page."""
LARGEST_WINDOW: Final = 2_000
"""Maximum keys in a window of jobs: the filtered columns follow the arguments (up to 1 MiB), which are read too."""

_JOB = f"""
    seq, id, task, queue, state, args, created_at, run_at, attempt, priority, key, tag, expires_at, max_attempts,
    timeout, started_at, first_started_at, finished_at, result, result_omitted, cancel_requested, crashes, replays,
    replay_of, schedule, scheduled_for, chain, after, trace, lane,
    (SELECT value FROM jobrunner_progress WHERE job = seq AND lease = jobrunner_jobs.lease),
    (SELECT id FROM jobrunner_batches WHERE seq = jobrunner_jobs.batch), handed, {RETRYING}"""

_LISTED_JOB = (
    _JOB.replace(" args,", " '',")
    .replace(" result,", " NULL,")
    .replace(" handed", " NULL")
    .partition(",")[2]
)
"""The columns after the key; without arguments and results, which may have a megabyte each."""

_LETTER = """
    seq, id, task, queue, 'dead', args, created_at, run_at, attempt, priority, key, tag, expires_at, max_attempts,
    timeout, started_at, first_started_at, died_at, NULL, NULL, 0, crashes, replays,
    replay_of, schedule, scheduled_for, chain, after, trace, lane,
    (SELECT value FROM jobrunner_progress WHERE job = seq AND lease = jobrunner_dead_letters.lease),
    (SELECT id FROM jobrunner_batches WHERE seq = jobrunner_dead_letters.batch), handed, 0,
    reason, error_type, error, traceback, replayed_as,
    fingerprint"""

_BY_STATE: Final[Mapping[State | None, str]] = {
    # Each uses the partial index of its state.
    "queued": f"SELECT seq FROM jobrunner_jobs WHERE {PLAIN}"
    f" UNION ALL SELECT seq FROM jobrunner_jobs WHERE {LANED}"
    " UNION ALL SELECT seq FROM jobrunner_jobs WHERE state = 'queued' AND suspect = 1",
    "scheduled": "SELECT seq FROM jobrunner_jobs INDEXED BY jobrunner_jobs_scheduled WHERE state = 'scheduled'",
    "running": "SELECT seq FROM jobrunner_jobs INDEXED BY jobrunner_jobs_running WHERE state = 'running'",
    "blocked": "SELECT seq FROM jobrunner_jobs INDEXED BY jobrunner_jobs_blocked WHERE state = 'blocked'",
    "cancelled": "SELECT seq FROM jobrunner_jobs INDEXED BY jobrunner_jobs_cancelled WHERE state = 'cancelled'",
    "expired": "SELECT seq FROM jobrunner_jobs INDEXED BY jobrunner_jobs_expired WHERE state = 'expired'",
}
_RETRYING: Final = f"""
    SELECT seq FROM jobrunner_jobs INDEXED BY jobrunner_jobs_retrying
    WHERE {RETRYING}"""
# Only the other finished jobs have no index of their own, so what remains of all finished ones is counted.
_FINISHED: Final = """
    SELECT 1 FROM jobrunner_jobs INDEXED BY jobrunner_jobs_finished
    WHERE state = 'succeeded' OR state = 'cancelled' OR state = 'expired'"""

MOST_BESIDE: Final = 100
"""The jobs of a chain that are read on each side of one."""

_UNFINISHED_STATES: Final[Sequence[State]] = ("queued", "scheduled", "running", "blocked")
_UNFINISHED: Final = " UNION ALL ".join(_BY_STATE[state] for state in _UNFINISHED_STATES)


def get(conn: sqlite3.Connection, id: str) -> JobRow | None:
    """Return a job or dead letter by its id."""
    for columns, table in ((_JOB, "jobrunner_jobs"), (_LETTER, "jobrunner_dead_letters")):
        row = conn.execute(f"SELECT {columns} FROM {table} WHERE id = ?", (id,)).fetchone()
        if row is not None:
            return JobRow(*row)
    return None


def listed(conn: sqlite3.Connection, ids: Sequence[str]) -> list[JobRow]:
    """Return jobs and dead letters by id, without arguments and results."""
    found: list[JobRow] = []
    for columns, table in (
        (f"seq, {_LISTED_JOB}", "jobrunner_jobs"),
        (_LETTER.replace(" args,", " '',"), "jobrunner_dead_letters"),
    ):
        rows = conn.execute(
            f"SELECT {columns} FROM {table} WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(ids),),
        )
        found += [JobRow(*row) for row in rows]
    return found


def everything(conn: sqlite3.Connection) -> Sequence[JobRow]:
    """Return all jobs and dead letters, for the small files of tests."""
    rows: list[JobRow] = []
    for columns, table in ((_JOB, "jobrunner_jobs"), (_LETTER, "jobrunner_dead_letters")):
        rows += (JobRow(*row) for row in conn.execute(f"SELECT {columns} FROM {table}"))
    return rows


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
    return walks.step(conn, _jobs(conn, where), _LISTED_JOB, position, limit=limit, room=room)


def count_jobs(
    conn: sqlite3.Connection, where: Filter, position: Position | None, cap: int
) -> tuple[int, Position | None]:
    """Run one step of counting jobs."""
    return walks.count(conn, _jobs(conn, where), position, cap=cap)


def _jobs(conn: sqlite3.Connection, where: Filter) -> Rows:
    """Return the rows to walk: jobs that match ``where``."""
    test, values = job_test(where)
    rows = Rows("jobrunner_jobs", "NOT INDEXED", "seq", test, values, largest=LARGEST_WINDOW)
    if where.batch is not None:
        if where.retrying or where.state in _UNFINISHED_STATES:
            return _members(rows._replace(test=f"{UNFINISHED} AND {test}"), "_unfinished")
        return _members(rows)
    if where.key is not None or where.tag is not None:
        return _by_label(rows, where)
    if where.retrying:
        return _if_few(conn, rows, _RETRYING) or rows
    if where.state in _BY_STATE:
        return _if_few(conn, rows, _BY_STATE[where.state]) or rows
    return rows


def unfinished(
    conn: sqlite3.Connection, where: Filter, position: Position | None, limit: int, room: int
) -> Step:
    """Run one step of a walk through unfinished jobs: id, state and chain."""
    test, values = job_test(where)
    rows = Rows(
        *("jobrunner_jobs", "NOT INDEXED", "seq", f"{UNFINISHED} AND {test}", values),
        largest=LARGEST_WINDOW,
    )
    among = _RETRYING if where.retrying else _BY_STATE.get(where.state, _UNFINISHED)
    few = _members(rows, "_unfinished") if where.batch is not None else _if_few(conn, rows, among)
    if few is not None:
        rows = few
    elif where.key is not None or where.tag is not None:
        rows = _by_label(rows, where)
    return walks.step(conn, rows, "id, state, chain", position, limit=limit, room=room)


def _members(rows: Rows, index: str = "") -> Rows:
    """Walk along an index of the members of batches."""
    return rows._replace(
        how=f"INDEXED BY jobrunner_jobs_batch{index}",
        test=f"batch IS NOT NULL AND {rows.test}",
        largest=EVERYTHING,
    )


def waiting(conn: sqlite3.Connection, seqs: Sequence[int], where: Filter) -> list[JobRow]:
    """Return the waiting ones of these jobs that match, without arguments and results."""
    test, values = job_test(where)
    rows = conn.execute(
        f"""
        SELECT seq, {_LISTED_JOB} FROM jobrunner_jobs NOT INDEXED
        WHERE seq IN (SELECT value FROM json_each(?)) AND {WAITING} AND {test}
        """,
        (json.dumps(seqs), *values),
    )
    return [JobRow(*row) for row in rows]


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
    if where.group is not None and where.batch is None:
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
    if where.batch is not None:
        rows = rows._replace(
            how="INDEXED BY jobrunner_dead_letters_batch",
            test=f"batch IS NOT NULL AND {rows.test}",
            window=EVERYTHING,
            largest=EVERYTHING,
        )
    elif where.group is not None and groups.is_small(conn, where.group):
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
        ("batch = (SELECT seq FROM jobrunner_batches WHERE id = ?)", where.batch),
        (f"{since} >= ?", where.since),
        (f"{since} < ?", where.until),
    ]
    asked = [(test, value) for test, value in tests if value is not None]
    parts = [test for test, _ in asked]
    if where.retrying:
        parts.append(RETRYING)
    return " AND ".join(parts) or "TRUE", tuple(value for _, value in asked)


def chain(conn: sqlite3.Connection, job: JobRow) -> Sequence[JobRow]:
    """Return the jobs stored in the chain of a job, in their order.

    They were inserted together, so their keys are neighbours; an index of chains would cost every job of one an entry.
    """
    if job.chain is None:
        return []
    found: list[JobRow] = []
    nearby = (job.chain, job.seq - MOST_BESIDE, job.seq + MOST_BESIDE)
    for columns, table in (
        (f"seq, {_LISTED_JOB}", "jobrunner_jobs"),
        (_LETTER.replace(" args,", " '',"), "jobrunner_dead_letters"),
    ):
        rows = conn.execute(
            f"SELECT {columns} FROM {table} WHERE chain = ? AND seq BETWEEN ? AND ?", nearby
        )
        found += [JobRow(*row) for row in rows]
    return sorted(found, key=lambda row: row.seq)


def counts(conn: sqlite3.Connection, cap: int) -> dict[str, int]:
    """Count the jobs in each state but ``dead``, and the retrying ones."""

    def count(select: str, most: int) -> int:
        number: int = conn.execute(f"SELECT count(*) FROM ({select} LIMIT ?)", (most,)).fetchone()[
            0
        ]
        return number

    found = {str(state): count(select, cap) for state, select in _BY_STATE.items()}
    other = found["cancelled"] + found["expired"]
    finished = count(_FINISHED, cap + other)
    return found | {"retrying": count(_RETRYING, cap), "succeeded": min(finished - other, cap)}


def data_version(conn: sqlite3.Connection) -> int:
    """Return SQLite's count of the commits that other connections made to the file.

    It is a number of this connection alone, so all answers that are compared come from one that only reads.
    """
    (version,) = conn.execute("PRAGMA data_version").fetchone()
    return int(version)
