"""Stores memos and signals, and parks jobs, inside an open transaction.

One primary key decides between a signal and the time-out of its wait: both are a memo of the same kind and name, and
the first one stays.  A signal and a park lock the job's row, and read afterwards: else each of the two would miss what
the other one has not committed, and nobody would wake the job.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from jobrunner.core.errors import JobNotFound
from jobrunner.core.model import FINISHED, Claimed, JobRow, Memo, Parked
from jobrunner.core.workflows import ParkedWait, StepRow
from jobrunner.store import workflow_rules as rules
from jobrunner.store.effects import Effects
from jobrunner.store.postgres.sql import batches, lanes
from jobrunner.store.postgres.sql.lanes import changed
from jobrunner.store.postgres.sql.states import PARKED
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.workflow_rules import MET, OPEN, Placed

# Behind the fence; the lock makes whoever takes the job away wait, so that the next attempt reads what this one has
# kept. Only a cursor moves.
_KEEP: Final = """
WITH held AS MATERIALIZED (
    SELECT seq, lease, worker FROM jobrunner.jobs WHERE seq = ANY ($1::bigint[]) AND state || '' = 'running'
    ORDER BY seq FOR NO KEY UPDATE
)
INSERT INTO jobrunner.steps (job, kind, name, value, at)
SELECT seq, kind, name, value, $7
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[])
    AS memo (seq, lease, worker, kind, name, value)
JOIN held USING (seq, lease, worker)
ON CONFLICT (job, kind, name) DO UPDATE SET value = excluded.value, at = excluded.at WHERE steps.kind = 'cursor'
RETURNING job, kind, name"""

_READ: Final = (
    "SELECT kind, name, value, at FROM jobrunner.steps WHERE job = $1 ORDER BY at, kind, name"
)

_LOCK: Final = "SELECT seq, state FROM jobrunner.jobs WHERE id = $1 FOR NO KEY UPDATE"
_IS_DEAD: Final = "SELECT FROM jobrunner.dead_letters WHERE id = $1"
_SIGNAL: Final = """
INSERT INTO jobrunner.steps (job, kind, name, value, at) VALUES ($1, 'signal', $2, $3, $4)
ON CONFLICT (job, kind, name) DO NOTHING"""

_MEET: Final = "UPDATE jobrunner.edges SET state = 0 WHERE job = $1 AND needs = $2 AND state > 0"
# A wait whose time has come: of those given, the ones for which a signal is there, whoever has stored it.
_MEET_TIMED_OUT: Final = """
UPDATE jobrunner.edges SET state = 0
WHERE job = ANY ($2::text[]) AND job || ' ' || needs = ANY ($3::text[]) AND state > 0 AND EXISTS (
    SELECT FROM jobrunner.steps
    WHERE steps.job = ($1::bigint[])[array_position($2::text[], edges.job)] AND kind = 'signal'
        AND steps.name = substr(needs, 2)
)"""

_WAKE: Final = f"""
UPDATE jobrunner.jobs SET state = 'queued', run_at = $1
WHERE id = $2 AND {PARKED}
    AND NOT EXISTS (SELECT FROM jobrunner.edges WHERE edges.job = jobs.id AND edges.state > 0 OFFSET 0)
RETURNING seq, lane"""

# Locked already: a round locks what will run again before it asks for cancels.
_HELD: Final = """
SELECT seq, lease, worker, coalesce(ordered, false) FROM jobrunner.jobs
WHERE seq = ANY ($1::bigint[]) AND state || '' = 'running'"""
# What is unmet is of an earlier wait, which a time ended: a job that runs waits for nothing.
_FORGET_UNMET: Final = "DELETE FROM jobrunner.edges WHERE job = ANY ($1::text[]) AND state > 0"
_IS_MET: Final = """
SELECT CASE WHEN needs LIKE '!%' THEN EXISTS (
        SELECT FROM jobrunner.steps WHERE job = d.seq AND kind = 'signal' AND name = substr(needs, 2)
    ) ELSE EXISTS (SELECT FROM jobrunner.batches WHERE id = needs AND ended_at IS NOT NULL) END
