"""Inserts jobs inside an open transaction.

The order of the jobs is their age.
"""

from collections.abc import Collection, Sequence
from itertools import groupby
from typing import Final

from jobrunner.core.model import Enqueue, Enqueued, State
from jobrunner.store import rules
from jobrunner.store.postgres import locks
from jobrunner.store.postgres.sql import lanes
from jobrunner.store.postgres.sql.states import UNFINISHED
from jobrunner.store.postgres.sql.transaction import Transaction

_ALWAYS: Final = 7
"""Number of leading fields that every job sets; the others are options, nearly always None."""
_NO_OPTIONS: Final = (None,) * (len(Enqueue._fields) - _ALWAYS)
_TYPES: Final = (
    {"created_at": "bigint", "run_at": "bigint", "priority": "bigint"}
    | dict.fromkeys(("expires_at", "max_attempts", "timeout", "scheduled_for", "batch"), "bigint")
    | {"ordered": "boolean"}
)

KEY_IS_TAKEN: Final = f" ON CONFLICT (task, key) WHERE key IS NOT NULL AND {UNFINISHED} DO NOTHING"

FIND_BY_KEY: Final = f"""
SELECT id, task, queue, state, created_at, run_at, attempt, chain, after FROM jobrunner.jobs
WHERE task = $1 AND key = $2 AND {UNFINISHED}"""


def _statement(columns: Sequence[str]) -> str:
    arrays = ", ".join(
        f"${number}::{_TYPES.get(column, 'text')}[]" for number, column in enumerate(columns, 1)
    )
    names = ", ".join(columns)
    return (
        f"INSERT INTO jobrunner.jobs ({names}) SELECT {names}"
        f" FROM unnest({arrays}) WITH ORDINALITY AS new ({names}, number) ORDER BY number"
    )


_PLAIN: Final = _statement(["state", *Enqueue._fields[:_ALWAYS]])
_WHOLE: Final = _statement(["state", *Enqueue._fields])
_KEYED: Final = f"{_WHOLE}{KEY_IS_TAKEN} RETURNING id"


async def insert_all(tx: Transaction, jobs: Sequence[Enqueue], now: int) -> list[Enqueued]:
    """Store jobs and chains; for a taken key, return the unfinished job that holds it."""
    keyed = {job.chain for job in jobs if job.key is not None}
    keyed.discard(None)
    if not keyed:
        return await _insert(tx, jobs, now)
    made: list[Enqueued] = []
    for chain, part in groupby(jobs, lambda job: job.chain if job.chain in keyed else None):
        insert = _insert if chain is None else _insert_keyed_chain
        made += await insert(tx, list(part), now)
    return made


async def lock_lanes(tx: Transaction, jobs: Sequence[Enqueue]) -> None:
    """Hold the locks of ordered lanes until the commit; call before inserting.

    Numbers are drawn in one order and committed in another, and a claim starts the lowest one that it sees: without the
    lock it would overtake an older job whose transaction is not committed yet.
    """
    ordered = {job.lane for job in jobs if job.ordered and job.lane is not None}
    if ordered:
        await locks.lock_all(tx.connection, map(locks.of_lane, ordered))


async def _insert_keyed_chain(tx: Transaction, jobs: Sequence[Enqueue], now: int) -> list[Enqueued]:
    """Store a chain row by row, skipping jobs whose key is taken.

    The job after a skipped one waits for the last stored job.
    """
    made: list[Enqueued] = []
    first = before = None
    for job in jobs:
        made += await _insert(tx, [rules.link(job, first=first, before=before)], now)
        if made[-1].created:
            first, before = first or job.id, job.id
    return made


async def insert_queued(tx: Transaction, job: Enqueue) -> Enqueued:
    """Store a job as queued, even if it follows another job of a chain."""
    (made,) = await _insert(tx, [job], job.run_at, state="queued")
    return made


async def members(
    tx: Transaction, jobs: Sequence[Enqueue], now: int, blocked: Collection[str]
) -> list[Enqueued]:
    """Store members or callbacks of a batch; those with an id in ``blocked`` wait."""
    return await _insert(tx, jobs, now, blocked=blocked)


async def _insert(
    tx: Transaction,
    jobs: Sequence[Enqueue],
    now: int,
    *,
    state: State | None = None,
    blocked: Collection[str] = (),
) -> list[Enqueued]:
    if not jobs:
        return []
    states = [state or rules.first_state(job, now) for job in jobs]
    if blocked:
        pairs = zip(jobs, states, strict=True)
        states = ["blocked" if job.id in blocked else first for job, first in pairs]
    columns = list(zip(*jobs, strict=True))
    if all(job[_ALWAYS:] == _NO_OPTIONS for job in jobs):
        await tx.execute(_PLAIN, states, *columns[:_ALWAYS])
        return list(map(rules.enqueued, jobs, states))
    if all(job.key is None for job in jobs):
        await tx.execute(_WHOLE, states, *columns)
        stored = {job.id for job in jobs}
    else:
        stored = {id for (id,) in await tx.fetch(_KEYED, states, *columns)}
    await lanes.arrived_new(tx, [job.id for job in jobs if job.lane and job.id in stored])
    made: list[Enqueued] = []
    for job, first in zip(jobs, states, strict=True):
        if job.id in stored:
            made.append(rules.enqueued(job, first))
            continue
        holder = await tx.fetchrow(FIND_BY_KEY, job.task, job.key)
        if holder is None:
            # It has ended since the statement that met it.
            made += await _insert(tx, [job], now, state=state, blocked=blocked)
        else:
            id, *rest = holder
            made.append(Enqueued(id, False, *rest))
    return made
