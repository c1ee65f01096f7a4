"""Brings edges, and what waits for them, in line with the ends of jobs.

Everything follows from the present state of the rows, so a slice that is done twice, late or in another order than the
ends happened changes nothing: a replay may cross with follow-ups that are still waiting.  The transaction holds the
batches of the jobs that have ended (``batch_locks``); a waiting job's row is locked before its edges are changed, and
whether it may go is asked in a later statement: another edge of it may be met at the same time.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, get_args

import asyncpg

from jobrunner.core.model import Edge, Need
from jobrunner.store import workflow_rules as rules
from jobrunner.store.counters import CANCELLED
from jobrunner.store.counters import batches as ended_batches
from jobrunner.store.effects import Effects
from jobrunner.store.postgres.sql import batch_locks, followups, lanes
from jobrunner.store.postgres.sql.states import UNFINISHED
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.workflow_rules import BROKEN, MET, OPEN, End

_LEVEL: Final = 4
"""The price of one more level of jobs that wait for each other, in edges."""

_INSERT: Final = """
INSERT INTO jobrunner.edges (job, needs, need, state)
SELECT job, needs, need, $4 FROM unnest($1::text[], $2::text[], $3::text[]) AS new (job, needs, need)"""
# "seq + 0": for the order alone the planner might read all jobs.
_LOCK: Final = """
SELECT FROM jobrunner.jobs WHERE id = ANY ($1::text[]) ORDER BY seq + 0 FOR NO KEY UPDATE"""
# Only what is still as it was read: a job that was cancelled meanwhile has given its edges up.
# No join, for the reason in settle.py; the second parameter names job and needs together.
_PLACE: Final = "array_position($2::text[], job || ' ' || needs)"
_SET: Final = f"""
UPDATE jobrunner.edges SET state = ($4::int[])[{_PLACE}]
WHERE job = ANY ($1::text[]) AND job || ' ' || needs = ANY ($2::text[]) AND state + 0 = ($3::int[])[{_PLACE}]
RETURNING job, ($3::int[])[{_PLACE}], state"""

_NEEDING: Final = "SELECT job, needs, need, state FROM jobrunner.edges WHERE needs = {} AND {}"
# For ``state + 0`` see states.py.
_OUT_OF_LINE: Final[Mapping[End, str]] = {
    end: rules.out_of_line(end).replace("state", "state + 0") for end in get_args(End)
}
_CALLED_BACK: Final = """
SELECT job, needs, need, batch.seq, batch.state FROM jobrunner.batches batch, LATERAL (
    SELECT job, needs, need FROM jobrunner.edges WHERE needs = batch.id AND state + 0 = 1 OFFSET 0
) waiting
WHERE batch.seq = ANY ($1::bigint[])"""

# For ``state || ''`` see states.py. As in chains, for a job that waits for an end. A parked job waits until a time too;
# it is due now.
# OFFSET 0 keeps what a job waits for apart, as in ``states.PARKED``.
_RELEASE: Final = """
UPDATE jobrunner.jobs job SET
    state = CASE WHEN state = 'scheduled' OR run_at <= greatest($1::bigint, created_at)
        THEN 'queued' ELSE 'scheduled' END,
    run_at = CASE WHEN state = 'scheduled' THEN $1 ELSE greatest(run_at, $1) END
WHERE id = ANY ($2::text[]) AND state || '' IN ('blocked', 'scheduled')
    AND NOT EXISTS (SELECT FROM jobrunner.edges WHERE edges.job = job.id AND edges.state > 0 OFFSET 0)
RETURNING state, run_at, expires_at, seq, lane"""
_BREAK: Final = """
UPDATE jobrunner.jobs SET state = 'cancelled', finished_at = $1
WHERE id = ANY ($2::text[]) AND state || '' = 'blocked'
RETURNING id, batch, queue, task"""

_REVIVABLE: Final = f"""
SELECT id, task, key, key IS NOT NULL AND EXISTS (
    SELECT FROM jobrunner.jobs holder
    WHERE holder.task = job.task AND holder.key = job.key AND holder.key IS NOT NULL AND holder.{UNFINISHED}
)
FROM jobrunner.jobs job
WHERE id = ANY ($1::text[]) AND state || '' = 'cancelled'
    AND NOT EXISTS (
        SELECT FROM jobrunner.edges WHERE edges.job = job.id AND edges.state > 0 AND edges.state = 2 OFFSET 0
    )
    AND NOT EXISTS (SELECT FROM jobrunner.batches WHERE batches.seq = job.batch AND cancelled_at IS NOT NULL OFFSET 0)
