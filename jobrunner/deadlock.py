"""Finds attempts that wait for jobs which cannot start, because every slot is held by an attempt that waits so.

An attempt stands still if each job that it waits for does: one that runs here in an attempt that stands still, one that
is queued for slots which are all held by such attempts, and one of a chain behind such a job.  The largest set of
attempts of which this holds is a deadlock: none of them can end unless a time limit or a person ends it.

What could go on is never counted: a wait with a timeout, a job that expires, one that runs in another process, one
whose queue another live worker serves.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, TypeGuard

from jobrunner.attempt import Attempt, Wait
from jobrunner.errors import Deadlock
from jobrunner.model import FINISHED, JobRow, WorkerRow
from jobrunner.store.protocol import Store

STEPS_PER_LOOK: Final = 100
"""How many jobs of a chain are read at a time; the next look goes on from there."""


class Deadlocks:
    """What the attempts of one worker wait for.

    Args:
        slots: by queue.
        holders: returns the attempts that hold a slot.
        peers: returns the other workers that were last seen.
        refresh_peers: looks for them.
    """

    def __init__(
        self,
        store: Store,
        *,
        slots: Mapping[str, int],
        holders: Callable[[], Iterable[Attempt]],
        peers: Callable[[], Sequence[WorkerRow]],
        refresh_peers: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._slots = slots
        self._holders = holders
        self._peers = peers
        self._refresh_peers = refresh_peers
        self._lock = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._waiting: Counter[str] = Counter()
        """How many attempts wait, by queue; also such as have ended, and left a wait in a task of their own."""

    def concern(self, caller: object) -> TypeGuard[Attempt]:
        """Return whether the caller is an attempt of this worker that is under way."""
        return (
            isinstance(caller, Attempt)
            and not caller.ended
            and asyncio.get_running_loop() is self._loop
            and any(held is caller for held in self._holders())
        )

    @contextmanager
    def waiting(self, attempt: Attempt, id: str, *, timed: bool) -> Iterator[Wait]:
        """Count the attempt as one that waits for a job, inside the block.

        Args:
            timed: whether the wait ends by itself.
        """
        wait, queue = Wait(id, timed), attempt.job.queue
        if not attempt.waits:
            self._waiting[queue] += 1
        attempt.waits.append(wait)
        try:
            yield wait
        finally:
            attempt.waits.remove(wait)
            if not attempt.waits:
                self._waiting[queue] -= 1

    async def check(self, attempt: Attempt, wait: Wait, row: JobRow) -> None:
        """Make sure that a job which an attempt waits for can still come to its end.

        Args:
            row: the job as it has just been read.

        Raises:
            Deadlock: it cannot.
        """
        wait.front, wait.trail = await self._front(wait.trail, row)
        if not self._may_stand(wait):
            return
        # One at a time: when the first has been refused, the others may go on.
        async with self._lock:
            if not self._may_stand(wait):
                return
            standing = self._standing(self._served_elsewhere())
            if attempt not in standing:
                return
            # What was read a while ago may have moved meanwhile. Attempts that stand still hold their slots all along,
            # so that no job which was seen to wait can have started before the last one was seen.
            read = [one for held in standing for one in held.waits]
            for one in read:
                await self._read(one)
            await self._refresh_peers()
            standing = self._standing(self._served_elsewhere(), standing, read)
            if attempt in standing:
                raise Deadlock(_message(attempt, wait, self._slots))

    def problems(self) -> list[str]:
        """Return a sentence for each queue whose slots all wait for jobs that cannot start in this process."""
        elsewhere = self._served_elsewhere()
        standing = self._standing(frozenset(), timed=True)
        sentences = []
        for queue in sorted(self._full(standing, frozenset())):
            waits = [one for held in standing if held.job.queue == queue for one in held.waits]
            others = sorted({one.front.queue for one in waits if one.front is not None})
            helped = "; another worker may start them" if elsewhere.intersection(others) else ""
            number = self._slots[queue]
            held = (
                f"all {number} slots of queue {queue} wait"
                if number > 1
                else (f"the one slot of queue {queue} waits")
            )
            sentences.append(f"{held} for jobs of queue {', '.join(others)}{helped}")
        return sentences

    def _may_stand(self, wait: Wait) -> bool:
        """Return whether it is worth while to find out who stands still; at most times it is not.

        An attempt may wait for a thousand jobs, and each of these waits asks twice a second.
        """
        front = wait.front
        if front is None:
            return False
        if front.state == "running":
            return any(held.waits for held in self._holders() if held.job.id == front.id)
        slots = self._slots.get(front.queue)
        return (
            slots is not None
            and self._waiting[front.queue] >= slots
            and front.queue not in self._served_elsewhere()
        )

    # -- who stands still ------------------------------------------------------------------

    def _standing(
        self,
        elsewhere: Collection[str],
        among: Collection[Attempt] | None = None,
        read: Collection[Wait] | None = None,
        *,
        timed: bool = False,
    ) -> set[Attempt]:
        """Return the attempts that stand still.

        Args:
            elsewhere: queues whose jobs another worker can start.
            among: only these, of those that hold a slot now.
            read: only those that wait for nothing else.
            timed: count also what ends by itself in time.
        """
        standing = {
            held
            for held in self._holders()
            if held.waits
            and (among is None or held in among)
            and (read is None or all(one in read for one in held.waits))
            and (timed or not any(one.timed for one in held.waits))
            # One that is being ended will let go of its slot; a thread will not.
            and (held.stopped_at is None or held.thread is not None)
        }
        while True:
            ids = {held.job.id for held in standing}
            full = self._full(standing, elsewhere)
            going = {
                held
                for held in standing
                if not all(_stands(one.front, ids, full, timed) for one in held.waits)
            }
            if not going:
                return standing
            standing -= going

    def _full(self, standing: Iterable[Attempt], elsewhere: Collection[str]) -> set[str]:
        """Return the queues in which nothing can start while these attempts hold their slots."""
        held = Counter(one.job.queue for one in standing)
        return {
            queue
            for queue, slots in self._slots.items()
            if held[queue] >= slots and queue not in elsewhere
        }

    def _served_elsewhere(self) -> frozenset[str]:
        return frozenset[str]().union(*(peer.queues for peer in self._peers()))

    # -- what must move first -----------------------------------------------------------------

    async def _read(self, wait: Wait) -> None:
        row = await self._store.get(wait.id)
        wait.front, wait.trail = (None, []) if row is None else await self._front(wait.trail, row)

    async def _front(self, trail: Sequence[str], row: JobRow) -> tuple[JobRow | None, list[str]]:
        """Return the job that must move first so that ``row`` can, and the way there; None if one just has.

        Args:
            trail: the way that was found before: ids, from the job itself to the one that all of them wait for.
        """
        if row.state != "blocked":
            return (None if row.state in FINISHED else row), []
        way = list(trail) or [row.id]
        for _ in range(STEPS_PER_LOOK):
            front = row if way[-1] == row.id else await self._store.get(way[-1])
            if front is not None and front.state == "blocked" and front.after is not None:
                way.append(front.after)
            elif front is not None and front.state not in FINISHED:
                return front, way
            else:
                del way[-1]
                if len(way) == 1:
                    break
        return None, way


def _stands(front: JobRow | None, ids: Collection[str], full: Collection[str], timed: bool) -> bool:
    """Return whether a job cannot move while some attempts stand still.

    Args:
        ids: the jobs of these attempts.
        full: the queues whose slots they all hold.
    """
    if front is None:
        return False
    if front.state == "running":
        return front.id in ids
    return front.queue in full and (timed or front.expires_at is None)


def _message(attempt: Attempt, wait: Wait, slots: Mapping[str, int]) -> str:
    front, job = wait.front, attempt.job
    assert front is not None  # noqa: S101 - it stands still
    own = front.id == job.id
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
    return (
        f"{job.task} {job.id} waits for job {wait.id}, which {why}. Let one start when the other has ended, `await"
        " jobs.enqueue_chain([...])`; or give what is waited for a queue of its own, `@jobs.task(queue=...)`; or do not"
        " wait for it"
    )
