"""Decides the next state of a job from plain values; a store's statements apply it.

No I/O; ``now`` is an argument.  Some SQL statements contain a rule themselves, because reading the rows first would
cost more.  Such a rule is also written here, and ``tests/store/test_rules.py`` compares the two.  A round is processed
in the order of ``Round``'s fields.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final, Literal, NamedTuple

from jobrunner.core.counts import ReplayCounts
from jobrunner.core.errors import InvalidOptions, JobNotWaiting, StoreUnavailable
from jobrunner.core.model import (
    LOST_LIMIT,
    Cancelled,
    Claim,
    Claimed,
    Enqueue,
    Enqueued,
    JobRow,
    Outcome,
    Parked,
    Released,
    RetryAt,
    Snoozed,
    State,
)
from jobrunner.core.workflows import ParkedWait

SUSPECT_DEATHS: Final = 2
"""A job whose process died this many times runs only while no other suspect runs."""

# -- new jobs ------------------------------------------------------------------------------------------


def first_state(job: Enqueue, now: int) -> State:
    """Return the state in which a new job is stored."""
    if job.after is not None:
        return "blocked"
    return _unblocked(job.run_at, job.created_at, now)


def _unblocked(run_at: int, created_at: int, now: int) -> State:
    # A job that was due when it was created stays due even if the clock steps back before its round.
    return "queued" if run_at <= now or run_at <= created_at else "scheduled"


def enqueued(job: Enqueue, state: State) -> Enqueued:
    """Return the answer to a job that was stored in a state."""
    return Enqueued(
        job.id,
        True,
        job.task,
        job.queue,
        state,
        job.created_at,
        job.run_at,
        0,
        job.chain,
        job.after,
    )


def link(job: Enqueue, *, first: str | None, before: str | None) -> Enqueue:
    """Return a job of a chain, linked to the last stored job before it.

    Jobs that were not stored because their key was taken are skipped.

    Args:
        job: the next job of the chain.
        first: id of the first stored job of the chain; None if none was stored yet.
        before: id of the last stored job; None if none was stored yet.
    """
    return job._replace(chain=first or job.id, after=before)


def units(jobs: Sequence[Enqueue]) -> Iterator[Sequence[Enqueue]]:
    """Yield the units that are stored all or none: each chain, and each other job alone."""
    for chain, group in groupby(jobs, attrgetter("chain")):
        if chain is None:
            yield from ([job] for job in group)
        else:
            yield list(group)


def calls(jobs: Sequence[Enqueue], sizes: Sequence[int]) -> Iterator[Sequence[Enqueue]]:
    """Yield the jobs of each call; see ``Round.calls``."""
    if not sizes:
        yield from units(jobs)
    at = 0
    for size in sizes:
        yield jobs[at : at + size]
        at += size


def row_refused(jobs: Sequence[Enqueue], error: Exception) -> StoreUnavailable:
    """Return the error of a call of which the store refuses a row."""
    what = "the row of job" if len(jobs) == 1 else f"one of {len(jobs)} rows from job"
    return StoreUnavailable(f"the store refuses {what} {jobs[0].id}: {error}")


# -- the end of an attempt -----------------------------------------------------------------------------


class RunAgain(NamedTuple):
    """State and due time of a job that waits for its next attempt."""

    state: State
    run_at: int
    attempts_given_back: int
    stays_suspect: bool


def run_again(outcome: RetryAt | Snoozed | Released) -> RunAgain:
    """Decide the state of a job after an attempt that did not end it.

    After a failure or a snooze the job is no longer a suspect, because its process survived the attempt. A release at
    shutdown proves nothing, so a suspect stays one.
    """
    if isinstance(outcome, RetryAt):
        return RunAgain("scheduled", outcome.run_at, 0, stays_suspect=False)
    if isinstance(outcome, Snoozed):
        return RunAgain("scheduled", outcome.run_at, 1, stays_suspect=False)
    return RunAgain("queued", outcome.job.run_at, 1, stays_suspect=True)


def obey_cancels(
    outcomes: Sequence[Outcome], requested: Collection[tuple[int, int]]
) -> tuple[Sequence[Outcome], frozenset[int]]:
    """Replace outcomes that would run a cancelled job again by ``Cancelled``.

    Args:
        outcomes: the outcomes of a round.
        requested: ``(seq, lease)`` of the attempts that were asked to stop.

    Returns:
        The outcomes in the same order, and ``seq`` of the jobs that are cancelled.
    """
    if not requested:
        return outcomes, frozenset()
    obeyed: list[Outcome] = []
    cancelled: set[int] = set()
    for outcome in outcomes:
        job, ended = outcome.job, outcome.ended
        runs_again = isinstance(outcome, (RetryAt, Snoozed, Parked, Released))
        if runs_again and (job.seq, job.lease) in requested:
            cancelled.add(job.seq)
            obeyed.append(Cancelled(job, ended))
        else:
            obeyed.append(outcome)
    return obeyed, frozenset(cancelled)


def on_cancel(state: State) -> Literal["cancelled", "requested"] | None:
    """Decide the effect of a cancel on a job in this state; None if the job has ended."""
    if state in ("scheduled", "queued", "blocked"):
        return "cancelled"
    return "requested" if state == "running" else None


def rescheduled(job: JobRow, run_at: int, now: int, parked: ParkedWait | None = None) -> JobRow:
    """Return a waiting job with another due time and its new state.

    ``retrying`` is left to the store, which knows the history.

    Args:
        job: the job.
        run_at: the new time; in the past it means now.
        now: the current time.
        parked: that for which the job waits if it is parked. Its task decides when it goes on: woken early, it would
            only wait again, and woken late, its sleep or its time-out would be longer than the task says.

    Raises:
        JobNotWaiting: The job is neither scheduled nor queued, or is parked.
        InvalidOptions: The job would expire before it is due.
    """
    if job.state not in ("scheduled", "queued"):
        raise JobNotWaiting(_WHY_NOT_WAITING[job.state].format(job, _needed(job)))
    if parked is not None and job.state == "scheduled":
        raise JobNotWaiting(_PARKED.format(job, parked.text))
    if run_at <= now:
        # A job that is due already keeps its place, and another one does not overtake those that are.
        return job._replace(state="queued", run_at=min(job.run_at, now), retrying=False)
    if job.expires_at is not None and job.expires_at <= run_at:
        raise InvalidOptions(
            f"job {job.id} would expire before it is due; give an earlier time, or cancel it and enqueue it again"
        )
    return job._replace(state="scheduled", run_at=run_at)


def _needed(job: JobRow) -> str:
    """Say for what a blocked job waits."""
    if job.after is not None and job.first_started_at is None:
        return f"job {job.after}, the one before it in its chain; reschedule that one"
    return "other jobs or a signal; it goes on once they are there"


_CANNOT: Final = "job {0.id} cannot be rescheduled: "
_ENDED: Final = _CANNOT + "it is {0.state}; enqueue it again"
_PARKED: Final = (
    _CANNOT + "it has begun, and its task waits for a time or a signal ({1}); the task goes on then"
)
_WHY_NOT_WAITING: Final[Mapping[State, str]] = {
    "running": _CANNOT + "it is running; its task can `raise Snooze(run_at=...)`",
    "blocked": _CANNOT + "it waits for {1}",
    "succeeded": _ENDED,
    "cancelled": _ENDED,
    "expired": _ENDED,
    "dead": _CANNOT + "it is a dead letter; write `await queue.dead_letters.replay(id)`",
}


# -- chains --------------------------------------------------------------------------------------------


def unblock(*, run_at: int, created_at: int, now: int) -> tuple[State, int]:
    """Return the state and due time of a blocked job that is unblocked.

    The job is due now at the earliest, so that it does not overtake jobs that were queued before. The SQL statement
    contains the same rule.
    """
    return _unblocked(run_at, created_at, now), max(run_at, now)


# -- after a crash -------------------------------------------------------------------------------------

AfterCrash = Literal["cancelled", "buried", "suspect", "queued"]


def after_crash(
    *, attempt: int, max_attempts: int | None, deaths: int, cancel_requested: bool
) -> AfterCrash:
    """Decide the state of a job whose process died.

    One death proves little: a deploy or a power cut kills all running jobs. From the second death on, or if the next
    death would bury the job, it becomes a suspect and runs only while no other suspect runs. So harmless jobs are not
    buried together with a job that kills its process.

    Args:
        attempt: number of the attempt that was running.
        max_attempts: the job's own limit, else its task's; None to count only the deaths.
        deaths: number of times the job's process has died, including this one.
        cancel_requested: True if the attempt was asked to stop.
    """
    if cancel_requested:
        return "cancelled"
    if attempt >= max_attempts if max_attempts is not None else deaths >= LOST_LIMIT:
        return "buried"
    last_chance = max_attempts is not None and attempt + 1 >= max_attempts
    return "suspect" if deaths >= SUSPECT_DEATHS or last_chance else "queued"


# -- claims --------------------------------------------------------------------------------------------

Rank = tuple[int, int, int]
"""``(-priority, due time, seq)``."""


def claim_order(job: Claimed | JobRow) -> Rank:
    """Return the sort key of claim order: priority (high first), due time, age.

    The claim statements read a queue in this order.
    """
    return (-job.priority, job.run_at, job.seq)


def may_claim(job: JobRow, claim: Claim, now: int) -> bool:
    """Return whether a claim may start this job, assuming its queue is not paused.

    The claim statements contain the same rule.
    """
    return (
        job.state == "queued"
        and job.task in claim.tasks
        and claim.slots.get(job.queue, 0) > 0
        and (job.expires_at is None or job.expires_at > now)
    )


# -- the plan of a replay ------------------------------------------------------------------------------


class ReplayPlan:
    """Counts what a replay would do, most recent death first, and changes nothing."""

    def __init__(self) -> None:
        self._held: set[tuple[str, str]] = set()
        """Task and key of the unfinished jobs, and of the dead letters that are replayed before."""
        self._replayed = 0
        self._conflicts = 0

    def unknown(self, rows: Iterable[tuple[int, str, str | None]]) -> list[tuple[str, str]]:
        """Return the tasks and keys of these rows that unfinished jobs may hold."""
        return sorted({(task, key) for _, task, key in rows if key is not None} - self._held)

    def add(
        self, rows: Iterable[tuple[int, str, str | None]], held: Collection[tuple[str, str]]
    ) -> None:
        """Count dead letters.

        Args:
            rows: number, task and key of each.
            held: those of ``unknown`` that unfinished jobs hold.
        """
        self._held.update(held)
        for _, task, key in rows:
            if key is not None and (task, key) in self._held:
                self._conflicts += 1
                continue
            self._replayed += 1
            if key is not None:
                # The dead letters that died before this one find its key taken.
                self._held.add((task, key))

    @property
    def counts(self) -> ReplayCounts:
        """The numbers of the dead letters that were added."""
        return ReplayCounts(self._replayed, self._conflicts)
