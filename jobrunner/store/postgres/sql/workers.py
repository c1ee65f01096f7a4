"""Stores workers' rows and recovers the jobs of dead workers, inside an open transaction."""

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from jobrunner.core.clock import SECOND_US
from jobrunner.core.errors import StoreBusy
from jobrunner.core.fingerprint import fingerprint
from jobrunner.core.model import WorkerRow
from jobrunner.core.wait_graph import Snapshot, WaitingAttempt, WaitReport
from jobrunner.store import rules
from jobrunner.store.counters import CANCELLED, DEAD_WORKERS, attempts
from jobrunner.store.effects import Effects
from jobrunner.store.postgres import locks
from jobrunner.store.postgres.sql import batch_locks, ends, lanes, statistics
from jobrunner.store.postgres.sql.ends import End
from jobrunner.store.postgres.sql.lanes import changed
from jobrunner.store.postgres.sql.savepoints import Savepoints, places
from jobrunner.store.postgres.sql.settle import MOVED
from jobrunner.store.postgres.sql.states import WAITING
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.protocol import WorkerStart

T = TypeVar("T")

MINUTE_US: Final = 60 * SECOND_US
MOST_STARTS: Final = 120
_LOST: Final = "the process that ran this attempt died"
_LOST_TYPE: Final = "ProcessLost"

_COLUMNS: Final = "worker, pid, host, started_at, beat_at, queues, tasks, revision, waits"

_RUNNING: Final = """
SELECT seq, lease, id, queue, task, attempt, max_attempts, crashes + 1, started_at, cancel_requested, chain, batch, lane
FROM jobrunner.jobs WHERE state = 'running' AND worker = $1 {} ORDER BY seq FOR UPDATE"""
_ALL_RUNNING: Final = _RUNNING.format("")
_THIS_RUNNING: Final = _RUNNING.format("AND seq = $2")
_PLACES: Final = """
SELECT seq, batch, lane FROM jobrunner.jobs WHERE state = 'running' AND worker = $1 ORDER BY seq"""

_KEEP_LOST: Final = f"""
INSERT INTO jobrunner.attempts (
    job, lease, attempt, worker, started_at, finished_at, outcome, error_type, error
)
SELECT seq, lease, attempt, worker, started_at, $2, 'lost', '{_LOST_TYPE}', '{_LOST}'
FROM jobrunner.jobs WHERE seq = ANY ($1::bigint[])"""

_QUEUE_AGAIN: Final = """
UPDATE jobrunner.jobs SET state = 'queued', worker = NULL, crashes = crashes + 1, suspect = seq = ANY ($2::bigint[])
WHERE seq = ANY ($1::bigint[])"""

_BURY: Final = f"""
WITH gone AS (DELETE FROM jobrunner.jobs WHERE seq = $1 RETURNING *)
INSERT INTO jobrunner.dead_letters ({MOVED}, died_at, reason, error_type, error, fingerprint)
SELECT {MOVED.replace(" crashes,", " crashes + 1,")}, $2, 'lost', '{_LOST_TYPE}', '{_LOST}', $3 FROM gone"""


class Taken(NamedTuple):
    """The result of recovering the jobs of one dead worker."""

    requeued: int
    buried: Sequence[str]


async def join(tx: Transaction, worker: WorkerRow) -> None:
    """Store a worker's row."""
    await tx.execute(
        "INSERT INTO jobrunner.workers (worker, pid, host, started_at, beat_at, queues, tasks, revision)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        *(worker.worker, worker.pid, worker.host, worker.started_at, worker.beat_at),
        *(json.dumps(dict(worker.queues)), json.dumps(dict(worker.tasks)), worker.revision),
    )
    await _note_start(tx, worker)


