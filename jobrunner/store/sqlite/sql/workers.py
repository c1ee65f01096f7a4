"""Stores workers' rows and recovers the jobs of dead workers.

Runs inside an open transaction.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from jobrunner.core.clock import SECOND_US
from jobrunner.core.model import WorkerRow
from jobrunner.core.wait_graph import Snapshot, WaitingAttempt, WaitReport
from jobrunner.store import rules
from jobrunner.store.counters import CANCELLED, DEAD_WORKERS, CounterKey, attempts
from jobrunner.store.effects import Effects
from jobrunner.store.protocol import WorkerStart
from jobrunner.store.sqlite.sql import counters, ends, lanes, statistics
from jobrunner.store.sqlite.sql.ends import End
from jobrunner.store.sqlite.sql.groups import burial
from jobrunner.store.sqlite.sql.statements import BURY_RUNNING, CANCEL, FENCE, KEEP_ATTEMPT, REMOVE

MINUTE_US: Final = 60 * SECOND_US
MOST_STARTS: Final = 120
_LOST = "the process that ran this attempt died"
_QUEUE_AGAIN = f"""
UPDATE jobrunner_jobs SET state = 'queued', worker = NULL, crashes = ?, suspect = ?
{FENCE}"""


_LAG: Final = "lag:"
"""Before the number of a worker, in the table of single values: one page alone reads it."""
_KEEP_LAG: Final = """
INSERT INTO jobrunner_meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"""


class Taken(NamedTuple):
    """The result of recovering the jobs of one dead worker."""

    requeued: int
    buried: Sequence[str]


def join(conn: sqlite3.Connection, worker: WorkerRow) -> None:
    """Store a worker's row."""
    conn.execute(
        "INSERT INTO jobrunner_workers (worker, pid, host, started_at, beat_at, doorbell, queues, tasks, revision)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            worker.worker,
            worker.pid,
            worker.host,
            worker.started_at,
            worker.beat_at,
            worker.doorbell,
            json.dumps(dict(worker.queues)),
            json.dumps(dict(worker.tasks)),
            worker.revision,
        ),
    )
    _note_start(conn, worker)


