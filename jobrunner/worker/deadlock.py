"""Finds and breaks deadlocks: attempts that wait for jobs whose slots are all held by attempts that wait so.

An attempt stands still if each job that it waits for does: one that runs in an attempt that stands still, one that is
queued for slots which are all held by such attempts, and one of a chain behind such a job.  The largest set of attempts
of which this holds (``deadlocked``) is a deadlock: none of them can end unless a time limit or a person ends it.

Within one process that is seen at once, and the attempt whose wait closes the circle is refused (``check``).  Among
several, each reports to the others in its row its attempts that stand still if theirs do, and one of them refuses one
attempt (``detect``) when

- all of the set have been reported twice more since it was first seen, so that they waited all at one instant, and
- nothing that they wait for has started since, which is checked in the transaction that takes the refused attempt out
  of the report: of two workers that decide at once, the second finds it gone.

An attempt that could go on is never counted: a wait with a timeout, a job that expires, a slot whose worker reports
nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, TypeGuard

from jobrunner.core.errors import Deadlock
from jobrunner.core.model import FINISHED, JobRow, WorkerRow
from jobrunner.core.wait_graph import (
    Slots,
    Snapshot,
    WaitingAttempt,
    WaitReport,
    deadlocked,
    full_queues,
    victim_of,
)
from jobrunner.store.protocol import Store
from jobrunner.worker.attempt import Attempt, Wait

REPORTS_AGAIN: Final = 2
"""So often every worker must report the same once more: its first report may be from before the deadlock was seen."""

STEPS_PER_READ: Final = 100
"""How many jobs of a chain are read at a time; the next read goes on from there."""


class Deadlocks:
    """Keeps the waits of one worker's attempts, and refuses one that closes a deadlock.

    Args:
        worker: its id.
        slots: by queue.
        holders: returns the attempts that hold a slot.
        peers: returns the other workers that were last seen.
        refresh_peers: reads them anew.
    """

    def __init__(
        self,
        store: Store,
        worker: int,
        *,
        slots: Mapping[str, int],
        holders: Callable[[], Iterable[Attempt]],
        peers: Callable[[], Sequence[WorkerRow]],
        refresh_peers: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._worker = worker
        self._slots = slots
        self._holders = holders
        self._peers = peers
        self._refresh_peers = refresh_peers
        self._lock = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._waiting: Counter[str] = Counter()
        """How many attempts wait, by queue; also such as have ended, and left a wait in a task of their own."""
        self._report = WaitReport()
        """The last one that was stored."""
        self._since: dict[Attempt, tuple[tuple[Wait, ...], int]] = {}
        """The waits of the attempts in the last report, and the report since which they have lasted."""
        self._seen: Mapping[int, int] = {}
        """The reports, by worker, when the deadlock among all workers was first seen."""
        self._circle: Collection[Attempt] = ()
        """Those of this worker that were part of a deadlock among all workers when it last looked."""

    def concern(self, caller: object) -> TypeGuard[Attempt]:
        """Return whether the caller is an attempt of this worker that is under way."""
        return (
            isinstance(caller, Attempt)
            and not caller.ended
            and asyncio.get_running_loop() is self._loop
            and any(other is caller for other in self._holders())
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
        if wait.refused is not None:
            raise Deadlock(wait.refused)
        wait.seq = row.seq
        wait.front, wait.trail = await self._front(wait.trail, row)
        if not self._may_be_deadlocked(wait):
            return
        # One at a time: when the first has been refused, the others may go on.
        async with self._lock:
            if not self._may_be_deadlocked(wait):
                return
            found = self._deadlocked_here(self._peers())
            if attempt not in found:
                return
            # What was read a while ago may have moved meanwhile. Attempts that stand still hold their slots all along,
            # so that no job which was seen to wait can have started before the last one was seen.
            read = [one for other in found for one in other.waits]
            for one in read:
                await self._read(one)
            await self._refresh_peers()
            found = self._deadlocked_here(self._peers(), found, read)
            if attempt in found:
                raise Deadlock(_message(attempt, wait, self._slots))

    def problems(self) -> list[str]:
        """Return a sentence for each queue whose slots all wait for jobs that cannot start in this process."""
        elsewhere = self._served_elsewhere()
        circle = {other for other in self._circle if self._waiting_attempt(other) is not None}
        found = self._deadlocked_here((), timed=True) | circle
        count = Counter(other.job.queue for other in found)
        sentences = []
        for queue in sorted(queue for queue, slots in self._slots.items() if count[queue] >= slots):
            here = {other for other in found if other.job.queue == queue}
            fronts = (one.front for other in here for one in other.waits)
            others = sorted({front.queue for front in fronts if front is not None})
            if here & circle:
                helped = "; the other workers that could start them wait as well"
            else:
                helped = "; another worker may start them" if elsewhere.intersection(others) else ""
            number = self._slots[queue]
            held = (
                f"all {number} slots of queue {queue} wait"
                if number > 1
                else (f"the one slot of queue {queue} waits")
            )
            sentences.append(f"{held} for jobs of queue {', '.join(others)}{helped}")
        return sentences

    def _may_be_deadlocked(self, wait: Wait) -> bool:
        """Return whether a search for a deadlock here is worth its time; mostly it is not.

        An attempt may wait for a thousand jobs, and each of these waits asks twice a second.
        """
        front = wait.front
        if front is None:
            return False
        if front.state == "running":
            return any(other.waits for other in self._holders() if other.job.id == front.id)
        slots = self._slots.get(front.queue)
        return (
            slots is not None
            and self._waiting[front.queue] >= slots
            and front.queue not in self._served_elsewhere()
        )

    # -- among all workers -----------------------------------------------------------------

    def _may_be_deadlocked_among_all(self) -> bool:
        """Return whether the reports of the others are worth reading; mostly they are not."""
        peers = self._peers()
        return bool(peers) and (
            any(self._waiting[queue] >= slots for queue, slots in self._slots.items())
            or any(peer.wait_report.attempts for peer in peers)
        )

    async def detect(self) -> None:
        """Report this worker's attempts that may be deadlocked; refuse one if it is the victim.

        Nothing is reported unless all slots of a queue wait, here or with another worker.
        """
        if not self._report.attempts and not self._may_be_deadlocked_among_all():
            self._circle = ()
            return
        rows = {row.worker: row for row in await self._store.workers.list()}
        own = rows.pop(self._worker, None)
        if own is None:
            return
        # A write that failed may be there all the same.
        if own.wait_report.number > self._report.number:
            self._report = own.wait_report
        mine = self._deadlocked_if_others_are(rows.values())
        slots = {self._worker: self._slots, **{id: row.queues for id, row in rows.items()}}
        found = deadlocked(
            [*mine, *(one for row in rows.values() for one in row.wait_report.attempts)], slots
        )
        self._circle = {attempt for waiting, attempt in mine.items() if waiting in found}
        if not self._circle:
            if not self._is_worth_reporting(mine, rows.values()):
                mine = {}
            if [*mine] != [*own.wait_report.attempts]:
                await self._store_report([*mine], mine)
            return
        numbers = {self._worker: own.wait_report.number} | {
            id: row.wait_report.number for id, row in rows.items()
        }
        if self._waited_all_along(found, numbers):
            snapshot = Snapshot(frozenset(slots), found)
            if (one := victim_of(found)) in mine and await self._refuse(one, mine, snapshot, slots):
                return
        await self._store_report([*mine], mine)

    def _deadlocked_if_others_are(
        self, peers: Collection[WorkerRow]
    ) -> dict[WaitingAttempt, Attempt]:
        """Return the attempts of this worker that stand still if all slots of the others do."""
        elsewhere = frozenset[str]().union(*(peer.queues for peer in peers)) - self._slots.keys()
        here = {attempt.job.seq for attempt in self._holders()}
        found: dict[WaitingAttempt, Attempt] = {}
        if_others_do: dict[WaitingAttempt, WaitingAttempt] = {}
        for attempt in self._holders() if peers else ():
            waiting = self._waiting_attempt(attempt)
            # One that was stopped, or has ended, will free its slot.
            if waiting is None or attempt.stopped is not None or attempt.ended:
                continue
            waits, since = self._since.get(attempt, ((), 0))
            if waits != tuple(attempt.waits):
                since = self._report.number + 1
            waiting = waiting._replace(since=since)
            found[waiting] = attempt
            queues = tuple(queue for queue in waiting.queues if queue not in elsewhere)
            running = tuple(seq for seq in waiting.running if seq in here)
            if_others_do[waiting._replace(queues=queues, running=running)] = waiting
        stand = deadlocked(if_others_do, {self._worker: self._slots})
        return {waiting: found[waiting] for one, waiting in if_others_do.items() if one in stand}

    def _is_worth_reporting(
        self, mine: Iterable[WaitingAttempt], peers: Iterable[WorkerRow]
    ) -> bool:
        """Return whether all slots of a queue wait, with this worker or with another one."""
        return bool(full_queues(mine, {self._worker: self._slots})) or any(
            peer.wait_report.attempts
            and full_queues(peer.wait_report.attempts, {peer.worker: peer.queues})
            for peer in peers
        )

    def _waited_all_along(
        self, found: Iterable[WaitingAttempt], numbers: Mapping[int, int]
    ) -> bool:
        """Return whether all of these attempts waited at one instant: when ``_seen`` was read.

        A worker begins a report when the one before has been stored. So the second report after those that were seen
        began afterwards, and each of these waits has lasted from before that instant until after it.
        """
        seen = self._seen
        if any(one.since > seen.get(one.worker, 0) for one in found):
            self._seen = numbers
            return False
        return all(numbers[one.worker] >= seen[one.worker] + REPORTS_AGAIN for one in found)

    async def _refuse(
        self,
        refused: WaitingAttempt,
        mine: Mapping[WaitingAttempt, Attempt],
        snapshot: Snapshot,
        slots: Slots,
    ) -> bool:
        """Refuse a wait of an attempt at its next check, if the snapshot still holds; return whether it does."""
        attempt = mine[refused]
        wait = attempt.waits[0]
        total = Counter[str]()
        for queues in slots.values():
            total.update(queues)
        why = _message(attempt, wait, total)
        done = await self._store_report([one for one in mine if one is not refused], mine, snapshot)
        if done:
            wait.refused = why
        return done

    async def _store_report(
        self,
        reported: Sequence[WaitingAttempt],
        mine: Mapping[WaitingAttempt, Attempt],
        snapshot: Snapshot | None = None,
    ) -> bool:
        waits = {one: tuple(mine[one].waits) for one in reported}
        report = WaitReport(self._report.number + 1, reported)
        if not await self._store.workers.report_waits(self._worker, report, snapshot=snapshot):
            return False
        self._report = report
        self._since = {mine[one]: (waits[one], one.since) for one in reported}
        return True

    # -- in this process -----------------------------------------------------------------------

    def _deadlocked_here(
        self,
        peers: Iterable[WorkerRow],
        among: Collection[Attempt] | None = None,
        read: Collection[Wait] | None = None,
        *,
        timed: bool = False,
    ) -> set[Attempt]:
        """Return the attempts that stand still, whatever other workers report.

        Args:
            peers: the workers that may start what waits here.
            among: only these, of those that hold a slot now.
            read: only those that wait for nothing else.
            timed: count also waits that end by themselves in time.
        """
        attempts = {
            waiting: attempt
            for attempt in self._holders()
            if (among is None or attempt in among)
            and (read is None or all(one in read for one in attempt.waits))
            # One that was stopped, or has ended, will free its slot; a thread will not.
            and (
                (attempt.stopped_at is None and not attempt.ended)
                or (attempt.thread is not None and not attempt.thread.done())
            )
            and (waiting := self._waiting_attempt(attempt, timed=timed)) is not None
        }
        slots = {self._worker: self._slots, **{peer.worker: peer.queues for peer in peers}}
        return {attempts[waiting] for waiting in deadlocked(attempts, slots)}

    def _waiting_attempt(self, attempt: Attempt, *, timed: bool = False) -> WaitingAttempt | None:
        """Return an attempt with the jobs it waits for; None if it does not wait, or may go on by itself.

        Args:
            timed: count also waits that end by themselves in time.
        """
        job = attempt.job
        jobs, queues, running = set[int](), set[str](), set[int]()
        for wait in attempt.waits:
            front = wait.front
            if front is None or wait.refused is not None:
                return None
            if not timed and (wait.timed or (front.state != "running" and front.expires_at)):
                return None
            if front.state == "running":
                running.add(front.seq)
            else:
                queues.add(front.queue)
                jobs.add(front.seq)
            if wait.trail:
                jobs.add(wait.seq)
        if not attempt.waits:
            return None
        return WaitingAttempt(
            *(self._worker, job.seq, job.lease, job.queue),
            *(tuple(sorted(jobs)), tuple(sorted(queues)), tuple(sorted(running))),
        )

    def _served_elsewhere(self) -> frozenset[str]:
        return frozenset[str]().union(*(peer.queues for peer in self._peers()))

    # -- what must move first -----------------------------------------------------------------

    async def _read(self, wait: Wait) -> None:
        row = await self._store.jobs.get(wait.id)
        wait.front, wait.trail = (None, []) if row is None else await self._front(wait.trail, row)

    async def _front(self, trail: Sequence[str], row: JobRow) -> tuple[JobRow | None, list[str]]:
        """Return the job that must move first so that ``row`` can, and the way there; None if one just has.

        Args:
            trail: the way that was found before: ids, from the job itself to the one that all of them wait for.
        """
        if row.state != "blocked":
            return (None if row.state in FINISHED else row), []
        way = list(trail) or [row.id]
        for _ in range(STEPS_PER_READ):
            front = row if way[-1] == row.id else await self._store.jobs.get(way[-1])
            if front is not None and front.state == "blocked" and front.after is not None:
                way.append(front.after)
            elif front is not None and front.state not in FINISHED:
                return front, way
            else:
                del way[-1]
                if len(way) == 1:
                    break
        return None, way


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
