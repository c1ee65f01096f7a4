"""Reads batches, their graphs and results inside a read transaction."""

import json
import sqlite3
from collections.abc import Collection, Sequence
from contextlib import closing
from typing import Final

from jobrunner.core.model import JobRow
from jobrunner.core.workflows import BatchGraph, BatchRow, BatchState, EdgeRow, ResultRow
from jobrunner.store.sqlite.sql import queries, walks
from jobrunner.store.sqlite.sql.statements import UNFINISHED
from jobrunner.store.sqlite.sql.walks import Position, Rows, Step
from jobrunner.store.workflow_protocol import ResultPage
from jobrunner.store.workflow_rules import EDGE_STATES, batch_row

# Each number but that of the running jobs comes from an index alone; those that run are few. INDEXED BY, since the
# planner takes the index of all members for each of them.
_NUMBERS: Final = f"""
    (SELECT count(*) FROM jobrunner_jobs INDEXED BY jobrunner_jobs_batch WHERE batch = b.seq AND batch IS NOT NULL),
    (SELECT count(*) FROM jobrunner_jobs INDEXED BY jobrunner_jobs_batch_unfinished
        WHERE batch = b.seq AND batch IS NOT NULL AND {UNFINISHED}),
    (SELECT count(*) FROM jobrunner_jobs INDEXED BY jobrunner_jobs_batch_stopped
        WHERE batch = b.seq AND batch IS NOT NULL AND (state = 'cancelled' OR state = 'expired')),
    (SELECT count(*) FROM jobrunner_dead_letters INDEXED BY jobrunner_dead_letters_batch
        WHERE batch = b.seq AND batch IS NOT NULL AND replayed_as IS NULL) + deleted,
    (SELECT count(*) FROM jobrunner_jobs INDEXED BY jobrunner_jobs_running
        WHERE b.state = 'running' AND batch = b.seq AND jobrunner_jobs.state = 'running')"""
_COLUMNS: Final = f"seq, id, name, state, created_at, ended_at, cancelled_at, parent, {_NUMBERS}"
_BATCH: Final = f"SELECT {_COLUMNS} FROM jobrunner_batches b WHERE"

# A job that waits for a batch of its own is none of its callbacks.
_OF_JOB: Final = """
SELECT coalesce(
    (SELECT batch FROM jobrunner_jobs WHERE id = :id),
    (SELECT batch FROM jobrunner_dead_letters WHERE id = :id),
    (
        SELECT called.seq FROM jobrunner_edges JOIN jobrunner_batches called ON called.id = needs
        WHERE job = :id AND called.parent IS NOT :id
    )
)"""
_CALLBACKS: Final = """
SELECT job FROM jobrunner_edges INDEXED BY jobrunner_edges_needs WHERE needs = ? AND job IS NOT ?"""
_MEMBERS: Final = """
SELECT seq, id FROM (
    SELECT seq, id FROM jobrunner_jobs INDEXED BY jobrunner_jobs_batch WHERE batch = :batch AND batch IS NOT NULL
    UNION ALL
    SELECT seq, id FROM jobrunner_dead_letters INDEXED BY jobrunner_dead_letters_batch
    WHERE batch = :batch AND batch IS NOT NULL AND replayed_as IS NULL
) ORDER BY seq LIMIT :limit"""
_EDGES: Final = """
SELECT job, needs, need, state FROM jobrunner_edges WHERE job IN (SELECT value FROM json_each(?))"""

_RESULTS: Final = """
SELECT id, task, state, result, result_omitted, finished_at FROM jobrunner_jobs
WHERE id IN (SELECT value FROM json_each(:ids))
UNION ALL
SELECT id, task, 'dead', NULL, NULL, died_at FROM jobrunner_dead_letters
WHERE id IN (SELECT value FROM json_each(:ids))"""
_MEMBER_RESULTS: Final = """
SELECT seq, id, task, state, result, result_omitted, finished_at
FROM jobrunner_jobs INDEXED BY jobrunner_jobs_batch
WHERE batch = (SELECT seq FROM jobrunner_batches WHERE id = :id) AND batch IS NOT NULL
    AND seq > :after AND state = 'succeeded'
    AND (:tasks IS NULL OR task IN (SELECT value FROM json_each(:tasks)))
ORDER BY seq LIMIT :limit"""


