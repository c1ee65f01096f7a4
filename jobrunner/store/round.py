"""Defines the content and the result of one round."""

from collections.abc import Sequence
from typing import NamedTuple

from jobrunner.core.errors import JobRunnerError, StoreError
from jobrunner.core.model import (
    BatchEnqueue,
    Claim,
    Claimed,
    Enqueue,
    Enqueued,
    Memo,
    Outcome,
    Progressed,
    Succeeded,
)
from jobrunner.core.schedule import Fire, Fired
from jobrunner.core.workflows import BatchEnqueued
from jobrunner.store.statistics import StatisticsRow


class Round(NamedTuple):
    """The content of one transaction, processed in the order of the fields.

    Each part may make jobs claimable, so the claim is last. Outcomes come before them: the end of a job frees its key
    and unblocks the job behind it in its chain. Progress is first, since after its outcome an attempt cannot store it.
    """

    now: int
    progress: Sequence[Progressed] = ()
    """The progress of attempts, at most one value of each; what the fence refuses is dropped."""
    memos: Sequence[Memo] = ()
    """Memos of attempts; before the outcomes, since after its outcome an attempt cannot store one."""
    outcomes: Sequence[Outcome] = ()
    promote_due: bool = False
    """True to promote and expire jobs that have become due."""
    fires: Sequence[Fire] = ()
    """Steps of schedules; before the claim, so that the same round claims their jobs."""
    enqueues: Sequence[Enqueue] = ()
    calls: Sequence[int] = ()
    """The number of jobs of each call in ``enqueues``, of which all are stored or none.

    Without it, each chain and each other job is a call.
    """
    batches: Sequence[BatchEnqueue] = ()
    """Batches to store, each whole or not at all."""
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
    """One result per enqueue, in order; an error is that of all jobs of its call."""
    claimed: Sequence[Claimed]
    """Jobs in claim order: priority (high first), then due time, then age."""
    next_due: int | None
    """The next time at which a stored job becomes due or expires; None if there is none.

    Without ``Round.promote_due`` it covers only the rows that the round wrote.
    """
    more_due: bool
    """True if more jobs were due, or more wait for ends, than one round handles: the next one must promote again."""
    left_queued: bool
    """True if the round made more jobs claimable than it claimed, so that other workers are notified."""
    busy: Sequence[Outcome] = ()
    """Outcomes that were left out, since another open transaction holds what they change: write them again later."""
    refused: Sequence[tuple[Succeeded, BaseException]] = ()
    """Successes with a failed write, and its error: nothing of them was written, and the jobs still run."""
    fired: Sequence[Fired | StoreError] = ()
    """One result per fire, in order; an error concerns that schedule only."""
    batches: Sequence[BatchEnqueued | JobRunnerError] = ()
    """One result per batch, in order; an error concerns that batch only."""
    ended: Sequence[str] = ()
    """Ids of the batches that ended."""
    next_tick: int | None = None
    """The next tick of the schedules of ``Round.ticks_of``, in the past if overdue; None if there is none."""
    memos: Sequence[bool] = ()
    """One per memo, in order: False if it was not stored, since the attempt is no longer this worker's or a memo of the
    same kind and name is there.
    """
