"""Jobs in every state, made through the store's public verbs alone."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from jobrunner.core.errors import StoreError
from jobrunner.core.ids import new_id
from jobrunner.core.model import (
    AttemptOutcome,
    BatchEnqueue,
    Cancelled,
    Claim,
    Claimed,
    Dead,
    DeadReason,
    Edge,
    Ended,
    Enqueue,
    Enqueued,
    JobRow,
    Memo,
    MemoKind,
    Outcome,
    Parked,
    Released,
    RetryAt,
    Snoozed,
    State,
    Succeeded,
    WorkerRow,
    chained,
)
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round, Written

NOW: Final = 1_772_600_767_000_000
"""The time of a test, by default (µs)."""
SECOND: Final = 1_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

WORKER: Final = 0x0123_4567_89AB_CDEF
OTHER_WORKER: Final = 0x0FED_CBA9_8765_4321
MANY_SLOTS: Final = 1_000


# -- values --------------------------------------------------------------------------------------


def new(
    task: str = "work",
    *,
    id: str | None = None,
    queue: str = "default",
    args: str = "{}",
    created_at: int = NOW,
    run_at: int | None = None,
    priority: int = 0,
    key: str | None = None,
    expires_at: int | None = None,
    max_attempts: int | None = None,
    timeout: int | None = None,
    tag: str | None = None,
    replay_of: str | None = None,
    trace: str | None = None,
    lane: str | None = None,
    ordered: bool = False,
) -> Enqueue:
    """Return a job that is not yet stored: of task ``work``, due at once, with a new id."""
    return Enqueue(
        new_id(created_at) if id is None else id,
        task,
        queue,
        args,
        created_at,
        created_at if run_at is None else run_at,
        priority,
        key,
        expires_at,
        max_attempts,
        timeout,
        tag,
        replay_of,
        trace=trace,
        lane=lane,
        ordered=True if ordered else None,
    )


def ended(
    outcome: AttemptOutcome, at: int = NOW, error: str | None = None, traceback: str | None = None
) -> Ended:
    """Return how an attempt ended; with an error if there is a message."""
    return Ended(outcome, at, None if error is None else "ValueError", error, traceback)


def succeeded(job: Claimed, result: str | None = None, *, at: int = NOW) -> Succeeded:
    """Return the outcome of an attempt that did its work."""
    return Succeeded(job, ended("succeeded", at), result)


def retry(job: Claimed, run_at: int = NOW, *, at: int = NOW) -> RetryAt:
    """Return the outcome of an attempt that failed and is to be made again."""
    return RetryAt(job, ended("failed", at, "no luck", "Traceback: no luck"), run_at)


def snoozed(job: Claimed, run_at: int = NOW, *, at: int = NOW) -> Snoozed:
    """Return the outcome of an attempt that asked for another time."""
    return Snoozed(job, ended("snoozed", at), run_at)


def parked(
    job: Claimed,
    *signals: str,
    until: int | None = None,
    memos: Sequence[tuple[MemoKind, str, str | None]] = (),
    children: BatchEnqueue | None = None,
    at: int = NOW,
) -> Parked:
    """Return the outcome of an attempt whose job waits for signals, for a time, or for its children."""
    waits = [Edge(job.id, f"!{name}", "end") for name in signals]
    if children is not None:
        assert not isinstance(children.batch, str)
        waits.append(Edge(job.id, children.batch.id, "end"))
    stored = [Memo(job, kind, name, value) for kind, name, value in memos]
    return Parked(job, ended("snoozed", at), until, waits, stored, children)


def released(job: Claimed, *, at: int = NOW) -> Released:
    """Return the outcome of an attempt that shutdown took away."""
    return Released(job, ended("released", at))


def cancelled(job: Claimed, *, at: int = NOW) -> Cancelled:
    """Return the outcome of an attempt that obeyed a cancel."""
    return Cancelled(job, ended("cancelled", at))


def dead(job: Claimed, reason: DeadReason = "exhausted", *, at: int = NOW) -> Dead:
    """Return the outcome of the last attempt."""
    return Dead(job, ended("failed", at, "no luck", "Traceback: no luck"), reason)


OUTCOMES: Final[Mapping[str, Callable[[Claimed], Outcome]]] = {
    "succeeded": succeeded,
    "retry": retry,
    "snoozed": snoozed,
    "parked": lambda job: parked(job, "approved"),
    "released": released,
    "cancelled": cancelled,
    "dead": dead,
}


def worker_row(
    worker: int = WORKER,
    *,
    tasks: Mapping[str, int | None] = MappingProxyType({"work": None}),
    queues: Mapping[str, int] | None = None,
    now: int = NOW,
) -> WorkerRow:
    """Return a worker that has not joined yet."""
    return WorkerRow(
        worker=worker,
        pid=4711,
        host="here",
        started_at=now,
        beat_at=now,
        doorbell=None,
        queues={"default": 20} if queues is None else queues,
        tasks=dict(tasks),
    )


def ignore() -> None:
    """Ignore a ring of the doorbell."""


def claim_of(
    *queues: str,
    worker: int = WORKER,
    slots: int = MANY_SLOTS,
    tasks: Iterable[str] = ("work",),
    suspects: bool = True,
) -> Claim:
    """Return a request for work from the queues (``default`` if none is named), ``slots`` of each."""
    return Claim(worker, dict.fromkeys(queues or ("default",), slots), frozenset(tasks), suspects)


# -- verbs ---------------------------------------------------------------------------------------


async def enqueue(store: Store, *jobs: Enqueue, now: int = NOW) -> list[Enqueued]:
    """Store jobs in one round; return what became of each."""
    written = await store.write(Round(now, enqueues=jobs))
    made = []
    for one in written.enqueued:
        if isinstance(one, StoreError):
            raise one
        made.append(one)
    return made


async def claim(
    store: Store,
    *queues: str,
    worker: int = WORKER,
    slots: int = MANY_SLOTS,
    tasks: Iterable[str] = ("work",),
    suspects: bool = True,
    now: int = NOW,
) -> Sequence[Claimed]:
    """Promote what is due and claim what there is; return the attempts that may be made."""
    wanted = claim_of(*queues, worker=worker, slots=slots, tasks=tasks, suspects=suspects)
    return (await store.write(Round(now, promote_due=True, claim=wanted))).claimed


async def claim_one(store: Store, job: Enqueue | None = None, *, worker: int = WORKER) -> Claimed:
    """Store a job and claim it; nothing else may be waiting."""
    job = new() if job is None else job
    (made,) = await enqueue(store, job)
    assert made.created
    (claimed,) = await claim(store, job.queue, tasks=[job.task], worker=worker)
    assert claimed.id == job.id
    return claimed


async def settle(store: Store, *outcomes: Outcome, now: int = NOW) -> Written:
    """Write how attempts ended."""
    return await store.write(Round(now, outcomes=outcomes))


async def quiet(store: Store, *, now: int = NOW) -> int:
    """Run rounds until nothing is left over of what earlier ones have begun; return their number."""
    for number in range(1, 1_000):
        if not (await store.write(Round(now, promote_due=True))).more_due:
            return number
    raise AssertionError("the rounds never end")


async def row_of(store: Store, id: str) -> JobRow:
    """Return the job or dead letter, which must be there."""
    row = await store.jobs.get(id)
    assert row is not None
    return row


async def make_dead(store: Store, job: Enqueue | None = None, *, at: int = NOW) -> JobRow:
    """Store a job and let it die; return the dead letter."""
    claimed = await claim_one(store, job)
    await settle(store, dead(claimed, at=at))
    return await row_of(store, claimed.id)


# -- a job in any state ------------------------------------------------------------------------

Start = Literal[
    "scheduled",
    "scheduled again",
    "queued",
    "queued again",
    "running",
    "running, asked to stop",
    "blocked",
    "parked",
    "succeeded",
    "cancelled",
    "expired",
    "dead",
]
"""A state that a job can be found in; some are reached in two ways that must not differ."""

STARTS: Final[Sequence[Start]] = (
    "scheduled",
    "scheduled again",
    "queued",
    "queued again",
    "running",
    "running, asked to stop",
    "blocked",
    "parked",
    "succeeded",
    "cancelled",
    "expired",
    "dead",
)

DUE: Final = NOW + MINUTE
"""The due time of the scheduled jobs."""
EXPIRY: Final = NOW + HOUR
"""The expiry time of jobs that can expire; ``expired`` jobs have an earlier one."""


class Specimen(NamedTuple):
    """A job in a state of the test's choosing."""

    row: JobRow
    claimed: Claimed
    """Its last attempt, or one that never was for a job that has had none."""