ORDER BY seq + 0"""
_REVIVE: Final = """
UPDATE jobrunner.jobs SET state = 'blocked', finished_at = NULL WHERE id = ANY ($1::text[]) RETURNING id, batch"""

_VOID: Final = "UPDATE jobrunner.edges SET state = -1 WHERE job = ANY ($1::text[]) AND state > 0"

_STATES: Final = "SELECT id, state FROM jobrunner.jobs WHERE id = ANY ($1::text[])"

_UNFINISHED_MEMBER: Final = f"""
SELECT FROM jobrunner.jobs WHERE batch = b.seq AND batch IS NOT NULL AND jobs.{UNFINISHED}"""
_STOPPED_MEMBER: Final = """
SELECT FROM jobrunner.jobs WHERE batch = b.seq AND batch IS NOT NULL AND jobs.state IN ('cancelled', 'expired')"""
_OVER: Final = f"""
SELECT seq, id, cancelled_at IS NOT NULL,
    deleted > 0 OR EXISTS (
        SELECT FROM jobrunner.dead_letters WHERE batch = b.seq AND batch IS NOT NULL AND replayed_as IS NULL
    ),
    EXISTS ({_STOPPED_MEMBER})
FROM jobrunner.batches b
WHERE seq = ANY ($1::bigint[]) AND ended_at IS NULL AND NOT EXISTS ({_UNFINISHED_MEMBER})
    AND NOT EXISTS (SELECT FROM jobrunner.followups WHERE batch = b.seq AND batch IS NOT NULL)
