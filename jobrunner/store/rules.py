"""Decides each next state of a job from plain values; a store's statements carry it out.

No I/O, and ``now`` is an argument.  Where a statement decides for itself, because reading the rows first would cost
more, the rule stands here as well, and ``tests/store/test_rules.py`` compares the two.  A pass over a round goes in the
order of ``Round``'s fields.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final, Literal, NamedTuple

from jobrunner.core.model import (
    LOST_LIMIT,
    Cancelled,
    Claim,
    Claimed,
    Dead,
    Enqueue,
    JobRow,
    Outcome,
    Released,
    RetryAt,
    Snoozed,
    State,
    Succeeded,
)

SUSPECT_DEATHS: Final = 2
"""A job whose process died this often under it runs with no other suspect beside it."""

# -- new jobs ------------------------------------------------------------------------------------------


def first_state(job: Enqueue, now: int) -> State:
    """Return the state in which a new job is stored."""
    if job.after is not None:
        return "blocked"
    return _unblocked(job.run_at, job.created_at, now)


def _unblocked(run_at: int, created_at: int, now: int) -> State:
    # A job that is due from the start stays so when the clock steps back before its round.
    return "queued" if run_at <= max(now, created_at) else "scheduled"


def link(job: Enqueue, *, first: str | None, before: str | None) -> Enqueue:
    """Return a job of a chain behind the jobs that were stored, without those whose key was taken.

    Args:
        job: a job of the chain.
        first: the first job of the chain that was stored; None if none was.
        before: the last one that was.
    """
    return job._replace(chain=first or job.id, after=before)


def units(jobs: Sequence[Enqueue]) -> Iterator[Sequence[Enqueue]]:
    """Return the parts that are stored or refused whole: each job that is in no chain, and each chain."""
    for chain, group in groupby(jobs, attrgetter("chain")):
        if chain is None:
            yield from ([job] for job in group)
        else:
            yield list(group)


# -- the end of an attempt -----------------------------------------------------------------------------


class RunAgain(NamedTuple):
    """The state in which a job waits for its next attempt."""

    state: State
    run_at: int
    attempts_given_back: int
    stays_suspect: bool


def run_again(outcome: RetryAt | Snoozed | Released) -> RunAgain:
    """Decide how a job goes on after an attempt that did not end it.

    Its process has survived a failure and a snooze, so that it is no suspect after them; a shutdown shows nothing.
    """
    if isinstance(outcome, RetryAt):
        return RunAgain("scheduled", outcome.run_at, 0, stays_suspect=False)
    if isinstance(outcome, Snoozed):
        return RunAgain("scheduled", outcome.run_at, 1, stays_suspect=False)
    return RunAgain("queued", outcome.job.run_at, 1, stays_suspect=True)


def obey_cancels(
    outcomes: Sequence[Outcome], requested: Collection[tuple[int, int]]
) -> tuple[Sequence[Outcome], frozenset[int]]:
    """Turn outcomes that would run a job again into a cancel where one was requested meanwhile.

    Args:
        outcomes: how attempts ended.
        requested: ``(seq, lease)`` of the attempts that are asked to stop.

    Returns:
        The outcomes, in their order, and ``seq`` of the jobs that are cancelled instead.
    """
    if not requested:
        return outcomes, frozenset()
    obeyed: list[Outcome] = []
    cancelled: set[int] = set()
    for outcome in outcomes:
        job, ended = outcome.job, outcome.ended
        runs_again = isinstance(outcome, (RetryAt, Snoozed, Released))
        if runs_again and (job.seq, job.lease) in requested:
            cancelled.add(job.seq)
            obeyed.append(Cancelled(job, ended))
        else:
            obeyed.append(outcome)
    return obeyed, frozenset(cancelled)


def on_cancel(state: State) -> Literal["cancelled", "requested"] | None:
    """Decide the effect of a cancel on a job in this state; None if it has ended."""
    if state in ("scheduled", "queued", "blocked"):
        return "cancelled"
    return "requested" if state == "running" else None


# -- chains --------------------------------------------------------------------------------------------


class ChainEnds(NamedTuple):
    """The jobs of chains that have ended, by their effect on the jobs behind them."""

    done: Sequence[str] = ()
    """Ids of jobs that succeeded or are dead: the job behind each is let go."""
    stopped: Sequence[str] = ()
    """Ids of jobs that were cancelled or have expired: all jobs behind each are cancelled."""


def chain_ends(outcomes: Sequence[Outcome]) -> ChainEnds:
    """Return the outcomes that mean something for a job behind theirs."""
    chained = [outcome for outcome in outcomes if outcome.job.chain is not None]
    if not chained:
        return ChainEnds()
    return ChainEnds(
        done=[one.job.id for one in chained if isinstance(one, (Succeeded, Dead))],
        stopped=[one.job.id for one in chained if isinstance(one, Cancelled)],
    )


def let_go(*, run_at: int, created_at: int, now: int) -> tuple[State, int]:
    """Return state and due time of a blocked job whose turn has come.

    It is due from now on at the earliest: it must not overtake the jobs that have waited. Statements decide so.
    """
    return _unblocked(run_at, created_at, now), max(run_at, now)


# -- after a crash -------------------------------------------------------------------------------------

AfterCrash = Literal["cancelled", "buried", "suspect", "queued"]


def after_crash(
    *, attempt: int, max_attempts: int | None, deaths: int, cancel_requested: bool
) -> AfterCrash:
    """Decide how a job goes on whose process died.

    One death says little: a deploy or a power cut takes all running jobs along. From the second on, or when the next
    one would be its last, the job runs with no other suspect beside it, so that the innocent are not buried with the
    one that kills its process.

    Args:
        attempt: the one that was running.
        max_attempts: the job's own, else its task's; without a limit the deaths count alone.
        deaths: how often its process has died, this time too.
        cancel_requested: whether the attempt was asked to stop.
    """
    if cancel_requested:
        return "cancelled"
    if attempt >= max_attempts if max_attempts is not None else deaths >= LOST_LIMIT:
        return "buried"
    last_chance = max_attempts is not None and attempt + 1 >= max_attempts
    return "suspect" if deaths >= SUSPECT_DEATHS or last_chance else "queued"


# -- claims --------------------------------------------------------------------------------------------

Rank = tuple[int, int, int]
"""Priority (negated), due time, seq."""


def claim_order(job: Claimed | JobRow) -> Rank:
    """Return a key that sorts jobs in claim order: priority (high first), due time, age.

    Statements read a queue in this order.
    """
    return (-job.priority, job.run_at, job.seq)


def may_claim(job: JobRow, claim: Claim, now: int) -> bool:
    """Return whether a worker may start a waiting job, if its queue is not paused; statements decide so."""
    return (
        job.state == "queued"
        and job.task in claim.tasks
        and claim.slots.get(job.queue, 0) > 0
        and (job.expires_at is None or job.expires_at > now)
    )
