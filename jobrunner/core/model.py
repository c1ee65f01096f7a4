"""What a job is and what can happen to it: plain values, no I/O.

Times are microseconds since 1970 in UTC, durations microseconds, arguments and results JSON text.  The values that pass
through every round are named tuples: twenty thousand of them are made each second, at a fifth of a dataclass's price.

The life of a job (each arrow is one value below)::

    Enqueue ─▶ scheduled ─promote─▶ queued ─claim─▶ running ─▶ Succeeded ─▶ succeeded
                   ▲                  ▲                ├─────▶ RetryAt, Snoozed ─▶ scheduled
                   └──────────────────┴────────────────┼─────▶ Released ─▶ queued, its attempt given back
                                      replay           ├─────▶ Cancelled ─▶ cancelled
                                        ▲              └─────▶ Dead ─┐
                                        └────── dead letter ◀────────┘

In a chain, each job but the first is ``blocked`` until the one before it has succeeded or is dead; then it is scheduled
or queued as a new one would be.  One that is cancelled or expires takes along those that wait behind it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from jobrunner.core.wait_graph import WaitReport

State = Literal[
    "scheduled", "queued", "running", "blocked", "succeeded", "cancelled", "expired", "dead"
]
"""``dead`` is the state of a row of the dead-letter table; the others are states of a row of the jobs table."""

UNFINISHED: Final = frozenset({"scheduled", "queued", "running", "blocked"})
FINISHED: Final = frozenset({"succeeded", "cancelled", "expired", "dead"})

AttemptOutcome = Literal[
    "succeeded", "failed", "timed_out", "snoozed", "cancelled", "released", "lost"
]
DeadReason = Literal["exhausted", "buried", "not_retryable", "lost", "unknown_task", "invalid_args"]

LOST_LIMIT: Final = 5
"""A job without ``max_attempts`` whose process died this often under it is a dead letter."""


class Enqueue(NamedTuple):
    """A new job, not yet stored."""

    id: str
    task: str
    queue: str
    args: str
    created_at: int
    run_at: int
    priority: int = 0
    key: str | None = None
    expires_at: int | None = None
    max_attempts: int | None = None
    """Set by the caller for this job alone; None takes the task's at each failure."""
    timeout: int | None = None
    """Set by the caller for this job alone, in microseconds; 0 means none, None takes the task's."""
    tag: str | None = None
    replay_of: str | None = None
    schedule: str | None = None
    """The schedule that makes the job."""
    scheduled_for: int | None = None
    """The tick that it is made for, without jitter."""
    chain: str | None = None
    """The id of the first job of its chain. Those that follow one another and have the same are stored together or not
    at all, in this order."""
    after: str | None = None
    """The id of the job before it in the chain, for which it waits."""


def chained(jobs: Sequence[Enqueue]) -> Sequence[Enqueue]:
    """Return jobs, in one round, as a chain; one alone is none."""
    if len(jobs) < 2:  # noqa: PLR2004 - a chain has two ends
        return jobs
    chain = jobs[0].id
    followers = [job._replace(chain=chain, after=before.id) for before, job in pairwise(jobs)]
    return [jobs[0]._replace(chain=chain), *followers]


class Enqueued(NamedTuple):
    """What became of an ``Enqueue``: its own row, or the unfinished one that holds its key."""

    id: str
    created: bool
    task: str
    queue: str
    state: State
    created_at: int
    run_at: int
    attempt: int
    chain: str | None = None
    after: str | None = None


class Claimed(NamedTuple):
    """One attempt that this worker may make: the row as the claim left it."""

    seq: int
    lease: int
    worker: int
    id: str
    task: str
    queue: str
    args: str
    attempt: int
    """1 for the first run."""
    started_at: int
    first_started_at: int
    """When the first attempt of this life (a replay begins a new one) started."""
    created_at: int
    run_at: int
    priority: int
    max_attempts: int | None
    timeout: int | None
    suspect: bool
    """Its process died under it before: it runs with no other suspect beside it."""
    scheduled_for: int | None = None
    chain: str | None = None
    """Set if another job may wait for its end."""


class Raised(NamedTuple):
    """What ended an attempt and the context variables of that moment, for the log: never stored."""

    error: BaseException
    context: Context


