"""Defines jobs, their transitions and schedules as plain values, without I/O.

Times are microseconds since 1970 in UTC, durations microseconds, arguments and results JSON text.  The values of a
round are named tuples: a worker makes twenty thousand of them a second, and they cost a fifth of a dataclass.

The life of a job (each arrow is one value below)::

    Enqueue ─▶ scheduled ─promote─▶ queued ─claim─▶ running ─▶ Succeeded ─▶ succeeded
                   ▲                  ▲                ├─────▶ RetryAt, Snoozed ─▶ scheduled
                   └──────────────────┴────────────────┼─────▶ Released ─▶ queued, its attempt given back
                                      replay           ├─────▶ Cancelled ─▶ cancelled
                                        ▲              └─────▶ Dead ─┐
                                        └────── dead letter ◀────────┘

In a chain, each job but the first is ``blocked`` until the one before it has succeeded or is dead; then it is scheduled
or queued like a new job.  If a job is cancelled or expires, the jobs that wait behind it are cancelled.
"""

from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from jobrunner.core.wait_graph import WaitReport

State = Literal[
    "scheduled", "queued", "running", "blocked", "succeeded", "cancelled", "expired", "dead"
]
"""The state of a job.  ``dead`` rows are in the dead-letter table, all others in the jobs table."""

UnfinishedState = Literal["scheduled", "queued", "running", "blocked"]

UNFINISHED: Final = frozenset({"scheduled", "queued", "running", "blocked"})
FINISHED: Final = frozenset({"succeeded", "cancelled", "expired", "dead"})

AttemptOutcome = Literal[
    "succeeded", "failed", "timed_out", "snoozed", "cancelled", "released", "lost"
]
DeadReason = Literal["exhausted", "buried", "not_retryable", "lost", "unknown_task", "invalid_args"]

LOST_LIMIT: Final = 5
"""Process deaths after which a job without ``max_attempts`` becomes a dead letter."""


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
    """The limit of this job alone; None uses the task's limit at each failure."""
    timeout: int | None = None
    """The timeout of this job alone, in microseconds; 0 means no timeout, None uses the task's."""
    tag: str | None = None
    replay_of: str | None = None
    schedule: str | None = None
    """The id of the schedule that makes the job."""
    scheduled_for: int | None = None
    """The tick that the job is made for, without jitter."""
    chain: str | None = None
    """The id of the first job of its chain.

    Consecutive values with the same ``chain`` are stored together or not at all, in this order.
    """
    after: str | None = None
    """The id of the job before it in the chain, for which it waits."""


def chained(jobs: Sequence[Enqueue]) -> Sequence[Enqueue]:
    """Return the jobs of one round linked as a chain; a single job is returned unchanged."""
    if len(jobs) < 2:  # noqa: PLR2004 - a chain has two ends
        return jobs
    chain = jobs[0].id
    followers = [job._replace(chain=chain, after=before.id) for before, job in pairwise(jobs)]
    return [jobs[0]._replace(chain=chain), *followers]


class Enqueued(NamedTuple):
    """The answer to an ``Enqueue``: the new job, or the unfinished one with its key."""

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
    """One attempt that this worker has claimed: the job's row after the claim."""

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
    """The start of the first attempt since the job was enqueued or last replayed."""
    created_at: int
    run_at: int
    priority: int
    max_attempts: int | None
    timeout: int | None
    suspect: bool
    """True if the job may have killed its process in earlier attempts: a worker runs one suspect at a time."""
    scheduled_for: int | None = None
    chain: str | None = None
    """Set if another job may wait for this one."""


class Raised(NamedTuple):
    """The error that ended an attempt, with its context variables; logged, never stored."""

    error: BaseException
    context: Context


class Ended(NamedTuple):
    """The end of an attempt, as the attempts table keeps it."""

    outcome: AttemptOutcome
    at: int
    error_type: str | None = None
    error: str | None = None
    traceback: str | None = None
    raised: Raised | None = None


class Write(NamedTuple):
    """A function passed to ``job.write()``.

    The store calls it with its connection, in the transaction that settles the job.
    """

    function: Callable[..., object]
    args: tuple[object, ...]
    context: Context
    """The context in which it is called: a copy of the task's."""


class Succeeded(NamedTuple):
    """The job has succeeded. ``result`` is JSON text, or None for a result of None."""

    job: Claimed
    ended: Ended
    result: str | None
    result_omitted: str | None = None
    """The reason why the result is not stored; None if it is."""
    writes: Sequence[Write] = ()
    """Functions to call in the same transaction; if one of them fails, the attempt fails."""
    enqueues: Sequence[Enqueue] = ()
    """Jobs to store in the same transaction."""


RESULT_PENDING: Final = (
    "the job's own transaction has settled it, and its task has not returned since: it still runs,"
    " or its process has ended"
)
"""The ``result_omitted`` of a job between the commit of ``job.transaction()`` and the return of its task."""


class Returned(NamedTuple):
    """The task returned after its own transaction had settled the job.

    Only the result is still to be written.
    """

    job: Claimed
    ended: Ended
    result: str | None
    result_omitted: str | None = None


class RetryAt(NamedTuple):
    """The attempt failed; the job runs again at ``run_at``."""

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
    """The attempt ended because its job was cancelled."""

    job: Claimed
    ended: Ended


class Dead(NamedTuple):
    """The job will not run again by itself: it moves to the dead letters."""

    job: Claimed
    ended: Ended
    reason: DeadReason


Outcome = Succeeded | Returned | RetryAt | Snoozed | Released | Cancelled | Dead
"""The outcome of an attempt: the executor returns it and the store writes it."""


