"""Finds and breaks deadlocks among attempts that wait for jobs or batches.

An attempt cannot go on while none of the jobs that it waits for can.  That is so for a job which runs in such an
attempt, a queued job if such attempts hold all slots of its queue, and a job behind such a job in a chain.  The largest
set of such attempts (``deadlocked``) is a deadlock: none of them can end unless a time limit or a person ends it.  A
batch cannot end before each of its members has, so it is enough that one of them cannot go on.

Within one process a deadlock is found at once, and the attempt whose wait closes the circle is refused (``check``).
Among several processes, each worker reports in its row the attempts that cannot go on if those of the others cannot.
One worker refuses one attempt (``detect``) if

- every attempt of the set has been reported twice more since the set was first seen, so that all of them waited at the
  same instant, and
- no job that they wait for has started since.  This is checked in the transaction that removes the refused attempt from
  the report: if two workers decide at the same time, the second one finds the attempt removed.

An attempt that might go on is never counted: one whose wait has a timeout, one that waits for a job that expires, or
one that waits for a slot of a worker that reports nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, TypeGuard

from jobrunner.core.errors import Deadlock
from jobrunner.core.model import JobRow, WorkerRow
from jobrunner.core.wait_graph import (
    Slots,
    Snapshot,
    WaitingAttempt,
    WaitReport,
    deadlocked,
    full_queues,
    victim_of,
)
from jobrunner.core.workflows import BatchRow
from jobrunner.store.protocol import Store
from jobrunner.worker import fronts
from jobrunner.worker.attempt import Attempt, Wait

REPORTS_AGAIN: Final = 2
"""The number of further equal reports per worker: the first one may have begun before the deadlock was seen."""


class Deadlocks:
    """Tracks the waits of one worker's attempts, and refuses one to break a deadlock.

    Args:
        store: The store.
        number: Returns the worker's number.
        slots: The worker's slots by queue.
        holders: Returns the attempts that hold a slot.
        peers: Returns the other workers, as last read.
        refresh_peers: Reads the other workers again.
    """

    def __init__(
        self,
        store: Store,
        number: Callable[[], int],
        *,
        slots: Mapping[str, int],
        holders: Callable[[], Iterable[Attempt]],
        peers: Callable[[], Sequence[WorkerRow]],
        refresh_peers: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._number = number
        self._slots = slots
        self._holders = holders
        self._peers = peers
        self._refresh_peers = refresh_peers
        self._lock = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._waiting: Counter[str] = Counter()
        """The number of waiting attempts by queue, including ended ones that left a wait in a subtask."""
        self._report = WaitReport()
        """The last stored report."""
        self._since: dict[Attempt, tuple[tuple[Wait, ...], int]] = {}
        """The waits of each attempt in the last report, and the number of the report in which they began."""
        self._seen: Mapping[int, int] = {}
        """The report numbers by worker at the time when the deadlock among all workers was first seen."""
        self._circle: Collection[Attempt] = ()
        """This worker's attempts in the deadlock among all workers that the last check found."""

    def concern(self, caller: object) -> TypeGuard[Attempt]:
        """Return whether the caller is a running attempt of this worker."""
        return (
            isinstance(caller, Attempt)
            and not caller.ended
            and asyncio.get_running_loop() is self._loop
            and any(other is caller for other in self._holders())
        )

    @contextmanager
    def waiting(
        self, attempt: Attempt, id: str, *, timed: bool, is_batch: bool = False
    ) -> Iterator[Wait]:
        """Count the attempt as waiting for a job or batch inside the block.

        Args:
            attempt: The waiting attempt.
            id: The id of the job or batch that it waits for.
            timed: True if the wait has a time limit.
            is_batch: True if it waits for a batch.
        """
        wait, queue = Wait(id, timed, is_batch=is_batch), attempt.job.queue
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
        """Check that the job for which an attempt waits can still end.

        Args:
            attempt: The waiting attempt.
            wait: Its wait.
            row: The job, just read.

        Raises:
            Deadlock: The wait closes a deadlock, or was chosen to break one.
        """
        if wait.refused is not None:
            raise Deadlock(wait.refused)
        wait.seq = row.seq
        wait.front, wait.trail = await fronts.of_job(self._store, wait.trail, row)
        await self._check(attempt, wait)

    async def check_batch(self, attempt: Attempt, wait: Wait, row: BatchRow) -> None:
        """Check that the batch for which an attempt waits can still end.

        Args:
            attempt: The waiting attempt.
            wait: Its wait.
            row: The batch, just read.

        Raises:
            Deadlock: The wait closes a deadlock, or was chosen to break one.
        """
        if wait.refused is not None:
            raise Deadlock(wait.refused)
        wait.front = (
            await fronts.of_batch(self._store, attempt, row)
            if attempt.job.batch == row.seq or self._others_wait(attempt)
            else None
        )
        await self._check(attempt, wait)

    def _others_wait(self, attempt: Attempt) -> bool:
        """Return whether others may keep the members of a batch from ending.

        Saves time: the members are not read twice a second.
        """
        return (
            any(self._waiting[queue] >= slots for queue, slots in self._slots.items())
            or any(other.waits for other in self._holders() if other is not attempt)
            or any(peer.wait_report.attempts for peer in self._peers())
        )

    async def _check(self, attempt: Attempt, wait: Wait) -> None:
        if not self._may_be_deadlocked(wait):
            return
        # One check at a time: after the first refusal the other attempts may go on.
        async with self._lock:
            if not self._may_be_deadlocked(wait):
                return
            found = self._deadlocked_here(self._peers())
            if attempt not in found:
                return
            # Jobs that were read earlier may have moved, so read all of them again. Deadlocked attempts hold their
            # slots throughout, so no job that was seen waiting can have started before the last one was read.
            read = [one for other in found for one in other.waits]
            for other in found:
                for one in other.waits:
                    await self._read(other, one)
            await self._refresh_peers()
            found = self._deadlocked_here(self._peers(), found, read)
            if attempt in found:
                raise Deadlock(fronts.message(attempt, wait, self._slots))

    def problems(self) -> list[str]:
        """Return a sentence for each queue whose slots are all in a deadlock."""
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
        """Return whether to search for a deadlock in this process; usually False.

        Saves time: an attempt may wait for a thousand jobs, and each wait is checked twice a second.
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
        """Return whether to read the reports of the other workers; usually False."""
        peers = self._peers()
        return bool(peers) and (
            any(self._waiting[queue] >= slots for queue, slots in self._slots.items())
            or any(peer.wait_report.attempts for peer in peers)
        )

    async def detect(self) -> None:
        """Report this worker's attempts that may be deadlocked; refuse one if it is the victim.

        Nothing is reported unless all slots of a queue wait, on this worker or on another one.
        """
        if not self._report.attempts and not self._may_be_deadlocked_among_all():
            self._circle = ()
            return
        rows = {row.worker: row for row in await self._store.workers.list()}
        own = rows.pop(self._number(), None)
        if own is None:
            return
        # A report whose write failed may have been stored all the same.
        if own.wait_report.number > self._report.number:
            self._report = own.wait_report
        mine = self._deadlocked_if_others_are(rows.values())
        slots = {self._number(): self._slots, **{id: row.queues for id, row in rows.items()}}
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
        numbers = {self._number(): own.wait_report.number} | {
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
        """Return this worker's attempts that are deadlocked if the slots of the others are."""
        elsewhere = frozenset[str]().union(*(peer.queues for peer in peers)) - self._slots.keys()
        here = {attempt.job.seq for attempt in self._holders()}
        found: dict[WaitingAttempt, Attempt] = {}
        if_others_do: dict[WaitingAttempt, WaitingAttempt] = {}
        for attempt in self._holders() if peers else ():
            waiting = self._waiting_attempt(attempt)
            # A stopped or ended attempt will free its slot.
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
        stand = deadlocked(if_others_do, {self._number(): self._slots})
        return {waiting: found[waiting] for one, waiting in if_others_do.items() if one in stand}

    def _is_worth_reporting(
        self, mine: Iterable[WaitingAttempt], peers: Iterable[WorkerRow]
    ) -> bool:
        """Return whether all slots of a queue wait, on this worker or on another."""
        return bool(full_queues(mine, {self._number(): self._slots})) or any(
            peer.wait_report.attempts
            and full_queues(peer.wait_report.attempts, {peer.worker: peer.queues})
            for peer in peers
        )

    def _waited_all_along(
        self, found: Iterable[WaitingAttempt], numbers: Mapping[int, int]
    ) -> bool:
        """Return whether all of these attempts waited at the instant when ``_seen`` was read.

        A worker begins a report only after the previous one is stored. So the second report after the one in ``_seen``
        began after that instant, and a wait in both has lasted from before the instant until after it.
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
        """Let an attempt's wait fail at its next check, if the snapshot still holds.

        Returns:
            Whether the snapshot still holds.
        """
        attempt = mine[refused]
        wait = attempt.waits[0]
        total = Counter[str]()
        for queues in slots.values():
            total.update(queues)
        why = fronts.message(attempt, wait, total)
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
        if not await self._store.workers.report_waits(self._number(), report, snapshot=snapshot):
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
        """Return the attempts that are deadlocked even without the reports of other workers.

        Args:
            peers: The other workers, which may start the jobs that attempts here wait for.
            among: Consider only these attempts; None considers all that hold a slot.
            read: Consider only attempts all of whose waits are among these; None considers all.
            timed: Count waits with a time limit too.
        """
        attempts = {
            waiting: attempt
            for attempt in self._holders()
            if (among is None or attempt in among)
            and (read is None or all(one in read for one in attempt.waits))
            # A stopped or ended attempt will free its slot, but not while its thread runs.
            and (
                (attempt.stopped_at is None and not attempt.ended)
                or (attempt.thread is not None and not attempt.thread.done())
            )
            and (waiting := self._waiting_attempt(attempt, timed=timed)) is not None
        }
        slots = {self._number(): self._slots, **{peer.worker: peer.queues for peer in peers}}
        return {attempts[waiting] for waiting in deadlocked(attempts, slots)}

    def _waiting_attempt(self, attempt: Attempt, *, timed: bool = False) -> WaitingAttempt | None:
        """Return an attempt with its waits; None if it does not wait or may go on by itself.

        Args:
            attempt: The attempt.
            timed: Count waits with a time limit too.
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
            *(self._number(), job.seq, job.lease, job.queue),
            *(tuple(sorted(jobs)), tuple(sorted(queues)), tuple(sorted(running))),
        )

    def _served_elsewhere(self) -> frozenset[str]:
        return frozenset[str]().union(*(peer.queues for peer in self._peers()))

    # -- the job that must run first ----------------------------------------------------------

    async def _read(self, attempt: Attempt, wait: Wait) -> None:
        if wait.is_batch:
            batch = await self._store.workflows.get(wait.id)
            wait.front = (
                None if batch is None else await fronts.of_batch(self._store, attempt, batch)
            )
            return
        row = await self._store.jobs.get(wait.id)
        wait.front, wait.trail = (
            (None, []) if row is None else await fronts.of_job(self._store, wait.trail, row)
        )