class Ended(NamedTuple):
    """How an attempt ended, as it is kept in the attempts table."""

    outcome: AttemptOutcome
    at: int
    error_type: str | None = None
    error: str | None = None
    traceback: str | None = None
    raised: Raised | None = None


class Write(NamedTuple):
    """A function of ``job.write()``: called with the store's connection, in the transaction that settles the job."""

    function: Callable[..., object]
    args: tuple[object, ...]
    context: Context
    """In which it is called: a copy of the task's."""


class Succeeded(NamedTuple):
    """The job is done. ``result`` is JSON, or None for a result of None."""

    job: Claimed
    ended: Ended
    result: str | None
    result_omitted: str | None = None
    """Why the result could not be kept, if it could not."""
    writes: Sequence[Write] = ()
    """What the task has asked to be written along; if one fails, so does the attempt."""
    enqueues: Sequence[Enqueue] = ()
    """Jobs to be stored along."""


RESULT_PENDING: Final = (
    "the job's own transaction has settled it, and its task has not returned since: it still runs,"
    " or its process has ended"
)
"""``result_omitted`` of a job that its own transaction has settled, until the task has returned."""


class Returned(NamedTuple):
    """The task of a job that its own transaction has settled has returned; only the result is still to be written."""

    job: Claimed
    ended: Ended
    result: str | None
    result_omitted: str | None = None


class RetryAt(NamedTuple):
    """The attempt failed, the job runs again at ``run_at``."""

    job: Claimed
    ended: Ended
    run_at: int


class Snoozed(NamedTuple):
    """The job asked to run again at ``run_at``; the attempt is given back."""

    job: Claimed
    ended: Ended
    run_at: int


class Released(NamedTuple):
    """Shutdown took the attempt away; the job is queued again and the attempt given back."""

    job: Claimed
    ended: Ended


class Cancelled(NamedTuple):
    """The running job obeyed a cancel."""

    job: Claimed
    ended: Ended


class Dead(NamedTuple):
    """The job will not run again by itself: it moves whole to the dead letters."""

    job: Claimed
    ended: Ended
    reason: DeadReason


Outcome = Succeeded | Returned | RetryAt | Snoozed | Released | Cancelled | Dead
"""What the executor says of an attempt and the store writes down."""


class Claim(NamedTuple):
    """A worker's standing request for work."""

    worker: int
    slots: Mapping[str, int]
    """Free slots by queue name; queues without a free slot are left out."""
    tasks: frozenset[str]
    """Every name that this worker can run."""
    suspects: bool
    """Whether one suspect may be claimed: only while none is running here."""
    held: frozenset[tuple[int, int]] | None = None
    """Set where the answer to an earlier claim was lost: ``(seq, lease)`` of every attempt that the worker knows of."""


class JobRow(NamedTuple):
    """A job as it lies in the store; ``dead`` ones carry the four last fields."""

    seq: int
    id: str
    task: str
    queue: str
    state: State
    args: str
    """Empty in a list of jobs, which loads neither arguments nor results."""
    created_at: int
    run_at: int
    attempt: int
    priority: int
    key: str | None
    tag: str | None
    expires_at: int | None
    max_attempts: int | None
    timeout: int | None
    started_at: int | None
    first_started_at: int | None
    finished_at: int | None
    result: str | None
    result_omitted: str | None
    cancel_requested: bool
    crashes: int
    replays: int
    replay_of: str | None
    schedule: str | None = None
    scheduled_for: int | None = None
    chain: str | None = None
    after: str | None = None
    reason: DeadReason | None = None
    error_type: str | None = None
    error: str | None = None
    traceback: str | None = None
    replayed_as: str | None = None


class AttemptRow(NamedTuple):
    """One attempt of a job; the running one has no end yet."""

    attempt: int
    lease: int
    worker: int
    started_at: int
    finished_at: int | None
    outcome: AttemptOutcome | None
    error_type: str | None
    error: str | None
    traceback: str | None


class Filter(NamedTuple):
    """Which jobs or dead letters a list or a bulk verb means; None means any."""

    task: str | None = None
    queue: str | None = None
    state: State | None = None
    reason: DeadReason | None = None
    tag: str | None = None
    key: str | None = None
    since: int | None = None
    """Created (a job) or died (a dead letter) at this instant or later."""
    until: int | None = None
    """Created or died before this instant."""