async def bring(store: Store, start: Start, *, worker: int = WORKER) -> Specimen:
    """Store a job and bring it into a state; its key is ``key`` and it expires at ``EXPIRY``."""
    job = new(
        key="key",
        tag="tag",
        expires_at=NOW + SECOND if start == "expired" else EXPIRY,
        run_at=DUE if start in {"scheduled", "cancelled"} else NOW,
    )
    if start == "blocked":
        # Behind one that no transition reaches.
        head = new("head", queue="head", run_at=NOW + 10 * DAY)
        await enqueue(store, *chained([head, job]))
    else:
        await enqueue(store, job)
    claimed: Claimed | None = None
    if start not in {"scheduled", "queued", "blocked", "cancelled", "expired"}:
        (claimed,) = await claim(store, worker=worker)
    match start:
        case "scheduled again":
            assert claimed
            await settle(store, retry(claimed, DUE))
        case "queued again":
            assert claimed
            await settle(store, released(claimed))
        case "parked":
            assert claimed
            await settle(store, parked(claimed, "approved"))
        case "running, asked to stop" | "cancelled":
            await store.jobs.cancel(job.id, now=NOW)
        case "succeeded":
            assert claimed
            await settle(store, succeeded(claimed, '"done"'))
        case "expired":
            await store.write(Round(NOW + SECOND, promote_due=True))
        case "dead":
            assert claimed
            await settle(store, dead(claimed))
        case _:
            pass
    row = await row_of(store, job.id)
    assert row.state == STATE_OF[start]
    return Specimen(row, claimed or _never_claimed(row, worker))


STATE_OF: Final[Mapping[Start, State]] = {
    "scheduled": "scheduled",
    "scheduled again": "scheduled",
    "queued": "queued",
    "queued again": "queued",
    "running": "running",
    "running, asked to stop": "running",
    "blocked": "blocked",
    "parked": "blocked",
    "succeeded": "succeeded",
    "cancelled": "cancelled",
    "expired": "expired",
    "dead": "dead",
}


def _never_claimed(row: JobRow, worker: int) -> Claimed:
    return Claimed(
        seq=row.seq,
        lease=0,
        worker=worker,
        id=row.id,
        task=row.task,
        queue=row.queue,
        args=row.args,
        attempt=1,
        started_at=NOW,
        first_started_at=NOW,
        created_at=row.created_at,
        run_at=row.run_at,
        priority=row.priority,
        max_attempts=row.max_attempts,
        timeout=row.timeout,
        suspect=False,
    )
