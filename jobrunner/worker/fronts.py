"""Finds the job that must run before an awaited job or batch can end."""

from collections.abc import Mapping, Sequence
from typing import Final

from jobrunner.core.model import FINISHED, Filter, JobRow, State
from jobrunner.core.workflows import BatchRow
from jobrunner.store.protocol import Store
from jobrunner.worker.attempt import Attempt, Wait

STEPS_PER_READ: Final = 100
"""The most jobs of a chain read by one check; the next check goes on from there."""

_STATES: Final[Sequence[State]] = ("queued", "scheduled", "running", "blocked")
"""The states in which members of a batch are searched: those that wait for a slot first."""


async def of_job(
    store: Store, trail: Sequence[str], row: JobRow
) -> tuple[JobRow | None, list[str]]:
    """Return the job that must run before ``row`` can, and the trail to it.

    The job is None if the state has just changed.

    Args:
        store: The store.
        trail: The trail found by the last check: the ids from the job itself back to the one that must run first.
        row: The job, just read.
    """
    if row.state != "blocked":
        return (None if row.state in FINISHED else row), []
    way = list(trail) or [row.id]
    for _ in range(STEPS_PER_READ):
        front = row if way[-1] == row.id else await store.jobs.get(way[-1])
        if front is not None and front.state == "blocked" and front.after is not None:
            way.append(front.after)
        elif front is not None and front.state not in FINISHED:
            return front, way
        else:
            del way[-1]
            if len(way) == 1:
                break
    return None, way


async def of_batch(store: Store, attempt: Attempt, row: BatchRow) -> JobRow | None:
    """Return a member that must end before its batch can.

    Members that can go on end sooner or later, and then one that cannot is left.

    Args:
        store: The store.
        attempt: The attempt that waits for the batch; if it is a member, the batch cannot end before it.
        row: The batch, just read.

    Returns:
        None if the batch has ended, or is cancelled: its waiting members need no slot to end.
    """
    if row.ended_at is not None or row.cancelled_at is not None:
        return None
    if attempt.job.batch == row.seq:
        return await store.jobs.get(attempt.job.id)
    for state in _STATES:
        page = await store.jobs.list(Filter(batch=row.id, state=state), before=None, limit=1)
        if page.rows:
            return page.rows[0]
    return None


def message(attempt: Attempt, wait: Wait, slots: Mapping[str, int]) -> str:
    """Say why a wait could never end, and what to write instead.

    Args:
        attempt: The waiting attempt.
        wait: Its wait.
        slots: The number of slots by queue.
    """
    front, job = wait.front, attempt.job
    assert front is not None  # noqa: S101 - it stands still
    own = front.id == job.id
    if own and wait.is_batch:
        return (
            f"{job.task} {job.id} waits for the end of batch {wait.id}, of which it is a member, and would for ever: do"
            " not wait for it; enqueue_batch(..., then=...) starts a job at its end"
        )
    if own and wait.id == job.id:
        return (
            f"{job.task} {job.id} waits for its own result, and would for ever: do not wait for it"
        )
    if own:
        return (
            f"{job.task} {job.id} waits for job {wait.id}, which starts only when this one has ended (enqueue_chain):"
            " do not wait for it, or enqueue it by itself"
        )
    if front.state == "running":
        why = f"waits for others in turn, and in the end for this one ({front.task})"
    else:
        number = slots[front.queue]
        held = (
            f"all {number} slots of queue {front.queue!r} are"
            if number > 1
            else (f"the one slot of queue {front.queue!r} is")
        )
        why = f"cannot start: {held} held by attempts that wait for jobs of it"
    if wait.is_batch:
        return (
            f"{job.task} {job.id} waits for batch {wait.id}, whose member {front.id} {why}. Wait without a slot,"
            " `await job.run(name, [...])`; or let a job start at its end, `enqueue_batch(..., then=...)`; or give its"
            " tasks another queue, `@jobs.task(queue=...)`"
        )
    return (
        f"{job.task} {job.id} waits for job {wait.id}, which {why}. Let one start when the other has ended, `await"
        " jobs.enqueue_chain([...])`; or give that job's task another queue, `@jobs.task(queue=...)`; or do not"
        " wait for it"
    )