FROM unnest($1::bigint[], $2::text[]) WITH ORDINALITY AS d (seq, needs, number) ORDER BY number"""
_WAIT: Final = """
INSERT INTO jobrunner.edges (job, needs, need, state)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::int[])
ON CONFLICT (job, needs) DO UPDATE SET need = excluded.need, state = excluded.state"""
# No join, and a binary search, for the reasons in settle.py.
_PLACE: Final = "width_bucket(job.seq, $1::bigint[])"
_PARK: Final = f"""
UPDATE jobrunner.jobs job SET state = ($2::text[])[{_PLACE}], run_at = ($3::bigint[])[{_PLACE}],
    worker = NULL, attempt = attempt - 1, suspect = false, expires_at = NULL
WHERE job.seq = ANY ($1::bigint[])"""


async def keep(tx: Transaction, memos: Sequence[Memo], now: int) -> list[bool]:
    """Store the memos of attempts behind the fence; return for each whether it was stored.

    A memo that is there already stays, except a cursor.
    """
    # A statement cannot write one row twice: of several the first counts, and of cursors the last.
    counts: dict[tuple[object, ...], Memo] = {}
    for memo in memos:
        key = (*_fence(memo.job), memo.kind, memo.name)
        if memo.kind == "cursor" or key not in counts:
            counts[key] = memo
    rows = [(*_fence(m.job), m.kind, m.name, m.value) for m in counts.values()]
    stored = {tuple(row) for row in await tx.fetch(_KEEP, *zip(*rows, strict=True), now)}
    signals = [memo for memo in counts.values() if memo.kind == "signal"]
    timed_out = [(m.job.seq, m.job.id, f"{m.job.id} !{m.name}") for m in signals]
    if timed_out:
        # Nothing is open any longer. That of a stale attempt was not stored.
        await tx.execute(_MEET_TIMED_OUT, *zip(*timed_out, strict=True))
    return [
        (memo.job.seq, memo.kind, memo.name) in stored
        and (memo.kind == "cursor" or counts[*_fence(memo.job), memo.kind, memo.name] is memo)
        for memo in memos
    ]


def _fence(job: Claimed) -> tuple[int, int, int]:
    return job.seq, job.lease, job.worker


async def read(tx: Transaction, job: int) -> list[StepRow]:
    """Return the memos of a job, given by ``seq``, oldest first."""
    return [StepRow(*row) for row in await tx.fetch(_READ, job)]


async def signal(tx: Transaction, id: str, name: str, value: str, now: int) -> bool:
    """Store a signal for a job and wake it if it waits; see ``WorkflowStore.signal``."""
    row = None if "\0" in id else await tx.fetchrow(_LOCK, id)
    if row is None:
        if "\0" not in id and await tx.fetchrow(_IS_DEAD, id) is not None:
            raise rules.takes_no_signal(id, "dead")
        raise JobNotFound(f"no job has the id {id}; it may be past its retention")
    seq, state = row
    if state in FINISHED:
        raise rules.takes_no_signal(id, state)
    if not changed(await tx.execute(_SIGNAL, seq, name, value, now)):
        return False
    if changed(await tx.execute(_MEET, id, f"!{name}")):
        woken = await tx.fetch(_WAKE, now, id)
        await lanes.left(tx, [lane for _, lane in woken])
        await lanes.arrived(tx, [seq for seq, lane in woken if lane is not None])
    return True


async def park(
    tx: Transaction, group: Sequence[Parked], now: int, effects: Effects
) -> list[tuple[Parked, Placed]]:
    """Park jobs, with their memos, their edges and their children; the jobs' numbers ascend.

    What a job waits for may have come since it last read, before this transaction. Then it is queued at once, since
    nothing else would wake it. The batches for which they wait are locked.

    Returns:
        Those that the fence let through, and where each waits.
    """
    rows = await tx.fetch(_HELD, [one.job.seq for one in group])
    held = {(seq, lease, worker): ordered for seq, lease, worker, ordered in rows}
    passed: dict[int, Parked] = {}
    for one in group:
        if _fence(one.job) in held:
            passed.setdefault(one.job.seq, one)  # the first of two outcomes of one attempt counts
    parks = list(passed.values())
    if not parks:
        return []
    memos = [memo for one in parks for memo in one.memos]
    if memos:
        await keep(tx, memos, now)
    for one in parks:
        if one.children is not None:
            # Before its end is read: a batch without members has ended at once.
            await batches.enqueue(tx, one.children, now, effects)
    met = await _wait(tx, parks)
    placed = [
        rules.place(one.until, met[one.job.seq], ordered=held[_fence(one.job)], now=now)
        for one in parks
    ]
    await tx.execute(_PARK, [one.job.seq for one in parks], *zip(*placed, strict=True))
    return list(zip(parks, placed, strict=True))


async def _wait(tx: Transaction, parks: Sequence[Parked]) -> Mapping[int, Sequence[bool]]:
    """Store the edges of parked jobs; return of each job, by ``seq``, which of them are met."""
    await tx.execute(_FORGET_UNMET, [one.job.id for one in parks])
    found: dict[int, list[bool]] = {one.job.seq: [] for one in parks}
    waits = [(one.job.seq, wait) for one in parks for wait in one.waits]
    if waits:
        needs = [wait.needs for _, wait in waits]
        rows = await tx.fetch(_IS_MET, [seq for seq, _ in waits], needs)
        is_met = [met for (met,) in rows]
        for (seq, _), met in zip(waits, is_met, strict=True):
            found[seq].append(met)
        await tx.execute(
            _WAIT,
            [wait.job for _, wait in waits],
            needs,
            [wait.need for _, wait in waits],
            [MET if met else OPEN for met in is_met],
        )
    return found


_FORGET: Final = """
DELETE FROM jobrunner.steps WHERE job = $1 AND name IN (
    SELECT name FROM unnest($2::text[]) AS given (name) UNION ALL
    SELECT '!' || name FROM unnest($2::text[]) AS given (name)
)"""


async def names(tx: Transaction, job: int) -> frozenset[str]:
    """Return the names under which a job, given by ``seq``, has memos."""
    rows = await tx.fetch("SELECT DISTINCT name FROM jobrunner.steps WHERE job = $1", job)
    return frozenset(name for (name,) in rows if not name.startswith("!"))


async def forget(tx: Transaction, job: int, names: Sequence[str]) -> None:
    """Delete the memos of a job with these names, whatever their kind.

    The deadline of a wait goes with its signal.
    """
    await tx.execute(_FORGET, job, list(names))


_WAITS: Final = f"""
SELECT jobs.seq, ARRAY(SELECT needs FROM jobrunner.edges WHERE job = d.id AND state > 0 ORDER BY needs), EXISTS (
    SELECT FROM jobrunner.steps
    WHERE job = d.seq AND kind = 'sleep' AND value = d.run_at::text AND substr(name, 1, 1) <> '!'
)
FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS d (seq, id, run_at) JOIN jobrunner.jobs ON jobs.seq = d.seq
WHERE {PARKED}"""


async def waits_of(tx: Transaction, jobs: Sequence[JobRow]) -> Mapping[int, ParkedWait]:
    """Return that for which parked jobs wait; see ``WorkflowStore.waits``."""
    parked = {job.seq: job for job in jobs if rules.may_be_parked(job)}
    if not parked:
        return {}
    given: list[tuple[Any, ...]] = [(job.seq, job.id, job.run_at) for job in parked.values()]
    return {
        seq: ParkedWait(tuple(needs), rules.wait_until(parked[seq]))
        for seq, needs, sleeps in await tx.fetch(_WAITS, *zip(*given, strict=True))
        if needs or sleeps
    }
