"""The content and the result of one transaction of the hot path."""

from collections.abc import Sequence
from typing import NamedTuple

from jobrunner.core.errors import StoreError
from jobrunner.core.model import Claim, Claimed, Enqueue, Enqueued, Fire, Fired, Outcome, Succeeded


class Round(NamedTuple):
    """Everything that one transaction carries, done in the order of the fields.

    Each part may make jobs claimable, and the claim, which is last, takes them. Outcomes are first: the end of a job
    frees its key, and lets go the job behind it in its chain.
    """

    now: int
    outcomes: Sequence[Outcome] = ()
    look_due: bool = False
    """Whether to promote and expire what has become due."""
    fires: Sequence[Fire] = ()
    """Before the claim, so that the job of a tick is claimed with it."""
    enqueues: Sequence[Enqueue] = ()
    claim: Claim | None = None
    ticks_of: frozenset[str] | None = None
    """Tasks whose schedules' next tick ``Written.next_tick`` tells; None for not asked."""


class Written(NamedTuple):
    """The result of a round."""

    stale: Sequence[Outcome]
    """Outcomes that the fence refused: the attempt was no longer this worker's. They changed nothing."""
    cancelled: frozenset[int]
    """``seq`` of jobs whose outcome would have run them again, but a cancel had been requested: cancelled instead."""
    enqueued: Sequence[Enqueued | StoreError]
    """One per enqueue, in order; an error concerns that row alone, or all of its chain."""
    claimed: Sequence[Claimed]
    """In claim order: priority (high first), then due time, then age."""
    next_due: int | None
    """The next instant at which a stored job becomes due or expires; None if there is none.

    Of a round that did not look, the earliest among the rows that it wrote itself.
    """
    more_due: bool
    """Whether more was due than one round promotes: look again at once."""
    left_queued: bool
    """Whether the round made more jobs claimable than it claimed: the doorbell's hint to other workers."""
    refused: Sequence[tuple[Succeeded, BaseException]] = ()
    """Successes of which a write failed, with its error: nothing of them was written, and the jobs still run."""
    fired: Sequence[Fired | StoreError] = ()
    """One per fire, in order; an error concerns that schedule alone."""
    next_tick: int | None = None
    """The next tick of the schedules that were asked for, in the past if it is overdue; None if there is none."""