def _note_start(conn: sqlite3.Connection, worker: WorkerRow) -> None:
    """Keep a worker's start, since its row is deleted when it leaves."""
    minute = worker.started_at // MINUTE_US
    others = [one for one in starts(conn) if one.at // MINUTE_US != minute]
    kept = sorted(
        [*others, WorkerStart(worker.started_at, worker.revision)], key=lambda one: one.at
    )[-MOST_STARTS:]
    conn.execute(
        "INSERT INTO jobrunner_meta (name, value) VALUES ('worker_starts', ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (json.dumps(kept),),
    )


def starts(conn: sqlite3.Connection) -> Sequence[WorkerStart]:
    """Return the latest starts of workers, oldest first."""
    row = conn.execute("SELECT value FROM jobrunner_meta WHERE name = 'worker_starts'").fetchone()
    return [] if row is None else [WorkerStart(*one) for one in json.loads(row[0])]


def leave(conn: sqlite3.Connection, worker: int, now: int) -> None:
    """Queue a worker's running jobs, give their attempts back, and delete its row.

    Jobs that were asked to stop are cancelled instead of queued.
    """
    conn.execute(
        """
        INSERT INTO jobrunner_attempts
        SELECT seq, lease, attempt, worker, started_at, ?, 'released', NULL, NULL, NULL
        FROM jobrunner_jobs WHERE state = 'running' AND worker = ?
        """,
        (now, worker),
    )
    given_back = conn.execute(
        """
        UPDATE jobrunner_jobs SET state = iif(cancel_requested, 'cancelled', 'queued'), worker = NULL,
            finished_at = iif(cancel_requested, ?, NULL), attempt = attempt - 1
        WHERE state = 'running' AND worker = ?
        RETURNING id, chain, batch, state, queue, task, seq, lane
        """,
        (now, worker),
    ).fetchall()
    lanes.left(conn, {lane for *_, lane in given_back})
    lanes.arrived(conn, [seq for *_, seq, lane in given_back if lane is not None])
    cancelled = [row for row in given_back if row[3] == "cancelled"]
    stopped = [End(id, chain, batch, "stopped") for id, chain, batch, *_ in cancelled]
    ends.follow(conn, now, stopped, Effects())
    counters.count(conn, CANCELLED, [tuple(row[4:6]) for row in cancelled])
    counters.count(conn, attempts("released"), [tuple(row[4:6]) for row in given_back])
    conn.execute("DELETE FROM jobrunner_workers WHERE worker = ?", (worker,))
    _forget_lag(conn, worker)


def beat(conn: sqlite3.Connection, worker: int, now: int, lag: int | None = None) -> bool:
    """Store the time of a worker's beat; return False if the worker has no row."""
    changed = conn.execute(
        "UPDATE jobrunner_workers SET beat_at = ? WHERE worker = ?", (now, worker)
    )
    if changed.rowcount and lag is not None:
        conn.execute(_KEEP_LAG, (f"{_LAG}{worker}", lag))
    return changed.rowcount > 0


def lags(conn: sqlite3.Connection) -> Mapping[int, int]:
    """Return the delay of each worker's loop, as of its last beat."""
    rows = conn.execute(
        "SELECT name, value FROM jobrunner_meta WHERE name >= 'lag:' AND name < 'lag;'"
    )
    return {int(name.removeprefix(_LAG)): lag for name, lag in rows}


def _forget_lag(conn: sqlite3.Connection, worker: int) -> None:
    conn.execute("DELETE FROM jobrunner_meta WHERE name = ?", (f"{_LAG}{worker}",))


def rows(conn: sqlite3.Connection) -> Sequence[WorkerRow]:
    """Return the workers' rows, oldest first, without wait reports and revisions.

    Also works on a file that is not migrated yet.
    """
    return _rows(conn, "NULL, NULL")


def workers(conn: sqlite3.Connection) -> Sequence[WorkerRow]:
    """Return the workers' rows, oldest first, with their wait reports and revisions."""
    return _rows(conn, "revision, waits")


def busy(conn: sqlite3.Connection) -> Mapping[int, int]:
    """Return the number of running jobs of each worker that has any."""
    return dict(
        conn.execute(
            "SELECT worker, count(*) FROM jobrunner_jobs WHERE state = 'running' GROUP BY worker"
        ).fetchall()
    )


def _rows(conn: sqlite3.Connection, new_columns: str) -> Sequence[WorkerRow]:
    found = conn.execute(
        f"SELECT worker, pid, host, started_at, beat_at, doorbell, queues, tasks, {new_columns}"
        " FROM jobrunner_workers ORDER BY started_at, worker"
    )
    return [
        WorkerRow(
            *(worker, pid, host, at, beat, bell),
            queues=json.loads(queues),
            tasks=json.loads(tasks),
            revision=revision,
            wait_report=WaitReport() if waits is None else _wait_report(worker, json.loads(waits)),
        )
        for worker, pid, host, at, beat, bell, queues, tasks, revision, waits in found
    ]


def _wait_report(worker: int, waits: Mapping[str, Any]) -> WaitReport:
    return WaitReport(
        waits["look"],
        [
            WaitingAttempt(
                worker, seq, lease, queue, tuple(jobs), tuple(queues), tuple(running), since
            )
            for seq, lease, queue, jobs, queues, running, since in waits["held"]
        ],
    )


def report_waits(
    conn: sqlite3.Connection, worker: int, report: WaitReport, snapshot: Snapshot | None
) -> bool:
    """Store a worker's wait report if ``snapshot`` still holds; return whether it was stored."""
    if snapshot is not None and not _holds(conn, snapshot):
        return False
    waits = {"look": report.number, "held": [one[1:] for one in report.attempts]}
    changed = conn.execute(
        "UPDATE jobrunner_workers SET waits = ? WHERE worker = ?", (json.dumps(waits), worker)
    )
    return changed.rowcount > 0


def _holds(conn: sqlite3.Connection, snapshot: Snapshot) -> bool:
    """Return whether the snapshot holds in this transaction, while other writers wait."""
    found = workers(conn)
    reported = {one for row in found for one in row.wait_report.attempts}
    if snapshot.workers != {row.worker for row in found} or not reported.issuperset(
        snapshot.attempts
    ):
        return False
    for one in snapshot.attempts:
        runs = conn.execute(
            "SELECT 1 FROM jobrunner_jobs WHERE seq = ? AND lease = ? AND worker = ? AND cancel_requested = 0",
            (one.seq, one.lease, one.worker),
        )
        if runs.fetchone() is None:
            return False
    jobs = {seq for one in snapshot.attempts for seq in one.jobs}
    (waiting,) = conn.execute(
        "SELECT count(*) FROM jobrunner_jobs WHERE seq IN (SELECT value FROM json_each(?))"
        " AND (state = 'queued' OR state = 'scheduled' OR state = 'blocked')",
        (json.dumps(list(jobs)),),
    ).fetchone()
    return bool(waiting == len(jobs))


def take_jobs(conn: sqlite3.Connection, worker: int, now: int) -> Taken | None:
    """Recover a dead worker's jobs and delete its row; None if it has no row.

    The row is deleted first: if two processes found the worker dead, only one of them finds the row.
    """
    deleted = conn.execute(
        "DELETE FROM jobrunner_workers WHERE worker = ? RETURNING tasks", (worker,)
    ).fetchall()
    if not deleted:
        return None
    _forget_lag(conn, worker)
    # The dead worker's own task limits: the recovering process may have no code for them, or newer code.
    return _take(conn, worker, json.loads(deleted[0][0]), now)


def take_orphans(
    conn: sqlite3.Connection, workers: Collection[int], now: int
) -> Mapping[int, Taken]:
    """Recover the jobs of those given workers that have no row.

    Such a worker was found dead while it lived, and claimed jobs until it noticed; no other search finds these jobs.
    The task limits come from the workers that have rows.

    Returns:
        The result of each worker, by its id.
    """
    max_attempts: dict[str, int | None] = {}
    for row in rows(conn):
        max_attempts.update(row.tasks)
    return {
        worker: _take(conn, worker, max_attempts, now)
        for worker in orphaned(conn)
        if worker in workers
    }


def stored_and_orphaned(conn: sqlite3.Connection) -> tuple[frozenset[int], Sequence[int]]:
    """Return the workers that have a row, and those that ``orphaned`` returns."""
    stored = conn.execute("SELECT worker FROM jobrunner_workers")
    return frozenset(worker for (worker,) in stored), orphaned(conn)


def orphaned(conn: sqlite3.Connection) -> Sequence[int]:
    """Return the workers that hold jobs and have no row.

    Returns none while no worker with tasks has a row.
    """
    found = conn.execute(
        "SELECT DISTINCT worker FROM jobrunner_jobs"
        " WHERE state = 'running' AND worker NOT IN (SELECT worker FROM jobrunner_workers)"
        " AND EXISTS (SELECT 1 FROM jobrunner_workers WHERE tasks <> '{}')"
    )
    return [worker for (worker,) in found]


def _take(
    conn: sqlite3.Connection, worker: int, max_attempts: Mapping[str, int | None], now: int
) -> Taken:
    requeued, buried = 0, list[str]()
    dead = Counter[tuple[str, str]]()
    counted = Counter[CounterKey]({(DEAD_WORKERS, "", ""): 1})
    ended = list[End]()
    held = conn.execute(
        """
        SELECT seq, lease, id, queue, task, attempt, max_attempts, crashes + 1, started_at, cancel_requested, chain,
            batch, lane
        FROM jobrunner_jobs WHERE state = 'running' AND worker = ?
        """,
        (worker,),
    ).fetchall()
    for (
        seq,
        lease,
        id,
        queue,
        task,
        attempt,
        own_max,
        deaths,
        started_at,
        cancel,
        chain,
        batch,
        _,
    ) in held:
        fence = (seq, lease, worker)
        conn.execute(
            KEEP_ATTEMPT,
            (seq, lease, attempt, worker, started_at, now, "lost", "ProcessLost", _LOST, None),
        )
        counted[attempts("lost"), queue, task] += 1
        what = rules.after_crash(
            attempt=attempt,
            max_attempts=own_max if own_max is not None else max_attempts.get(task),
            deaths=deaths,
            cancel_requested=bool(cancel),
        )
        if what == "cancelled":
            conn.execute(CANCEL, (now, *fence))
            counted[CANCELLED, queue, task] += 1
            ended.append(End(id, chain, batch, "stopped"))
        elif what == "buried":
            conn.execute("UPDATE jobrunner_jobs SET crashes = ? WHERE seq = ?", (deaths, seq))
            death = burial(task, now, "lost", "ProcessLost", _LOST, None)
            conn.execute(BURY_RUNNING, (*death, *fence))
            conn.execute(REMOVE, fence)
            buried.append(id)
            dead[queue, task] += 1
            ended.append(End(id, chain, batch, "dead"))
        else:
            conn.execute(_QUEUE_AGAIN, (deaths, what == "suspect", *fence))
            requeued += 1
    lanes.left(conn, {lane for *_, lane in held})
    lanes.arrived(conn, [seq for seq, *_, lane in held if lane is not None])
    ends.follow(conn, now, ended, Effects())
    if dead:
        statistics.add_dead(conn, dead, "lost", now)
    counters.add(conn, counted)
    return Taken(requeued, buried)
