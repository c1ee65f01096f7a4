"""Defines jobs and their transitions as plain values, without I/O.

Times are microseconds since 1970 in UTC, durations microseconds, arguments and results JSON text.  The values of a
round are named tuples: a worker makes twenty thousand of them a second, and they cost a fifth of a dataclass.

The life of a job (each arrow is one value below)::

    Enqueue ─▶ scheduled ─promote─▶ queued ─claim─▶ running ─▶ Succeeded ─▶ succeeded
                   ▲                  ▲                ├─────▶ RetryAt, Snoozed ─▶ scheduled
                   │                  │                ├─────▶ Parked ─▶ blocked or scheduled, its attempt given back
                   └──────────────────┴────────────────┼─────▶ Released ─▶ queued, its attempt given back
                                      replay           ├─────▶ Cancelled ─▶ cancelled
                                        ▲              └─────▶ Dead ─┐
                                        └────── dead letter ◀────────┘

In a chain, each job but the first is ``blocked`` until the one before it has succeeded or is dead; then it is scheduled
or queued like a new job.  If a job is cancelled or expires, the jobs that wait behind it are cancelled; so they are if
it dies in a chain with ``on_dead``.
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

OnDead = Literal["continue", "cancel"]
"""The effect of a dead letter on the jobs behind it in its chain."""

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
    trace: str | None = None
    """The trace context of the caller, as text; every attempt and a replay keep it."""
    lane: str | None = None
    """The lane in which the job's limits count it, such as ``sync[42]``."""
    ordered: Literal[True] | None = None
    """True if it waits for all older jobs of its lane."""
    batch: int | None = None
    """The store's number of its batch; a store sets it in the members of a ``BatchEnqueue``."""
    handed: str | None = None
    """JSON: by parameter, the id of the job whose result it takes, or a list of ids."""
    on_dead: Literal["cancel"] | None = None
    """``cancel``: it is cancelled if the job before it in its chain dies; None: it then starts."""


def chained(
    jobs: Sequence[Enqueue], *, on_dead: Literal["cancel"] | None = None
) -> Sequence[Enqueue]:
    """Return the jobs of one round linked as a chain; a single job is returned unchanged."""
    if len(jobs) < 2:  # noqa: PLR2004 - a chain has two ends
        return jobs
    chain = jobs[0].id
    followers = [
        job._replace(chain=chain, after=before.id, on_dead=on_dead)
        for before, job in pairwise(jobs)
    ]
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
    trace: str | None = None
    """The trace context of the code that enqueued the job."""
    lane: str | None = None
    batch: int | None = None
    """The store's number of its batch; None if it is in none."""
    handed: str | None = None
    """See ``Enqueue.handed``."""


class Progressed(NamedTuple):
    """The progress that an attempt reports."""

    job: Claimed
    value: str
    """JSON text; replaces the attempt's previous one."""


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


Need = Literal["success", "end", "failure"]
"""The end that a job waits for: with success, in whatever way, or without success."""
MemoKind = Literal["step", "signal", "sleep", "batch", "cursor"]


class Edge(NamedTuple):
    """A job that waits for something."""

    job: str
    """The id of the job that waits."""
    needs: str
    """The id of a job or a batch, or ``!`` and the name of a signal."""
    need: Need


class NewBatch(NamedTuple):
    """A batch, not yet stored."""

    id: str
    name: str | None
    created_at: int
    parent: str | None = None
    """The id of the job that makes it and waits for it."""


class BatchEnqueue(NamedTuple):
    """The jobs and edges of one call, stored whole or not at all."""

    batch: NewBatch | str
    """A new one, or the id of an unfinished one to which members are added."""
    members: Sequence[Enqueue]
    callbacks: Sequence[Enqueue] = ()
    """Jobs that wait for the end of the batch and are no members."""
    edges: Sequence[Edge] = ()
    """Of the members and of the callbacks; a job with an edge is blocked."""


class Memo(NamedTuple):
    """A memo of a running attempt, not yet stored."""

    job: Claimed
    kind: MemoKind
    name: str
    value: str | None
    """JSON text."""


class Parked(NamedTuple):
    """The attempt ended because the job waits: the attempt is given back and leaves no row."""

    job: Claimed
    ended: Ended
    until: int | None
    """The time at which it runs again at the latest."""
    waits: Sequence[Edge]
    """It runs again once all of these are met."""
    memos: Sequence[Memo] = ()
    children: BatchEnqueue | None = None
    """A batch to store in the same transaction."""


Outcome = Succeeded | Returned | RetryAt | Snoozed | Parked | Released | Cancelled | Dead
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
    trace: str | None = None
    lane: str | None = None
    progress: str | None = None
    """The last report of its last attempt, as JSON text; None if there is none."""
    batch: str | None = None
    """The id of its batch."""
    handed: str | None = None
    """See ``Enqueue.handed``; None in a list of jobs."""
    retrying: bool = False
    """True if it waits for another attempt; not if it is parked."""
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
    batch: str | None = None
    """The id of a batch: only its members."""


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
    paused_at: int | None = None


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