class QueueStats(NamedTuple):
    """One queue as the store sees it, over all workers."""

    name: str
    paused: bool
    queued: int
    scheduled: int
    blocked: int
    running: int
    oldest_due_at: int | None
    """When the longest-waiting queued job became due."""
    complete: bool = True
    """False if counting stopped, so that there may be more than the counts say."""


class WorkerRow(NamedTuple):
    """A process that runs jobs on this store."""

    worker: int
    pid: int
    host: str
    started_at: int
    beat_at: int
    doorbell: str | None
    queues: Mapping[str, int]
    tasks: Mapping[str, int | None]
    """Every name that it can run, with the attempts of a job that has no ``max_attempts`` of its own; None for those
    that ``stop=`` alone decides of."""
    wait_report: WaitReport = WaitReport()
    """Its attempts that wait for jobs, for the other workers to see."""


# -- schedules -----------------------------------------------------------------------------------------

Misfire = Literal["latest", "all", "skip"]
Overlap = Literal["allow", "skip"]
ScheduleSource = Literal["code", "stored"]
TickOutcome = Literal["fired", "missed", "late", "overlap", "key"]
"""``fired`` made a job.  The others made none: a later tick stands for it (``missed``), its grace was over (``late``),
a job of the schedule was still unfinished (``overlap``), or an unfinished job held the schedule's key (``key``)."""


class Timing(NamedTuple):
    """When a schedule ticks; exactly one of ``cron``, ``every`` and ``run_at`` is set."""

    cron: str | None = None
    timezone: str | None = None
    every: int | None = None
    run_at: int | None = None
    start: int | None = None
    """No tick before it; the first one of an interval."""
    end: int | None = None
    """No tick after it."""


class Definition(NamedTuple):
    """What a schedule does, as it is declared or stored: two that are equal here are the same schedule."""

    task: str
    args: str
    timing: Timing
    options: str = "{}"
    """JSON: the options of its jobs that differ from the task's."""
    misfire: Misfire = "latest"
    grace: int | None = None
    """How late a tick may still make a job; None for however late."""
    cap: int = 1
    """How many ticks that were missed make a job each, at most."""
    overlap: Overlap = "allow"
    jitter: int = 0


class ScheduleRow(NamedTuple):
    """A schedule as it lies in the store."""

    id: str
    source: ScheduleSource
    definition: Definition
    revision: int
    """The application's, of which the declaration is; 0 for stored ones."""
    edition: int
    """One more with each change, but not with a tick."""
    paused: bool
    disabled: bool
    """Declared in code once, and no more."""
    created_at: int
    next: int | None
    """The next tick; None if there is none to come."""
    last: int | None = None
    """The last tick that was dealt with, whether it made a job or not."""
    last_fired: int | None = None
    last_job: str | None = None
    fired: int = 0
    skipped: int = 0
    """How many ticks made a job, and how many made none."""


class ScheduleChange(NamedTuple):
    """A row to write, in place of the one that was seen; None for one that is not there."""

    seen: ScheduleRow | None
    row: ScheduleRow | None


class Tick(NamedTuple):
    """What was decided about one tick, or about a run of ticks that make no job."""

    instant: int
    outcome: TickOutcome
    job: Enqueue | None = None
    until: int | None = None
    """The last of a run; None for one alone."""
    number: int = 1
    """How many."""


class Fire(NamedTuple):
    """The step of a schedule from the tick that was seen to the next one to come."""

    seen: ScheduleRow
    next: int | None
    ticks: Sequence[Tick]
    """Oldest first."""


class Fired(NamedTuple):
    """What became of a ``Fire``."""

    advanced: bool
    """False if the schedule was no more as it was seen: nothing was written."""
    jobs: Sequence[Enqueued] = ()
    skipped: Mapping[TickOutcome, int] = {}


class TickRow(NamedTuple):
    """One tick, or a run of them, as it is kept."""

    instant: int
    until: int
    number: int
    outcome: TickOutcome
    job: str | None
    at: int
    """When it was dealt with."""
