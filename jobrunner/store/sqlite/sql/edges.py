"""Brings edges, and what waits for them, in line with the ends of jobs.

Everything follows from the present state of the rows, so a slice that is done twice, late or in another order than the
ends happened changes nothing: a replay may cross with follow-ups that are still waiting.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from jobrunner.core.model import Edge, Need
from jobrunner.store import workflow_rules as rules
from jobrunner.store.counters import CANCELLED
from jobrunner.store.counters import batches as ended_batches
from jobrunner.store.effects import Effects
from jobrunner.store.sqlite.sql import counters, followups, lanes
from jobrunner.store.sqlite.sql.bulk import Many
from jobrunner.store.sqlite.sql.statements import UNFINISHED
from jobrunner.store.workflow_rules import BROKEN, MET, OPEN, End

_LEVEL: Final = 4
"""The price of one more level of jobs that wait for each other, in edges."""

_INSERT: Final = Many("INSERT INTO jobrunner_edges (job, needs, need, state)", "(?, ?, ?, ?)")
_SET: Final = "UPDATE jobrunner_edges SET state = ? WHERE job = ? AND needs = ?"

# INDEXED BY in these statements: with the index of another column each would be correct, and quadratic in a wide graph.
_NEEDING: Final = """
SELECT job, needs, need, state FROM jobrunner_edges INDEXED BY jobrunner_edges_needs
WHERE needs {} AND {}"""
_UNMET: Final = """
SELECT 1 FROM jobrunner_edges INDEXED BY jobrunner_edges_unmet
WHERE job = jobrunner_jobs.id AND state > 0"""

# As UNBLOCK, for a job that waits for an end. A parked job waits until a time too; it is due now.
_RELEASE: Final = f"""
UPDATE jobrunner_jobs SET
    state = iif(state = 'scheduled' OR run_at <= max(:now, created_at), 'queued', 'scheduled'),
    run_at = iif(state = 'scheduled', :now, max(run_at, :now))
WHERE id IN (SELECT value FROM json_each(:ids)) AND (state = 'blocked' OR state = 'scheduled')
    AND NOT EXISTS ({_UNMET})
RETURNING state, run_at, expires_at, seq, lane"""

_BREAK: Final = """
UPDATE jobrunner_jobs SET state = 'cancelled', finished_at = :now
WHERE id IN (SELECT value FROM json_each(:ids)) AND state = 'blocked'
RETURNING id, batch, queue, task"""

_REVIVABLE: Final = """
SELECT id FROM jobrunner_jobs
WHERE id IN (SELECT value FROM json_each(?)) AND state = 'cancelled'
    AND NOT EXISTS (
        SELECT 1 FROM jobrunner_edges INDEXED BY jobrunner_edges_unmet
        WHERE job = jobrunner_jobs.id AND state > 0 AND state = 2
    )
    AND NOT EXISTS (
        SELECT 1 FROM jobrunner_batches WHERE seq = jobrunner_jobs.batch AND cancelled_at IS NOT NULL
    )"""
# OR IGNORE: another job may have taken the key since.
_REVIVE: Final = """
UPDATE OR IGNORE jobrunner_jobs SET state = 'blocked', finished_at = NULL
WHERE id IN (SELECT value FROM json_each(?))
RETURNING id, batch"""

_VOID: Final = """
UPDATE jobrunner_edges SET state = -1
WHERE job IN (SELECT value FROM json_each(?)) AND state > 0"""

_STATES: Final = """
SELECT ids.value, state FROM json_each(?) ids LEFT JOIN jobrunner_jobs j ON j.id = ids.value"""

_UNFINISHED_MEMBER: Final = f"""
SELECT 1 FROM jobrunner_jobs INDEXED BY jobrunner_jobs_batch_unfinished
WHERE batch = b.seq AND batch IS NOT NULL AND {UNFINISHED}"""
_STOPPED_MEMBER: Final = """
SELECT 1 FROM jobrunner_jobs INDEXED BY jobrunner_jobs_batch_stopped
WHERE batch = b.seq AND batch IS NOT NULL AND (state = 'cancelled' OR state = 'expired')"""
_OVER: Final = f"""
SELECT seq, id, cancelled_at IS NOT NULL,
    deleted > 0 OR EXISTS (
        SELECT 1 FROM jobrunner_dead_letters INDEXED BY jobrunner_dead_letters_batch
        WHERE batch = b.seq AND batch IS NOT NULL AND replayed_as IS NULL
    ),
    EXISTS ({_STOPPED_MEMBER})
