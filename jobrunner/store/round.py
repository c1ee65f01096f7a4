"""Defines the content and the result of one round."""

from collections.abc import Sequence
from typing import NamedTuple

from jobrunner.core.errors import StoreError
from jobrunner.core.model import Claim, Claimed, Enqueue, Enqueued, Fire, Fired, Outcome, Succeeded
from jobrunner.store.statistics import StatisticsRow


class Round(NamedTuple):
    """The content of one transaction, processed in the order of the fields.

    Each part may make jobs claimable, so the claim is last. Outcomes are first: the end of a job frees its key and
    unblocks the job behind it in its chain.
    """

    now: int
    outcomes: Sequence[Outcome] = ()
    promote_due: bool = False
    """True to promote and expire jobs that have become due."""
    fires: Sequence[Fire] = ()
    """Steps of schedules; before the claim, so that the same round claims their jobs."""
    enqueues: Sequence[Enqueue] = ()
    claim: Claim | None = None
    ticks_of: frozenset[str] | None = None
    """Tasks for ``Written.next_tick``; None leaves it out."""
    statistics: Sequence[StatisticsRow] = ()
    """Statistics of minutes to add: of attempts that ended in earlier rounds."""


class Written(NamedTuple):
    """The result of a round."""

    stale: Sequence[Outcome]
    """Outcomes that the fence refused, since the attempt is no longer this worker's; they changed nothing."""
    cancelled: frozenset[int]
    """``seq`` of jobs that were cancelled on request instead of running again."""
    enqueued: Sequence[Enqueued | StoreError]
    """One result per enqueue, in order; an error concerns that job or its whole chain."""
    claimed: Sequence[Claimed]
    """Jobs in claim order: priority (high first), then due time, then age."""
    next_due: int | None
    """The next time at which a stored job becomes due or expires; None if there is none.

    Without ``Round.promote_due`` it covers only the rows that the round wrote.
    """
    more_due: bool
    """True if more jobs were due than one round promotes: the next round must promote again."""
    left_queued: bool
    """True if the round made more jobs claimable than it claimed, so that other workers are notified."""
    refused: Sequence[tuple[Succeeded, BaseException]] = ()
    """Successes with a failed write, and its error: nothing of them was written, and the jobs still run."""
    fired: Sequence[Fired | StoreError] = ()
    """One result per fire, in order; an error concerns that schedule only."""
    next_tick: int | None = None
    """The next tick of the schedules of ``Round.ticks_of``, in the past if overdue; None if there is none."""