def get(conn: sqlite3.Connection, id: str) -> BatchRow | None:
    """Return a batch by its id."""
    row = conn.execute(f"{_BATCH} id = ?", (id,)).fetchone()
    return None if row is None else batch_row(row)


def of_job(conn: sqlite3.Connection, id: str) -> BatchRow | None:
    """Return the batch of a member or a callback."""
    (seq,) = conn.execute(_OF_JOB, {"id": id}).fetchone()
    row = conn.execute(f"{_BATCH} seq = ?", (seq,)).fetchone()
    return None if row is None else batch_row(row)


def page(
    conn: sqlite3.Connection,
    state: BatchState | None,
    name: str | None,
    position: Position | None,
    limit: int,
    room: int,
) -> Step:
    """Run one step of a walk through batches, newest first."""
    tests = [("state = ?", state), ("name = ?", name)]
    asked = [(test, value) for test, value in tests if value is not None]
    rows = Rows(
        "jobrunner_batches b",
        "NOT INDEXED" if name is None else "INDEXED BY jobrunner_batches_name",
        "seq",
        " AND ".join(test for test, _ in asked) or "TRUE",
        tuple(value for _, value in asked),
    )
    if name is not None:
        rows = rows._replace(test=f"name IS NOT NULL AND {rows.test}", window=walks.EVERYTHING)
    return walks.step(conn, rows, _COLUMNS, position, limit=limit, room=room)


def graph(conn: sqlite3.Connection, id: str, limit: int) -> BatchGraph | None:
    """Return members, callbacks and edges of a batch."""
    row = conn.execute("SELECT seq, parent FROM jobrunner_batches WHERE id = ?", (id,)).fetchone()
    if row is None:
        return None
    seq, parent = row
    found = conn.execute(_MEMBERS, {"batch": seq, "limit": limit + 1}).fetchall()
    members = [job for _, job in found[:limit]]
    callbacks = [job for (job,) in conn.execute(_CALLBACKS, (id, parent)).fetchall()]
    edges = conn.execute(_EDGES, (json.dumps([*members, *callbacks]),)).fetchall()
    rows = {row.id: row for row in queries.listed(conn, [*members, *callbacks])}
    return BatchGraph(
        _in_order(rows, members),
        sorted(_in_order(rows, callbacks), key=lambda row: row.seq),
        [EdgeRow(job, needs, need, EDGE_STATES[state]) for job, needs, need, state in edges],
        complete=len(found) <= limit,
    )


def _in_order(rows: dict[str, JobRow], ids: Sequence[str]) -> list[JobRow]:
    return [rows[id] for id in ids if id in rows]


def results(conn: sqlite3.Connection, ids: Collection[str]) -> dict[str, ResultRow]:
    """Return the states and results of jobs by id."""
    rows = conn.execute(_RESULTS, {"ids": json.dumps(sorted(ids))}).fetchall()
    return {row[0]: ResultRow(*row) for row in rows}


def member_results(
    conn: sqlite3.Connection, id: str, tasks: Collection[str] | None, after: int, limit: int
) -> ResultPage:
    """Return a page of the results of the members that succeeded."""
    given = {
        "id": id,
        "tasks": None if tasks is None else json.dumps(sorted(tasks)),
        "after": after,
        "limit": limit + 1,
    }
    found: list[ResultRow] = []
    last, size = after, 0
    with closing(conn.execute(_MEMBER_RESULTS, given)) as cursor:
        for seq, *row in cursor:
            if len(found) == limit or size >= queries.PAGE_ROOM:
                return ResultPage(found, last)
            found.append(ResultRow(*row))
            last = seq
            size += len(found[-1].result or "")
    return ResultPage(found, None)