FROM jobrunner_batches b
WHERE seq IN (SELECT value FROM json_each(?)) AND ended_at IS NULL
    AND NOT EXISTS ({_UNFINISHED_MEMBER})
    AND NOT EXISTS (SELECT 1 FROM jobrunner_followups WHERE batch = b.seq AND batch IS NOT NULL)"""
_END: Final = "UPDATE jobrunner_batches SET state = ?, ended_at = ? WHERE seq = ?"

# A member that was cancelled on request or has expired stays so. One that was cancelled by a broken edge does not.
_MAY_SUCCEED: Final = f"""
SELECT deleted = 0 AND NOT EXISTS (
    {_STOPPED_MEMBER} AND NOT EXISTS (
        SELECT 1 FROM jobrunner_edges INDEXED BY jobrunner_edges_unmet
        WHERE job = jobrunner_jobs.id AND state > 0 AND state = 2
    )
)
FROM jobrunner_batches b WHERE seq = ?"""


class Needed(NamedTuple):
    """A job for which others may wait."""

    id: str
    batch: int | None
    end: End


def insert(conn: sqlite3.Connection, edges: Iterable[Edge]) -> None:
    """Store edges that are open."""
    _INSERT.run(conn, [(*edge, OPEN) for edge in edges])


def void(conn: sqlite3.Connection, jobs: Sequence[str]) -> None:
    """Give up the edges of jobs that were cancelled on request or have expired."""
    if jobs:
        conn.execute(_VOID, (json.dumps(jobs),))


def ends_of(conn: sqlite3.Connection, jobs: Sequence[str]) -> dict[str, End]:
    """Return what has become of jobs."""
    found = conn.execute(_STATES, (json.dumps(jobs),)).fetchall()
    return {id: rules.end_of(state) for id, state in found}


def release(
    conn: sqlite3.Connection, jobs: Sequence[str], now: int, effects: Effects | None = None
) -> None:
    """Make blocked and parked jobs due that have no unmet edge."""
    if not jobs:
        return
    rows = conn.execute(_RELEASE, {"now": now, "ids": json.dumps(jobs)}).fetchall()
    lanes.arrived(conn, [seq for *_, seq, lane in rows if lane is not None])
    if effects is not None:
        for state, run_at, expires_at, *_ in rows:
            effects.add(state, run_at, expires_at)


def reconcile(
    conn: sqlite3.Connection, now: int, needed: Collection[Needed], effects: Effects
) -> None:
    """Bring the edges to these jobs in line with their ends.

    The jobs and batches that depend on them follow. One call changes about ``followups.SLICE`` edges; the rest is left
    to later transactions.
    """
    if needed:
        budget = _Reconciling(conn, now, effects)
        budget.run(needed)


class _Reconciling:
    """One slice of changes, level by level: each concerns the jobs that the one before has cancelled or revived."""

    def __init__(self, conn: sqlite3.Connection, now: int, effects: Effects) -> None:
        self.conn = conn
        self.now = now
        self.effects = effects
        self.budget = followups.SLICE

    def run(self, needed: Collection[Needed]) -> None:
        batches = {one.batch for one in needed}
        while needed:
            needed = self.level(needed)
            batches.update(one.batch for one in needed)
        finish(self.conn, self.now, {seq for seq in batches if seq is not None}, self.effects)

    def level(self, needed: Collection[Needed]) -> list[Needed]:
        """Change the edges to these jobs; return the jobs that this has cancelled or revived."""
        by_end: dict[End, list[Needed]] = {}
        for one in needed:
            by_end.setdefault(one.end, []).append(one)
        changes: list[tuple[int, str, str]] = []
        revived: list[str] = []
        for end, group in by_end.items():
            for job, needs, need, was in self.out_of_line(end, group):
                changes.append((rules.edge_to_job(need, end), job, needs))
                if was == BROKEN:
                    revived.append(job)
        if not changes:
            return []
        self.budget -= len(changes) + _LEVEL
        self.conn.executemany(_SET, changes)
        broken = [job for state, job, _ in changes if state == BROKEN]
        found = [Needed(id, batch, "failed") for id, batch in self.cancel(broken)]
        found += [Needed(id, batch, "unfinished") for id, batch in self.revive(revived)]
        release(
            self.conn, [job for state, job, _ in changes if state == MET], self.now, self.effects
        )
        return found

    def out_of_line(
        self, end: End, group: Sequence[Needed]
    ) -> Sequence[tuple[str, str, Need, int]]:
        """Return edges to change, as many as the slice has room for."""
        ids = json.dumps([one.id for one in group])
        room = max(self.budget, 0)
        select = _NEEDING.format("IN (SELECT value FROM json_each(?))", rules.out_of_line(end))
        found = self.conn.execute(f"{select} LIMIT ?", (ids, room + 1)).fetchall()
        if len(found) <= room:
            return found
        rest = _NEEDING.format("= ids.value", rules.out_of_line(end))
        left = self.conn.execute(
            f"SELECT value FROM json_each(?) ids WHERE EXISTS ({rest})", (ids,)
        ).fetchall()
        batch_of = {one.id: one.batch for one in group}
        followups.leave(self.conn, [(id, batch_of[id]) for (id,) in left])
        self.effects.left_over = True
        return found[:room]

    def cancel(self, jobs: Sequence[str]) -> Sequence[tuple[str, int | None]]:
        """Cancel blocked jobs whose edge has broken."""
        return _cancel(self.conn, jobs, self.now)

    def revive(self, jobs: Sequence[str]) -> Sequence[tuple[str, int | None]]:
        """Block jobs again that broken edges had cancelled, unless their key is taken."""
        if not jobs:
            return []
        rows = self.conn.execute(_REVIVABLE, (json.dumps(jobs),)).fetchall()
        wanted = [id for (id,) in rows]
        made = self.conn.execute(_REVIVE, (json.dumps(wanted),)).fetchall()
        void(self.conn, sorted(set(wanted) - {id for id, _ in made}))
        return made


def _cancel(
    conn: sqlite3.Connection, jobs: Sequence[str], now: int
) -> Sequence[tuple[str, int | None]]:
    if not jobs:
        return []
    rows = conn.execute(_BREAK, {"now": now, "ids": json.dumps(jobs)}).fetchall()
    counters.count(conn, CANCELLED, [(queue, task) for *_, queue, task in rows])
    return [(id, batch) for id, batch, *_ in rows]


def finish(conn: sqlite3.Connection, now: int, batches: Collection[int], effects: Effects) -> None:
    """End the batches without unfinished members, and run their callbacks."""
    if not batches:
        return
    for seq, id, cancel_requested, dead, stopped in conn.execute(
        _OVER, (json.dumps(sorted(batches)),)
    ).fetchall():
        members = rules.Members(dead=bool(dead), stopped=bool(stopped))
        state = rules.batch_state(members, cancel_requested=bool(cancel_requested))
        conn.execute(_END, (state, now, seq))
        counters.count(conn, ended_batches(state), [("", "")])
        effects.ended = (*effects.ended, id)
        call_back(conn, now, seq, effects)


def call_back(conn: sqlite3.Connection, now: int, batch: int, effects: Effects) -> None:
    """Bring the open edges to a batch in line with its state."""
    id, state = conn.execute(
        "SELECT id, state FROM jobrunner_batches WHERE seq = ?", (batch,)
    ).fetchone()
    waiting = conn.execute(_NEEDING.format("= ?", "state = 1"), (id,)).fetchall()
    if not waiting:
        return
    may_succeed = False
    if state == "failed":
        (may_succeed,) = conn.execute(_MAY_SUCCEED, (batch,)).fetchone()
    changes = [
        (rules.edge_to_batch(need, state, may_succeed=bool(may_succeed)), job, needs)
        for job, needs, need, _ in waiting
    ]
    conn.executemany(_SET, [change for change in changes if change[0] != OPEN])
    release(conn, [job for new, job, _ in changes if new == MET], now, effects)
    cancelled = _cancel(conn, [job for new, job, _ in changes if new == BROKEN], now)
    # A callback may itself be a member of another batch.
    reconcile(conn, now, [Needed(*one, "failed") for one in cancelled], effects)
