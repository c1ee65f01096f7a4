"""Writes usual rounds by one call of a function at the server, commit included.

Such a round has only successes that write nothing, new jobs without keys, and a claim, and none of its jobs is in a
lane or a batch.  All others are written by ``round.py``, and so is one that the server refuses because of limits.
"""

import operator
from collections.abc import Sequence
from typing import Any, Final

from jobrunner.core.model import Claimed, Enqueue, Outcome, Succeeded
from jobrunner.store import rules
from jobrunner.store.effects import Effects
from jobrunner.store.postgres.sql.settle import has_writes_or_jobs
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.round import Round, Written
from jobrunner.store.rules import claim_order

_STORED: Final = operator.itemgetter(
    *(
        number
        for number, name in enumerate(Enqueue._fields)
        # The others need locks, or jobs wait for them.
        if name not in ("key", "lane", "ordered", "batch", "handed")
    )
)
"""The columns of ``new_job_5`` behind the state."""
_ALWAYS: Final = 7
"""Number of leading columns that every job has."""
_NO_OPTIONS: Final = (None,) * (len(Enqueue._fields) - _ALWAYS)
_PARAMETERS: Final = 7 + 1 + 1 + 1 + 5 + 1
_CALL: Final = (
    "SELECT * FROM jobrunner.round_5(" + ", ".join(f"${n}" for n in range(1, _PARAMETERS + 1)) + ")"
)
# A round's time is its own, to the microsecond: these are the jobs that it has claimed.
_CLAIMED_AT: Final = f"""
SELECT {", ".join(Claimed._fields)} FROM jobrunner.jobs
WHERE state = 'running' AND worker = $1 AND started_at = $2 AND queue = ANY ($3::text[])"""
_SETTLED: Final = """
SELECT job FROM jobrunner.attempts
JOIN unnest($1::bigint[], $2::bigint[]) AS wanted (job, lease) USING (job, lease) WHERE outcome = 'succeeded'"""
_IS_STORED: Final = """
SELECT EXISTS (SELECT FROM jobrunner.jobs WHERE id = ANY ($1::text[]))
    OR EXISTS (SELECT FROM jobrunner.dead_letters WHERE id = ANY ($1::text[]))"""
_CLAIMED: Final = len(Claimed._fields)
PROMOTED_PER_ROUND: Final = 500
"""As the function has it, and ``round.py``."""


def is_hot(request: Round) -> bool:
    """Return whether the function can write a round; the server may still refuse it."""
    if request.progress or request.memos or request.fires or request.batches or request.statistics:
        return False
    claim, ticks_of = request.claim, request.ticks_of
    if claim is not None and (claim.held is not None or ticks_of not in (None, claim.tasks)):
        return False
    return (
        all(map(_is_plain, request.enqueues))
        and all(map(_is_plain_success, request.outcomes))
        # Of two outcomes of one attempt the first counts.
        and len({one.job.seq for one in request.outcomes}) == len(request.outcomes)
        and len({one.job.worker for one in request.outcomes}) <= 1
    )


def _is_plain(job: Enqueue) -> bool:
    return job[_ALWAYS:] == _NO_OPTIONS or (
        job.key is None and job.lane is None and job.batch is None and job.handed is None
    )


def _is_plain_success(outcome: Outcome) -> bool:
    job = outcome.job
    return (
        type(outcome) is Succeeded
        and job.chain is None
        and job.lane is None
        and job.batch is None
        and not has_writes_or_jobs(outcome)
    )


async def write_hot(tx: Transaction, request: Round, *, must_stand: bool) -> Written | None:
    """Write a round for which ``is_hot`` is true; None if the server refused it, and then nothing is written.

    Args:
        tx: a connection without an open transaction, or with one.
        request: the round.
        must_stand: claim only if the worker has a row.
    """
    now, claim = request.now, request.claim
    states = [rules.first_state(job, now) for job in request.enqueues]
    free = {} if claim is None else {name: n for name, n in claim.slots.items() if n > 0}
    tasks = request.ticks_of if claim is None else claim.tasks
    *claimed, rest = await tx.fetch(
        _CALL,
        now,
        *_successes(request.outcomes),
        request.promote_due,
        [(state, *_STORED(job)) for state, job in zip(states, request.enqueues, strict=True)]
        or None,
        sorted(tasks) if tasks else None,
        *(
            (None, False, None, None, False)
            if claim is None or not free or not tasks
            else (claim.worker, must_stand, list(free), list(free.values()), claim.suspects)
        ),
        request.ticks_of is not None,
    ) or (None,)
    if rest is None:
        return None
    settled, promoted, next_due, next_tick = rest[_CLAIMED:]
    return _answer(
        request,
        states,
        [Claimed._make(row[:_CLAIMED]) for row in claimed],
        settled,
        promoted,
        next_due,
        next_tick,
    )


async def look_up(tx: Transaction, request: Round) -> Sequence[Written] | None:
    """Return the one answer of a round, if it was written, from its rows; its own answer was lost.

    None if there is no trace of it: then it was not written, or to write it again changes nothing.
    """
    claim = request.claim
    claimed = (
        []
        if claim is None
        else [
            Claimed._make(row)
            for row in await tx.fetch(_CLAIMED_AT, claim.worker, request.now, list(claim.slots))
        ]
    )
    settled = await tx.fetch(
        _SETTLED,
        [one.job.seq for one in request.outcomes],
        [one.job.lease for one in request.outcomes],
    )
    ids = [job.id for job in request.enqueues]
    if not claimed and not settled and not await tx.fetchval(_IS_STORED, ids):
        return None
    states = [rules.first_state(job, request.now) for job in request.enqueues]
    # What is due is looked for again.
    answer = _answer(
        request, states, claimed, [seq for (seq,) in settled], PROMOTED_PER_ROUND, None, None
    )
    return [answer._replace(next_due=request.now, next_tick=request.now)]


def _answer(
    request: Round,
    states: Sequence[Any],
    claimed: list[Claimed],
    settled: Sequence[int] | None,
    promoted: int,
    next_due: int | None,
    next_tick: int | None,
) -> Written:
    claimed.sort(key=claim_order)
    effects = Effects()
    effects.added = promoted
    enqueued = list(map(rules.enqueued, request.enqueues, states))
    effects.add_stored(request.enqueues, enqueued)
    passed = None if settled is None else frozenset(settled)
    return Written(
        stale=[]
        if passed is None
        else [one for one in request.outcomes if one.job.seq not in passed],
        cancelled=frozenset(),
        enqueued=enqueued,
        claimed=claimed,
        next_due=next_due if request.promote_due else effects.next_due,
        more_due=promoted == PROMOTED_PER_ROUND,
        left_queued=effects.added > len(claimed),
        next_tick=next_tick,
        fired=[],
    )


_NO_SUCCESSES: Final = (None,) * 6


def _successes(outcomes: Sequence[Any]) -> Sequence[Any]:
    if not outcomes:
        return _NO_SUCCESSES
    # In the order of their numbers, as the function needs them.
    rows = sorted(
        (job.seq, job.lease, ended.at, result, omitted)
        for job, ended, result, omitted, *_ in outcomes
    )
    seqs, leases, at, results, omitted = zip(*rows, strict=True)
    return seqs, leases, outcomes[0].job.worker, at, _or_none(results), _or_none(omitted)


def _or_none(column: Sequence[Any]) -> Sequence[Any] | None:
    """Leave out a column in which no row has a value."""
    return column if any(value is not None for value in column) else None