ORDER BY seq"""
_END: Final = """
UPDATE jobrunner.batches SET state = ($2::text[])[array_position($1::bigint[], seq)], ended_at = $3
WHERE seq = ANY ($1::bigint[])"""

# A member that was cancelled on request or has expired stays so. One that was cancelled by a broken edge does not.
_MAY_SUCCEED: Final = f"""
SELECT seq FROM jobrunner.batches b WHERE seq = ANY ($1::bigint[]) AND deleted = 0 AND NOT EXISTS (
    {_STOPPED_MEMBER} AND NOT EXISTS (
        SELECT FROM jobrunner.edges WHERE edges.job = jobs.id AND edges.state > 0 AND edges.state = 2
    )
)"""


class Needed(NamedTuple):
    """A job for which others may wait."""

    id: str
    batch: int | None
    end: End


class _Change(NamedTuple):
    """A change of one edge."""

    job: str
    needs: str
    was: int
    state: int


class _Changed(NamedTuple):
    """The jobs of which an edge was changed."""

    met: list[str]
    broken: list[str]
    mended: list[str]
    """A broken edge of theirs is not broken any longer."""


async def insert(tx: Transaction, edges: Iterable[Edge]) -> None:
    """Store edges that are open."""
    await tx.execute(_INSERT, *zip(*edges, strict=True), OPEN)


async def void(tx: Transaction, jobs: Sequence[str]) -> None:
    """Give up the edges of jobs that were cancelled on request or have expired."""
    if jobs:
        await tx.execute(_VOID, jobs)


async def ends_of(tx: Transaction, jobs: Sequence[str]) -> dict[str, End]:
    """Return what has become of jobs."""
    states = dict(map(tuple, await tx.fetch(_STATES, jobs)))
    return {id: rules.end_of(states.get(id)) for id in jobs}


async def _change(tx: Transaction, changes: Sequence[_Change]) -> _Changed:
    """Lock the waiting jobs, then change their edges."""
    jobs = sorted({change.job for change in changes})
    await tx.execute(_LOCK, jobs)
    names = [f"{change.job} {change.needs}" for change in changes]
    was = [change.was for change in changes]
    states = [change.state for change in changes]
    changed = _Changed([], [], [])
    for job, before, state in await tx.fetch(_SET, jobs, names, was, states):
        if state == MET:
            changed.met.append(job)
        if state == BROKEN:
            changed.broken.append(job)
        if before == BROKEN:
            changed.mended.append(job)
    return changed


async def _release(tx: Transaction, jobs: Sequence[str], now: int, effects: Effects) -> None:
    """Make blocked and parked jobs due that have no unmet edge; their rows are locked."""
    if not jobs:
        return
    rows = await tx.fetch(_RELEASE, now, jobs)
    await lanes.arrived(tx, [seq for *_, seq, lane in rows if lane is not None])
    for state, run_at, expires_at, *_ in rows:
        effects.add(state, run_at, expires_at)


async def reconcile(
    tx: Transaction, now: int, needed: Collection[Needed], effects: Effects
) -> None:
    """Bring the edges to these jobs in line with their ends.

    The jobs and batches that depend on them follow. One call changes about ``followups.SLICE`` edges; the rest is left
    to later transactions. The batches of the jobs are locked.
    """
    if needed:
        await _Reconciling(tx, now, effects).run(needed)


class _Reconciling:
    """One slice of changes, level by level: each concerns the jobs that the one before has cancelled or revived."""

    def __init__(self, tx: Transaction, now: int, effects: Effects) -> None:
        self.tx = tx
        self.now = now
        self.effects = effects
        self.budget = followups.SLICE

    async def run(self, needed: Collection[Needed]) -> None:
        batches = {one.batch for one in needed}
        while needed:
            needed = await self.level(needed)
            batches.update(one.batch for one in needed)
        await finish(self.tx, self.now, {seq for seq in batches if seq is not None}, self.effects)

    async def level(self, needed: Collection[Needed]) -> list[Needed]:
        """Change the edges to these jobs; return the jobs that this has cancelled or revived."""
        by_end: dict[End, list[Needed]] = {}
        for one in needed:
            by_end.setdefault(one.end, []).append(one)
        changes: list[_Change] = []
        for end, group in by_end.items():
            changes += [
                _Change(job, needs, was, rules.edge_to_job(need, end))
                for job, needs, need, was in await self.out_of_line(end, group)
            ]
        if not changes:
            return []
        self.budget -= len(changes) + _LEVEL
        changed = await _change(self.tx, changes)
        found = [
            Needed(id, batch, "failed")
            for id, batch in await _cancel(self.tx, changed.broken, self.now)
        ]
        found += [
            Needed(id, batch, "unfinished") for id, batch in await _revive(self.tx, changed.mended)
        ]
        await _release(self.tx, changed.met, self.now, self.effects)
        return found

    async def out_of_line(
        self, end: End, group: Sequence[Needed]
    ) -> Sequence[tuple[str, str, Need, int]]:
        """Return edges to change, as many as the slice has room for."""
        ids = [one.id for one in group]
        room = max(self.budget, 0)
        select = _NEEDING.format("ANY ($1::text[])", _OUT_OF_LINE[end])
        found = await self.tx.fetch(f"{select} LIMIT $2", ids, room + 1)
        if len(found) <= room:
            return found
        rest = _NEEDING.format("wanted.id", _OUT_OF_LINE[end])
        left = await self.tx.fetch(
            f"SELECT id FROM unnest($1::text[]) AS wanted (id) WHERE EXISTS ({rest})", ids
        )
        batch_of = {one.id: one.batch for one in group}
        await followups.leave(self.tx, [(id, batch_of[id]) for (id,) in left])
        self.effects.left_over = True
        return found[:room]


async def _cancel(
    tx: Transaction, jobs: Sequence[str], now: int
) -> Sequence[tuple[str, int | None]]:
    """Cancel blocked jobs of which an edge has broken."""
    if not jobs:
        return []
    rows = await tx.fetch(_BREAK, now, jobs)
    tx.count(CANCELLED, [(queue, task) for *_, queue, task in rows])
    return [(id, batch) for id, batch, *_ in rows]


async def _revive(tx: Transaction, jobs: Sequence[str]) -> Sequence[tuple[str, int | None]]:
    """Block jobs again that broken edges had cancelled, unless their key is taken."""
    while jobs:
        rows = await tx.fetch(_REVIVABLE, jobs)
        free: dict[object, str] = {}
        for id, task, key, is_taken in rows:
            if not is_taken:
                # Of two with the same key the older one.
                free.setdefault(id if key is None else (task, key), id)
        try:
            async with tx.savepoint():
                made = await tx.fetch(_REVIVE, list(free.values()))
        except asyncpg.UniqueViolationError:
            continue  # another transaction has taken a key since
        await void(tx, sorted({id for id, *_ in rows} - {id for id, _ in made}))
        return [(id, batch) for id, batch in made]
    return []


async def finish(tx: Transaction, now: int, batches: Collection[int], effects: Effects) -> None:
    """End the batches without unfinished members, and run their callbacks."""
    if not batches:
        return
    await batch_locks.hold(tx, batches)
    over = [
        (
            seq,
            id,
            rules.batch_state(
                rules.Members(dead=dead, stopped=stopped), cancel_requested=cancel_requested
            ),
        )
        for seq, id, cancel_requested, dead, stopped in await tx.fetch(_OVER, sorted(batches))
    ]
    if not over:
        return
    seqs = [seq for seq, *_ in over]
    await tx.execute(_END, seqs, [state for *_, state in over], now)
    for _, id, state in over:
        tx.counted[ended_batches(state), "", ""] += 1
        effects.ended = (*effects.ended, id)
    await call_back(tx, now, seqs, effects)


async def call_back(tx: Transaction, now: int, batches: Sequence[int], effects: Effects) -> None:
    """Bring the open edges to batches in line with their states."""
    waiting = await tx.fetch(_CALLED_BACK, batches)
    if not waiting:
        return
    failed = {seq for *_, seq, state in waiting if state == "failed"}
    rows = await tx.fetch(_MAY_SUCCEED, sorted(failed)) if failed else ()
    may_succeed = {seq for (seq,) in rows}
    changes = [
        _Change(job, needs, OPEN, rules.edge_to_batch(need, state, may_succeed=seq in may_succeed))
        for job, needs, need, seq, state in waiting
    ]
    changes = [change for change in changes if change.state != OPEN]
    if not changes:
        return
    changed = await _change(tx, changes)
    await _release(tx, changed.met, now, effects)
    cancelled = await _cancel(tx, changed.broken, now)
    # A callback may itself be a member of another batch.
    await batch_locks.hold(tx, {batch for _, batch in cancelled if batch is not None})
    await reconcile(tx, now, [Needed(*one, "failed") for one in cancelled], effects)
