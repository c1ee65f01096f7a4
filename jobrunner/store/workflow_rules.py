"""Decides about batches and edges from plain values; a store's statements apply it.

Each rule uses the present alone: an edge follows from what has become of the thing that it needs, a batch from its
members.  So it does not matter in which order, or how often, a store applies them.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, get_args

from jobrunner.core.clock import MAX_US
from jobrunner.core.errors import InvalidOptions, JobFinished, KeyTaken
from jobrunner.core.model import UNFINISHED, BatchEnqueue, Enqueued, JobRow, Need, State
from jobrunner.core.workflows import BatchRow, BatchState, EdgeState

End = Literal["succeeded", "failed", "unfinished"]
"""The end of a job: ``failed`` if it is dead, cancelled, expired or deleted."""

VOID: Final = -1
MET: Final = 0
OPEN: Final = 1
BROKEN: Final = 2
"""The states of an edge, as numbers: those above 0 hold their job back."""
EDGE_STATES: Final[Mapping[int, EdgeState]] = {
    VOID: "void",
    MET: "met",
    OPEN: "open",
    BROKEN: "broken",
}


# -- edges ---------------------------------------------------------------------------------------------


def end_of(state: str | None) -> End:
    """Return what has become of a job, by its state; None if no job has its id any longer."""
    if state == "succeeded":
        return "succeeded"
    return "unfinished" if state in UNFINISHED else "failed"


def edge_to_job(need: Need, end: End) -> int:
    """Return the state of an edge to a job."""
    if end == "unfinished":
        return OPEN
    if need == "end" or (need == "success") == (end == "succeeded"):
        return MET
    return BROKEN


def out_of_line(end: End) -> str:
    """Return the SQL condition on edges that ``edge_to_job`` contradicts.

    An edge that is met stays so: the job behind it may have started.
    """
    found = [
        (was, need)
        for was in (OPEN, BROKEN)
        for need in get_args(Need)
        if edge_to_job(need, end) != was
    ]
    # The states first and by themselves, which the index of edges has.
    states = ", ".join(sorted({str(was) for was, _ in found}))
    tests = " OR ".join(f"(state = {was} AND need = '{need}')" for was, need in found)
    return f"state IN ({states}) AND ({tests})"


def edge_to_batch(need: Need, state: BatchState, *, may_succeed: bool) -> int:
    """Return the state of an edge to a batch.

    ``may_succeed`` is True if the batch has failed by dead letters alone, so that a replay can make it succeed.
    """
    if state == "running":
        return OPEN
    if need == "end" or (need == "success") == (state == "succeeded"):
        return MET
    return OPEN if need == "success" and may_succeed else BROKEN


# -- batches -------------------------------------------------------------------------------------------


class Members(NamedTuple):
    """The members of a batch of which none is unfinished."""

    dead: bool
    """True if one is a dead letter that was not replayed, or was deleted."""
    stopped: bool
    """True if one was cancelled or has expired."""


def batch_state(members: Members, *, cancel_requested: bool) -> BatchState:
    """Return the state in which a batch ends."""
    if cancel_requested:
        return "cancelled"
    return "failed" if members.dead or members.stopped else "succeeded"


def batch_row(columns: Sequence[Any]) -> BatchRow:
    """Return a batch from its columns and the numbers of its members."""
    *batch, stored, unfinished, stopped, dead, running = columns
    seq, id, name, state, created_at, ended_at, cancelled_at, parent = batch
    return BatchRow(
        *(seq, id, name, state, created_at, ended_at, cancelled_at, parent),
        total=stored + dead,
        succeeded=stored - unfinished - stopped,
        dead=dead,
        cancelled=stopped,
        running=running,
        waiting=unfinished - running,
    )


def require_stored(
    request: BatchEnqueue, members: Sequence[Enqueued], callbacks: Sequence[Enqueued]
) -> None:
    """Check that each job was stored on which others depend.

    Raises:
        KeyTaken: One was not, since another job holds its key.
    """
    needed = {id for edge in request.edges for id in (edge.job, edge.needs)}
    pairs = zip((*request.members, *request.callbacks), (*members, *callbacks), strict=True)
    for job, made in pairs:
        if made.created:
            continue
        if job.id in needed or any(job.id in (one.handed or "") for one in request.callbacks):
            raise KeyTaken(
                f"key {job.key!r} of task {job.task} belongs to job {made.id}, which is not finished, and other jobs of"
                " the batch wait for the one with this key; wait for it or cancel it, then enqueue the batch again"
            )


def is_past_retention(
    ended_at: int, tasks: Collection[str], *, before: int, by_task: Mapping[str, int]
) -> bool:
    """Return whether the longest retention of a batch's tasks has passed since its end."""
    return all(ended_at < by_task.get(task, before) for task in tasks or [""])


# -- parked jobs ---------------------------------------------------------------------------------------


class Placed(NamedTuple):
    """The place in which a parked job waits."""

    state: State
    run_at: int


def place(until: int | None, is_met: Collection[bool], *, ordered: bool, now: int) -> Placed:
    """Decide where a job waits that parks.

    Args:
        until: the time at which it runs again at the latest; None if there is none.
        is_met: whether each thing that it waits for is there already.
        ordered: True if it holds back the later jobs of its lane.
        now: the current time.
    """
    if (until is not None and until <= now) or (is_met and all(is_met)):
        return Placed("queued", now)
    if until is not None:
        return Placed("scheduled", until)
    # In an ordered lane it stays ahead of the later jobs, as one that waits for a retry: blocked ones do not count.
    return Placed("scheduled", MAX_US) if ordered else Placed("blocked", now)


def wait_until(job: JobRow) -> int | None:
    """Return the time until which a parked job waits at most; None if there is none."""
    return job.run_at if job.state == "scheduled" and job.run_at < MAX_US else None


def may_be_parked(job: JobRow) -> bool:
    """Return whether a job may be parked: it waits, and has run before."""
    return job.state in ("blocked", "scheduled") and job.first_started_at is not None


def takes_no_signal(id: str, state: str) -> JobFinished:
    """Return the error of a signal to a job that has ended."""
    if state == "dead":
        return JobFinished(
            f"job {id} is a dead letter and takes no signal; replay it first:"
            f" `await jobs.dead_letters.replay({id!r})`"
        )
    return JobFinished(f"job {id} is {state} and takes no signal")


def require_memos(id: str, known: Collection[str], forget: Sequence[str]) -> None:
    """Check that a job has memos of all names to forget.

    Raises:
        InvalidOptions: It has none of such a name.
    """
    missing = sorted(set(forget) - set(known))
    if missing:
        has = f"it has {', '.join(sorted(known))}" if known else "it has none"
        raise InvalidOptions(
            f"forget=: job {id} has no step {', '.join(map(repr, missing))}; {has}"
        )