class Claim(NamedTuple):
    """A worker's standing request for work."""

    worker: int
    slots: Mapping[str, int]
    """Free slots by queue name; queues without a free slot are left out."""
    tasks: frozenset[str]
    """Every name that this worker can run."""
    suspects: bool
    """True if one suspect may be claimed: no suspect is running on this worker."""
    held: frozenset[tuple[int, int]] | None = None
    """The ``(seq, lease)`` of every attempt that the worker knows; set if the answer to an earlier claim was lost."""


class JobRow(NamedTuple):
    """A job as stored; the last six fields are set for dead letters only."""

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
    fingerprint: str | None = None
    """None in a dead letter of an older version until its fingerprint has been filled in."""


class AttemptRow(NamedTuple):
    """One attempt of a job as stored; while it runs, the fields about its end are None."""

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
    """Selects the jobs or dead letters of a list or a bulk call; None matches any."""

    task: str | None = None
    queue: str | None = None
    state: State | None = None
    reason: DeadReason | None = None
    tag: str | None = None
    key: str | None = None
    since: int | None = None
    """The earliest time at which a job was created or a dead letter died."""
    until: int | None = None
    """The time before which a job was created or a dead letter died."""
    retrying: Literal[True] | None = None
    """Only jobs that wait for another attempt: they are scheduled and have run before."""
    group: str | None = None
    """The fingerprint of a dead letter."""


class QueueStats(NamedTuple):
    """The stored state of one queue, summed over all workers."""

    name: str
    paused: bool
    queued: int
    scheduled: int
    blocked: int
    running: int
    oldest_due_at: int | None
    """The time at which the queued job that has waited longest became due."""
    complete: bool = True
    """False if counting stopped early: then the counts are lower bounds."""


class WorkerRow(NamedTuple):
    """A process that runs jobs of this store, as stored."""

    worker: int
    pid: int
    host: str
    started_at: int
    beat_at: int
    doorbell: str | None
    queues: Mapping[str, int]
    tasks: Mapping[str, int | None]
    """Every task name that it can run, with the task's ``max_attempts``; None if ``stop=`` alone decides."""
    revision: int | None = None
    """The revision of its code; None if its version of the library does not store it."""
    wait_report: WaitReport = WaitReport()
    """Its attempts that wait for jobs; the other workers read them."""


# -- schedules -----------------------------------------------------------------------------------------

Misfire = Literal["latest", "all", "skip"]
Overlap = Literal["allow", "skip"]
ScheduleSource = Literal["code", "stored"]
TickOutcome = Literal["fired", "missed", "late", "overlap", "key"]
"""The result of a tick.

``fired`` made a job.  The others made none: a later tick was used instead (``missed``), its grace was over (``late``),
a job of the schedule was still unfinished (``overlap``), or an unfinished job had the schedule's key (``key``).
"""


class Timing(NamedTuple):
    """The timing of a schedule: exactly one of ``cron``, ``every`` and ``run_at``."""

    cron: str | None = None
    timezone: str | None = None
    every: int | None = None
    run_at: int | None = None
    start: int | None = None
    """The earliest time of a tick, and the first tick of an interval."""
    end: int | None = None
    """The latest time of a tick."""


class Definition(NamedTuple):
    """The task, timing and policies of a schedule, as declared or stored.

    A declared schedule equals a stored one if their definitions are equal.
    """

    task: str
    args: str
    timing: Timing
    options: str = "{}"
    """The options of its jobs that differ from the task's, as JSON."""
    misfire: Misfire = "latest"
    grace: int | None = None
    """The delay up to which a late tick still makes a job; None for no limit."""
    cap: int = 1
    """The most missed ticks that make a job each."""
    overlap: Overlap = "allow"
    jitter: int = 0


class ScheduleRow(NamedTuple):
    """A schedule as stored."""

    id: str
    source: ScheduleSource
    definition: Definition
    revision: int
    """The application's revision that declared it; 0 if it was made at run time."""
    edition: int
    """Grows by one with each change, but not with a tick."""
    paused: bool
    disabled: bool
    """True if the code declared it earlier and does not any longer."""
    created_at: int
    next: int | None
    """The next tick; None if no tick is left."""
    last: int | None = None
    """The last tick that was processed, with or without a job."""
    last_fired: int | None = None
    last_job: str | None = None
    fired: int = 0
    """The number of ticks that made a job."""
    skipped: int = 0
    """The number of ticks that made no job."""


class ScheduleChange(NamedTuple):
    """Replaces the schedule row ``seen`` by ``row``.

    ``seen`` is None for a new schedule, ``row`` is None to remove it.
    """

    seen: ScheduleRow | None
    row: ScheduleRow | None


class Tick(NamedTuple):
    """The decision about one tick, or about consecutive ticks without a job."""

    instant: int
    outcome: TickOutcome
    job: Enqueue | None = None
    until: int | None = None
    """The last of several consecutive ticks; None for a single tick."""
    number: int = 1
    """The number of ticks."""


class Fire(NamedTuple):
    """Advances a schedule to its next tick, with the jobs of due ticks."""

    seen: ScheduleRow
    next: int | None
    ticks: Sequence[Tick]
    """The decided ticks, oldest first."""


class Fired(NamedTuple):
    """The answer to a ``Fire``."""

    advanced: bool
    """False if the schedule had changed since it was read: then nothing was written."""
    jobs: Sequence[Enqueued] = ()
    skipped: Mapping[TickOutcome, int] = {}


class TickRow(NamedTuple):
    """One tick, or several consecutive ones without a job, as stored."""

    instant: int
    until: int
    number: int
    outcome: TickOutcome
    job: str | None
    at: int
    """The time at which it was processed."""
