"""Stores memos and signals, and parks jobs, inside an open write transaction.

One primary key decides between a signal and the time-out of its wait: both are a memo of the same kind and name, and
the first one stays.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

from jobrunner.core.errors import JobNotFound
from jobrunner.core.model import FINISHED, JobRow, Memo, Parked
from jobrunner.core.workflows import ParkedWait, StepRow
from jobrunner.store import workflow_rules as rules
from jobrunner.store.effects import Effects
from jobrunner.store.sqlite.sql import batches, lanes
from jobrunner.store.sqlite.sql.bulk import Many
from jobrunner.store.sqlite.sql.statements import FENCE

# Each row of VALUES finds its job, behind the fence. Only a cursor moves.
_KEEP: Final = Many(
    "INSERT INTO jobrunner_steps (job, kind, name, value, at) SELECT seq, column4, column5, column6, column7 FROM (",
    "(?, ?, ?, ?, ?, ?, ?)",
    ") JOIN jobrunner_jobs ON seq = column1 AND lease = column2 AND worker = column3 WHERE true"
    " ON CONFLICT (job, kind, name) DO UPDATE SET value = excluded.value, at = excluded.at WHERE kind = 'cursor'",
)

_IS_HELD: Final = f"SELECT ordered FROM jobrunner_jobs {FENCE}"

_READ: Final = (
    "SELECT kind, name, value, at FROM jobrunner_steps WHERE job = ? ORDER BY at, kind, name"
)

_SIGNAL: Final = """
INSERT INTO jobrunner_steps (job, kind, name, value, at) VALUES (?, 'signal', ?, ?, ?)
ON CONFLICT (job, kind, name) DO NOTHING"""

_MEET: Final = "UPDATE jobrunner_edges SET state = 0 WHERE job = ? AND needs = ? AND state > 0"

# The last lease of a parked job has left no attempt in the history. One that has never run waits in a chain or a graph,
# which a signal does not end; one that has failed since a time ended its wait is retried at its time.
_IS_PARKED: Final = """(state = 'blocked' OR state = 'scheduled') AND lease > 0 AND NOT EXISTS (
    SELECT 1 FROM jobrunner_attempts last WHERE last.job = jobrunner_jobs.seq AND last.lease = jobrunner_jobs.lease
)"""
_WAKE: Final = f"""
UPDATE jobrunner_jobs SET state = 'queued', run_at = :now
WHERE seq = :seq AND {_IS_PARKED} AND NOT EXISTS (
    SELECT 1 FROM jobrunner_edges INDEXED BY jobrunner_edges_unmet WHERE job = :id AND state > 0
)
RETURNING lane"""

# What is unmet is of an earlier wait, which a time ended: a job that runs waits for nothing.
_FORGET_UNMET: Final = "DELETE FROM jobrunner_edges WHERE job = ? AND state > 0"

_WAIT: Final = (
    "INSERT OR REPLACE INTO jobrunner_edges (job, needs, need, state) VALUES (?, ?, ?, ?)"
)

_HAS_SIGNAL: Final = "SELECT 1 FROM jobrunner_steps WHERE job = ? AND kind = 'signal' AND name = ?"
_HAS_ENDED: Final = "SELECT 1 FROM jobrunner_batches WHERE id = ? AND ended_at IS NOT NULL"

_PARK: Final = f"""
UPDATE jobrunner_jobs SET
    state = ?, run_at = ?, worker = NULL, attempt = attempt - 1, suspect = 0, expires_at = NULL
{FENCE}"""


def keep(conn: sqlite3.Connection, memos: Sequence[Memo], now: int) -> int:
    """Store the memos of attempts behind the fence; return the number that was stored.

    A memo that is there already stays, except a cursor.
    """
    kept = _KEEP.run(
        conn,
        [(m.job.seq, m.job.lease, m.job.worker, m.kind, m.name, m.value, now) for m in memos],
    )
    for memo in memos:
        # The time-out of a wait: nothing is open any longer. That of a stale attempt was not stored.
        if memo.kind == "signal" and _is_met(conn, memo.job.seq, f"!{memo.name}"):
            conn.execute(_MEET, (memo.job.id, f"!{memo.name}"))
    return kept


def read(conn: sqlite3.Connection, job: int) -> list[StepRow]:
    """Return the memos of a job, given by ``seq``, oldest first."""
    return [StepRow(*row) for row in conn.execute(_READ, (job,))]


def signal(conn: sqlite3.Connection, id: str, name: str, value: str, now: int) -> bool:
    """Store a signal for a job and wake it if it waits; see ``WorkflowStore.signal``."""
    row = conn.execute("SELECT seq, state FROM jobrunner_jobs WHERE id = ?", (id,)).fetchone()
    if row is None:
        if conn.execute("SELECT 1 FROM jobrunner_dead_letters WHERE id = ?", (id,)).fetchone():
            raise rules.takes_no_signal(id, "dead")
        raise JobNotFound(f"no job has the id {id}; it may be past its retention")
    seq, state = row
    if state in FINISHED:
        raise rules.takes_no_signal(id, state)
    if not conn.execute(_SIGNAL, (seq, name, value, now)).rowcount:
        return False
    if conn.execute(_MEET, (id, f"!{name}")).rowcount:
        for (lane,) in conn.execute(_WAKE, {"now": now, "seq": seq, "id": id}).fetchall():
            lanes.left(conn, [lane])
            if lane is not None:
                lanes.arrived(conn, [seq])
    return True


def park(
    conn: sqlite3.Connection, parked: Parked, now: int, effects: Effects
) -> rules.Placed | None:
    """Park one job, with its memos, its edges and its children; None if the fence refuses it.

    What it waits for may have come since it last read, before this transaction. Then the job is queued at once, since
    nothing else would wake it.
    """
    job = parked.job
    fence = (job.seq, job.lease, job.worker)
    held = conn.execute(_IS_HELD, fence).fetchone()
    if held is None:
        return None
    if parked.memos:
        keep(conn, parked.memos, now)
    if parked.children is not None:
        # Before its end is read: a batch without members has ended at once.
        batches.enqueue(conn, parked.children, now, effects)
    conn.execute(_FORGET_UNMET, (job.id,))
    is_met = [_is_met(conn, job.seq, wait.needs) for wait in parked.waits]
    conn.executemany(
        _WAIT,
        [
            (wait.job, wait.needs, wait.need, 0 if met else 1)
            for wait, met in zip(parked.waits, is_met, strict=True)
        ],
    )
    placed = rules.place(parked.until, is_met, ordered=bool(held[0]), now=now)
    conn.execute(_PARK, (*placed, *fence))
    return placed


def _is_met(conn: sqlite3.Connection, job: int, needs: str) -> bool:
    is_signal = needs.startswith("!")
    test, values = (_HAS_SIGNAL, (job, needs[1:])) if is_signal else (_HAS_ENDED, (needs,))
    return conn.execute(test, values).fetchone() is not None


_FORGET: Final = """
DELETE FROM jobrunner_steps WHERE job = :job AND name IN (
    SELECT value FROM json_each(:names) UNION ALL SELECT '!' || value FROM json_each(:names)
)"""


def names(conn: sqlite3.Connection, job: int) -> frozenset[str]:
    """Return the names under which a job, given by ``seq``, has memos."""
    rows = conn.execute("SELECT DISTINCT name FROM jobrunner_steps WHERE job = ?", (job,))
    return frozenset(name for (name,) in rows if not name.startswith("!"))


def forget(conn: sqlite3.Connection, job: int, names: Sequence[str]) -> None:
    """Delete the memos of a job with these names, whatever their kind.

    The deadline of a wait goes with its signal.
    """
    conn.execute(_FORGET, {"job": job, "names": json.dumps(list(names))})


_UNMET: Final = (
    "SELECT needs FROM jobrunner_edges INDEXED BY jobrunner_edges_unmet WHERE job = ? AND state > 0"
)
_PARKED: Final = f"SELECT 1 FROM jobrunner_jobs WHERE seq = ? AND {_IS_PARKED}"
_SLEEPS: Final = """
SELECT 1 FROM jobrunner_steps WHERE job = ? AND kind = 'sleep' AND value = ? AND substr(name, 1, 1) <> '!'"""


def waits_of(conn: sqlite3.Connection, jobs: Sequence[JobRow]) -> Mapping[int, ParkedWait]:
    """Return that for which parked jobs wait; see ``WorkflowStore.waits``."""
    found: dict[int, ParkedWait] = {}
    for job in jobs:
        if not rules.may_be_parked(job):
            continue
        if conn.execute(_PARKED, (job.seq,)).fetchone() is None:
            continue
        until = rules.wait_until(job)
        needs = tuple(needed for (needed,) in conn.execute(_UNMET, (job.id,)))
        if needs or conn.execute(_SLEEPS, (job.seq, str(job.run_at))).fetchone():
            found[job.seq] = ParkedWait(needs, until)
    return found