async def _note_start(tx: Transaction, worker: WorkerRow) -> None:
    """Keep a worker's start, since its row is deleted when it leaves."""
    await locks.lock(tx.connection, locks.STARTS)
    minute = worker.started_at // MINUTE_US
    others = [one for one in await starts(tx) if one.at // MINUTE_US != minute]
    kept = sorted(
        [*others, WorkerStart(worker.started_at, worker.revision)], key=lambda one: one.at
    )[-MOST_STARTS:]
    await tx.execute(
        "INSERT INTO jobrunner.meta (name, value) VALUES ('worker_starts', $1)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        json.dumps(kept),
    )


async def starts(tx: Transaction) -> Sequence[WorkerStart]:
    """Return the latest starts of workers, oldest first."""
    found = await tx.fetchval("SELECT value FROM jobrunner.meta WHERE name = 'worker_starts'")
    return [] if found is None else [WorkerStart(*one) for one in json.loads(found)]


async def _each(
    tx: Transaction,
    worker: int,
    write: Callable[[Sequence[Any]], Awaitable[T]],
    *,
    apart: bool,
) -> Sequence[T]:
    """Call ``write`` with the running jobs of a worker, locked; return its answers.

    Args:
        tx: the transaction.
        worker: the number of the worker.
        write: changes the jobs, given as rows of ``_RUNNING``.
        apart: one job at a time, after a try that has met a lock; those that need what others hold are left, and
            the search for jobs of workers without a row finds them later.
    """
    if not apart:
        await tx.wait_shortly()
        await batch_locks.hold_of_worker(tx, worker)
        answers = [await write(await tx.fetch(_ALL_RUNNING, worker))]
        await tx.wait_as_before()
        return answers
    savepoints, answers = Savepoints(tx), []
    await tx.wait_shortly()
    for seq, batch, lane in await tx.fetch(_PLACES, worker):
        try:
            async with savepoints.item(places(batch, lane)):
                if batch is not None:
                    await batch_locks.hold(tx, [batch])
                answers.append(await write(await tx.fetch(_THIS_RUNNING, worker, seq)))
        except StoreBusy:
            continue
    await tx.wait_as_before()
    return answers


async def leave(tx: Transaction, worker: int, now: int, *, apart: bool = False) -> None:
    """Queue a worker's running jobs, give their attempts back, and delete its row.

    Jobs that were asked to stop are cancelled instead of queued. For ``apart`` see ``_each``.
    """
    await _each(tx, worker, lambda rows: _give_back(tx, rows, now), apart=apart)
    await tx.execute("DELETE FROM jobrunner.workers WHERE worker = $1", worker)


async def _give_back(tx: Transaction, rows: Sequence[Any], now: int) -> None:
    seqs = [row["seq"] for row in rows]
    await tx.execute(
        """
        INSERT INTO jobrunner.attempts (job, lease, attempt, worker, started_at, finished_at, outcome)
        SELECT seq, lease, attempt, worker, started_at, $1, 'released'
        FROM jobrunner.jobs WHERE seq = ANY ($2::bigint[])
        """,
        *(now, seqs),
    )
    given_back = await tx.fetch(
        """
        UPDATE jobrunner.jobs SET state = CASE WHEN cancel_requested THEN 'cancelled' ELSE 'queued' END, worker = NULL,
            finished_at = CASE WHEN cancel_requested THEN $1::bigint END, attempt = attempt - 1
        WHERE seq = ANY ($2::bigint[])
        RETURNING id, chain, batch, state, queue, task, seq, lane
        """,
        *(now, seqs),
    )
    await lanes.left(tx, {lane for *_, lane in given_back})
    await lanes.arrived(tx, [seq for *_, seq, lane in given_back if lane is not None])
    cancelled = [row for row in given_back if row["state"] == "cancelled"]
    stopped = [End(row["id"], row["chain"], row["batch"], "stopped") for row in cancelled]
    await ends.follow(tx, now, stopped, Effects())
    tx.count(CANCELLED, [(row["queue"], row["task"]) for row in cancelled])
    tx.count(attempts("released"), [(row["queue"], row["task"]) for row in given_back])


async def beat(tx: Transaction, worker: int, now: int, lag: int | None = None) -> bool:
    """Store the time of a worker's beat; return False if the worker has no row."""
    status = await tx.execute(
        "UPDATE jobrunner.workers SET beat_at = $1, lag = coalesce($3, lag) WHERE worker = $2",
        *(now, worker, lag),
    )
    return changed(status) > 0


async def lags(tx: Transaction) -> Mapping[int, int]:
    """Return the delay of each worker's loop, as of its last beat."""
    rows = await tx.fetch("SELECT worker, lag FROM jobrunner.workers WHERE lag IS NOT NULL")
    return dict(map(tuple, rows))


async def restore(tx: Transaction, row: WorkerRow) -> bool:
    """Store the row of a live worker again; return False if it exists."""
    if await beat(tx, row.worker, row.beat_at):
        return False
    await join(tx, row)
    return True


async def workers(tx: Transaction) -> Sequence[WorkerRow]:
    """Return the workers' rows, oldest first."""
    found = await tx.fetch(f"SELECT {_COLUMNS} FROM jobrunner.workers ORDER BY started_at, worker")
    return [
        WorkerRow(
            *(worker, pid, host, at, beat, None),
            queues=json.loads(queues),
            tasks=json.loads(tasks),
            revision=revision,
            wait_report=WaitReport() if waits is None else _wait_report(worker, json.loads(waits)),
        )
        for worker, pid, host, at, beat, queues, tasks, revision, waits in found
    ]


async def busy(tx: Transaction) -> Mapping[int, int]:
    """Return the number of running jobs of each worker that has any."""
    rows = await tx.fetch(
        "SELECT worker, count(*) FROM jobrunner.jobs WHERE state = 'running' GROUP BY worker"
    )
    return dict(map(tuple, rows))


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


async def report_waits(
    tx: Transaction, worker: int, report: WaitReport, snapshot: Snapshot | None
) -> bool:
    """Store a worker's wait report if ``snapshot`` still holds; return whether it was stored."""
    if snapshot is not None and not await _holds(tx, snapshot):
        return False
    waits = {"look": report.number, "held": [one[1:] for one in report.attempts]}
    status = await tx.execute(
        "UPDATE jobrunner.workers SET waits = $1 WHERE worker = $2", json.dumps(waits), worker
    )
    return changed(status) > 0


async def _holds(tx: Transaction, snapshot: Snapshot) -> bool:
    """Return whether the snapshot holds; what it is about stays locked until the commit."""
    # Nobody joins, leaves or reports meanwhile.
    await tx.execute("LOCK TABLE jobrunner.workers IN SHARE ROW EXCLUSIVE MODE")
    found = await workers(tx)
    reported = {one for row in found for one in row.wait_report.attempts}
    if snapshot.workers != {row.worker for row in found} or not reported.issuperset(
        snapshot.attempts
    ):
        return False
    jobs = {seq for one in snapshot.attempts for seq in one.jobs}
    wanted = sorted(jobs.union(one.seq for one in snapshot.attempts))
    rows = await tx.fetch(
        f"SELECT seq, lease, worker, cancel_requested, {WAITING} OR state = 'blocked' FROM jobrunner.jobs"
        " WHERE seq = ANY ($1::bigint[]) ORDER BY seq FOR SHARE",
        wanted,
    )
    by_seq = {row["seq"]: row for row in rows}
    for one in snapshot.attempts:
        row = by_seq.get(one.seq)
        if row is None or tuple(row)[1:4] != (one.lease, one.worker, False):
            return False
    return all(seq in by_seq and by_seq[seq][4] for seq in jobs)


async def take_jobs(tx: Transaction, worker: int, now: int, *, apart: bool = False) -> Taken | None:
    """Recover a dead worker's jobs and delete its row; None if it lives.

    Its lock is tried in the same transaction: a worker that holds it lives. For ``apart`` see ``_each``.
    """
    if not await tx.fetchval("SELECT pg_try_advisory_xact_lock($1)", worker):
        return None
    deleted = await tx.fetchrow(
        "DELETE FROM jobrunner.workers WHERE worker = $1 RETURNING tasks", worker
    )
    if deleted is None:
        return None
    # The dead worker's own task limits: the recovering process may have no code for them, or newer code.
    tx.counted[DEAD_WORKERS, "", ""] += 1
    return await _take(tx, worker, json.loads(deleted[0]), now, apart=apart)


async def take_orphans(
    tx: Transaction, worker: int, now: int, *, apart: bool = False
) -> Taken | None:
    """Recover the jobs of a worker that holds jobs and has no row; None if it lives.

    Such a worker was found dead while it lived, and claimed jobs until it noticed, or some of its jobs were left when
    the others were taken; no other search finds these jobs. The task limits come from the workers that have rows. For
    ``apart`` see ``_each``.
    """
    if not await tx.fetchval("SELECT pg_try_advisory_xact_lock($1)", worker):
        return None
    max_attempts: dict[str, int | None] = {}
    for row in await workers(tx):
        if row.worker == worker:
            return None
        max_attempts.update(row.tasks)
    return await _take(tx, worker, max_attempts, now, apart=apart)


async def orphaned(tx: Transaction) -> Collection[int]:
    """Return the workers that hold jobs and have no row; none while no worker with tasks has a row."""
    found = await tx.fetch(
        "SELECT DISTINCT worker FROM jobrunner.jobs WHERE state = 'running'"
        " AND worker NOT IN (SELECT worker FROM jobrunner.workers)"
        " AND EXISTS (SELECT FROM jobrunner.workers WHERE tasks <> '{}')"
    )
    return [worker for (worker,) in found]


async def _take(
    tx: Transaction,
    worker: int,
    max_attempts: Mapping[str, int | None],
    now: int,
    *,
    apart: bool,
) -> Taken:
    taken = await _each(
        tx, worker, lambda rows: _take_rows(tx, rows, max_attempts, now), apart=apart
    )
    buried = [id for one in taken for id in one.buried]
    return Taken(sum(one.requeued for one in taken), buried)


async def _take_rows(
    tx: Transaction, held: Sequence[Any], max_attempts: Mapping[str, int | None], now: int
) -> Taken:
    if not held:
        return Taken(0, ())
    await tx.execute(_KEEP_LOST, [row["seq"] for row in held], now)
    ways: dict[str, list[Any]] = {"cancelled": [], "buried": [], "suspect": [], "queued": []}
    for row in held:
        seq, _, id, queue, task, attempt, own_max, deaths, _, cancel, chain, batch, _ = row
        tx.count(attempts("lost"), [(queue, task)])
        what = rules.after_crash(
            attempt=attempt,
            max_attempts=own_max if own_max is not None else max_attempts.get(task),
            deaths=deaths,
            cancel_requested=cancel,
        )
        ways[what].append((seq, id, queue, task, chain, batch))
    if ways["cancelled"]:
        await tx.execute(
            "UPDATE jobrunner.jobs SET state = 'cancelled', worker = NULL, finished_at = $2"
            " WHERE seq = ANY ($1::bigint[])",
            *([seq for seq, *_ in ways["cancelled"]], now),
        )
        tx.count(CANCELLED, [(queue, task) for _, _, queue, task, *_ in ways["cancelled"]])
    for seq, _, _, task, *_ in ways["buried"]:
        await tx.execute(_BURY, seq, now, fingerprint(task, _LOST_TYPE, _LOST, None))
    suspects = [seq for seq, *_ in ways["suspect"]]
    again = suspects + [seq for seq, *_ in ways["queued"]]
    await tx.execute(_QUEUE_AGAIN, again, suspects)
    await lanes.left(tx, {row["lane"] for row in held})
    await lanes.arrived(tx, [row["seq"] for row in held if row["lane"] is not None])
    ended = [End(id, chain, batch, "dead") for _, id, _, _, chain, batch in ways["buried"]]
    ended += [End(id, chain, batch, "stopped") for _, id, _, _, chain, batch in ways["cancelled"]]
    await ends.follow(tx, now, ended, Effects())
    dead = Counter((queue, task) for _, _, queue, task, *_ in ways["buried"])
    if dead:
        statistics.add_dead(tx, dead, "lost", now)
    return Taken(len(again), [id for _, id, *_ in ways["buried"]])
