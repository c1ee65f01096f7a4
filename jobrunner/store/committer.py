"""Commits enqueues, outcomes, ticks and claims in shared rounds (group commit).

While one round is being committed, enqueues and outcomes gather for the next, so that a thousand callers share a few
commits; each caller is answered after the commit that holds its rows.  The committer's own task runs the rounds, so
cancelling a waiting caller does not undo its write.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, Literal

from jobrunner.core.clock import now_s, now_us
from jobrunner.core.errors import (
    InvalidOptions,
    StoreError,
    StoreFailed,
    StoreFull,
    StoreOutcomeUnknown,
    StoreUnavailable,
    WrongThread,
)
from jobrunner.core.logs import log_of
from jobrunner.core.model import BatchEnqueue, Enqueue, Enqueued, Memo, Outcome
from jobrunner.core.schedule import Fire, Fired
from jobrunner.core.workflows import BatchEnqueued
from jobrunner.store.busy import Busy
from jobrunner.store.gathered import Fires, Gathered, Kept, Unit, answer_all
from jobrunner.store.participant import RoundParticipant
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round, Written

logger = log_of("jobrunner")

ROWS_PER_ROUND: Final = 2_000
BYTES_PER_ROUND: Final = 4 * 1024 * 1024
"""Both limits bound the time that one transaction blocks other writers."""
ROWS_PER_CALL: Final = 10_000
"""Maximum number of jobs in one ``enqueue_many``: it is one transaction, which blocks other writers."""

Several = Literal["enqueue_many", "enqueue_chain", "enqueue_batch"]
_INSTEAD: Final[Mapping[Several, str]] = {
    "enqueue_many": f"Call it once per slice: `for i in range(0, len(calls), {ROWS_PER_CALL:_}):"
    f" await queue.enqueue_many(calls[i : i + {ROWS_PER_CALL:_}])`",
    "enqueue_chain": "Let the last job of a chain enqueue the next chain",
    "enqueue_batch": "Enqueue one call that adds the others in parts: `job.batch.add(*calls)`",
}

_ARGS: Final = attrgetter("args")

SLOW_S: Final = 0.25
"""A longer round has probably waited for somebody else's transaction."""
FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0


class Committer:
    """Runs the rounds of one open store, one at a time."""

    def __init__(self, store: Store, participant: RoundParticipant | None = None) -> None:
        self._store = store
        self.participant = participant
        self._units: deque[Unit] = deque()
        self._outcomes: list[Outcome] = []
        self._busy = Busy(self._put_back)
        self._fires: list[Fires] = []
        self._memos: list[Kept] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._dropped: set[int] = set()
        """The numbers of workers whose outcomes and memos are not written any more."""
        self._closing = False
        self._broken = False
        self.error: StoreError | None = None
        """The error of the last round; None if it was written."""
        self.on_fatal: Callable[[StoreError], None] | None = None
        self.written_at_s: float | None = None
        """Time of the last written round, by the loop's clock."""

    def start(self) -> None:
        """Start to run rounds on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run(), name="jobrunner-committer")

    async def close(self) -> None:
        """Write everything submitted and stop; callers whose jobs cannot be written get the error."""
        self._closing = True
        self.wake()
        if self._task is not None:
            await asyncio.wait([self._task])
        self._refuse(self.error or StoreUnavailable("the runner is closed"))

    # -- the calls of others ----------------------------------------------------

    def submit(self, jobs: Sequence[Enqueue]) -> asyncio.Future[Sequence[Enqueued]]:
        """Store jobs in one transaction; the future has their results, in order, once they are durable.

        A caller waits for one call at a time, so serving calls in order of arrival is fair to callers.

        Raises:
            InvalidOptions: The call has more than ``ROWS_PER_CALL`` jobs.
            WrongThread: The call runs on another loop, where nothing would set its result.
            StoreError: The jobs were not stored; after ``StoreOutcomeUnknown`` they may have been.
        """
        if len(jobs) > ROWS_PER_CALL:
            raise too_many(len(jobs))
        answer: asyncio.Future[Sequence[Enqueued]] = self._new_answer("enqueue", "task")
        if jobs:
            size = sum(map(len, map(_ARGS, jobs)))
            self._add(Unit(jobs, len(jobs), size, answer, now_s()))
        else:
            answer.set_result([])
        return answer

    async def submit_batch(self, batch: BatchEnqueue) -> BatchEnqueued:
        """Store a batch, or members of one, in one transaction; return the results once they are durable.

        Raises:
            BatchNotFound: No batch has the id.
            BatchEnded: The batch to which members are added has ended, or was cancelled.
            KeyTaken: An unfinished job has the key of a job that others wait for, or of a callback.
            WrongThread: The call runs on another loop, where nothing would set its result.
            StoreError: The jobs were not stored; after ``StoreOutcomeUnknown`` they may have been.
        """
        answer: asyncio.Future[BatchEnqueued] = self._new_answer("enqueue_batch", "[...]")
        size = sum(len(job.args) for job in (*batch.members, *batch.callbacks))
        rows = len(batch.members) + len(batch.callbacks) + len(batch.edges)
        self._add(Unit((), rows, size, answer, now_s(), batch))
        return await answer

    def _add(self, unit: Unit) -> None:
        self._units.append(unit)
        if len(self._units) == 1:
            self.wake()  # who came before has done it for all that wait

    def _new_answer(self, verb: str, args: str) -> asyncio.Future[Any]:
        """Return the future of a call that the calling loop may make now."""
        if self._closing or self._broken:
            raise self.error or StoreUnavailable("the runner is closed")
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            raise WrongThread(
                "the runner is open on another event loop than this one; in a thread write"
                f" `jobs.sync.{verb}({args}, ...)`, and here `await asyncio.to_thread(jobs.sync.{verb}, {args}, ...)`"
            )
        return loop.create_future()

    def settle(self, outcome: Outcome) -> None:
        """Submit an outcome for the next round; failed rounds are tried again until it is written."""
        self._outcomes.append(outcome)
        self.wake()

    def _put_back(self, outcomes: Sequence[Outcome], units: Sequence[Unit]) -> None:
        self._outcomes[:0] = outcomes
        self._units.extendleft(reversed(units))
        self.wake()

    async def keep(self, memo: Memo) -> bool:
        """Store a memo of a running attempt; return once it is durable.

        Failed rounds are tried again until it is written, since what it remembers has happened. A cancelled caller does
        not undo it.

        Returns:
            False if it was not stored, since the attempt is no longer this worker's or such a memo is there.

        Raises:
            StoreError: The committer is closed, or the store needs an operator.
        """
        if self._closing or self._broken:
            raise self.error or StoreUnavailable("the runner is closed")
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._memos.append(Kept(memo, answer))
        self.wake()
        return await answer

    def keep_with_outcome(self, memos: Sequence[Memo]) -> None:
        """Submit memos of an attempt whose outcome is submitted next."""
        self._memos += [Kept(memo, None) for memo in memos]

    async def fire(self, fires: Sequence[Fire]) -> Sequence[Fired | StoreError]:
        """Carry out steps of schedules in one round; see ``Store.write``.

        Raises:
            StoreError: None of the steps was stored; after ``StoreOutcomeUnknown`` they may have been.
        """
        if self._closing or self._broken:
            raise self.error or StoreUnavailable("the runner is closed")
        step = Fires(fires, asyncio.get_running_loop().create_future())
        self._fires.append(step)
        self.wake()
        return await step.answer

    def drop(self, worker: int) -> None:
        """Write no outcome or memo of a worker's number: others may have taken its jobs over."""
        self._dropped.add(worker)

    def wake(self) -> None:
        """Request a round as soon as possible."""
        self._idle.clear()
        self._wake.set()

    async def flushed(self) -> None:
        """Wait until everything submitted so far is written or refused."""
        await self._idle.wait()

    # -- the rounds -----------------------------------------------------------------

    def fail(self, error: StoreError) -> None:
        """Refuse everything from now on: the store needs an operator."""
        self.error = error
        self._broken = True
        self._refuse(error)
        self.wake()

    async def _run(self) -> None:
        try:
            await self._run_rounds()
        except Exception as error:
            logger.critical("the committer has failed; please report this", exc_info=True)
            stopped = StoreFailed(f"the committer has failed: {error!r}")
            self.fail(stopped)
            if self.on_fatal is not None:
                self.on_fatal(stopped)
        finally:
            self._busy.stop()
            self._idle.set()

    async def _run_rounds(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            await self._wake.wait()
            # One turn of the loop, so that attempts that end together are settled together.
            await asyncio.sleep(0)
            if self._broken:
                break
            self._wake.clear()
            failed = await self._write(self._gather())
            if failed is None:
                pause_s = FIRST_PAUSE_S
            elif self._closing or isinstance(failed, StoreFailed):
                break
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
                self._wake.set()
            if self._units or self._outcomes or self._fires or self._memos:
                self._wake.set()
            if not self._wake.is_set() and not self._busy:
                self._idle.set()
                if self._closing:
                    await self._write_last_statistics()
                    if not self._wake.is_set():
                        break

    def _gather(self) -> Gathered:
        """Take the waiting work that fits into the next round."""
        if self._dropped:
            self._drop()
        # All of them: behind its outcome an attempt could not store one. There are at most as many as attempts run.
        memos, self._memos = self._memos, []
        outcomes = self._outcomes[:ROWS_PER_ROUND]
        del self._outcomes[: len(outcomes)]
        rows = len(outcomes) + len(memos)
        size = 0
        units: list[Unit] = []
        while self._units:
            unit = self._units[0]
            if unit.answer.cancelled():
                # The caller was cancelled before its jobs reached the store: the only case where nothing is stored.
                self._units.popleft()
                continue
            full = rows + unit.rows > ROWS_PER_ROUND or size + unit.size > BYTES_PER_ROUND
            if full and units:
                break
            units.append(self._units.popleft())
            rows += unit.rows
            size += unit.size
        fires, self._fires = self._fires, []
        participant = self.participant
        claim = None if participant is None else participant.next_claim()
        if claim is not None and claim.held is not None:
            # These attempts have ended, but the store still has them as running.
            left = (*outcomes, *self._outcomes, *self._busy.outcomes)
            ended = ((one.job.seq, one.job.lease) for one in left)
            claim = claim._replace(held=claim.held.union(ended))
        promote_due = participant is not None and participant.take_promote_due()
        request = Round(
            now=now_us(),
            progress=() if participant is None else participant.take_progress(),
            memos=[kept.memo for kept in memos],
            outcomes=outcomes,
            promote_due=promote_due,
            fires=[fire for step in fires for fire in step.fires],
            enqueues=[job for unit in units for job in unit.jobs],
            calls=[len(unit.jobs) for unit in units if unit.batch is None],
            batches=[unit.batch for unit in units if unit.batch is not None],
            claim=claim,
            ticks_of=participant.tasks
            if participant is not None and (promote_due or fires)
            else None,
            statistics=() if participant is None else participant.take_statistics(),
        )
        return Gathered(units, fires, memos, request)

    def _drop(self) -> None:
        self._outcomes = [one for one in self._outcomes if one.job.worker not in self._dropped]
        self._busy.drop(self._dropped)
        kept = []
        for one in self._memos:
            if one.memo.job.worker not in self._dropped:
                kept.append(one)
            elif one.answer is not None and not one.answer.done():
                one.answer.set_result(False)
        self._memos = kept

    async def _write(self, work: Gathered) -> StoreError | None:
        request = work.request
        loop = asyncio.get_running_loop()
        # Called during the wait: afterwards the sessions that blocked the round may be closed.
        slow = (
            None
            if self.participant is None
            else loop.call_later(SLOW_S, self.participant.warn_slow)
        )
        began_s = loop.time()
        try:
            written = await self._store_round(request)
        except StoreError as error:
            self._failed(work, error)
            return error
        except Exception as bug:
            # A bug of ours. Continuing would leave a worker that seems alive and writes nothing.
            logger.critical("a round broke; please report this", exc_info=True)
            broken = StoreFailed(f"a round broke: {bug!r}")
            self._failed(work, broken)
            return broken
        finally:
            if slow is not None:
                slow.cancel()
        if self.error is not None:
            self.error = None
            logger.info("rounds are written again")
        self.written_at_s = written_at_s = loop.time()
        held = answer_all(work, written, patient=not self._closing)
        if written.busy or held:
            self._busy.keep(written.busy, held, closing=self._closing)
        if self.participant is not None:
            self.participant.after_commit(request, written, written_at_s - began_s)
        elif written.left_queued:
            # No worker of this process runs them.
            self._store.workers.notify()
        return None

    async def _store_round(self, request: Round) -> Written:
        """Store a round, without its progress and statistics if it fails with them."""
        try:
            return await self._store.write(request)
        except StoreError as error:
            self._keep_rest(request, error)
            has_rest = request.statistics or request.progress
            if not has_rest or not isinstance(error, (StoreFull, StoreUnavailable)):
                raise
        # Jobs must not fail because of what is stored about them, for which a full disk may have no room.
        return await self._store.write(request._replace(statistics=(), progress=()))

    def _keep_rest(self, request: Round, error: StoreError) -> None:
        """Keep the progress and the statistics of a failed round for a later one.

        Statistics that may be stored are dropped, so that none counts twice.
        """
        participant = self.participant
        if participant is None:
            return
        if request.progress:
            participant.put_back_progress(request.progress)
        if request.statistics and not isinstance(error, StoreOutcomeUnknown):
            participant.put_back_statistics(request.statistics)

    async def _write_last_statistics(self) -> None:
        """Write the statistics of the last second before closing."""
        if self.participant is None:
            return
        rows = self.participant.take_statistics(all_of_them=True)
        if rows:
            try:
                await self._store.write(Round(now=now_us(), statistics=rows))
            except StoreError as error:
                logger.warning("the last statistics could not be written: %s", error)

    def _failed(self, work: Gathered, error: StoreError) -> None:
        if self.error is None or type(self.error) is not type(error):
            logger.error("a round could not be written: %s", error, like=type(error))
        self.error = error
        # Outcomes and memos must not be lost while the process lives: they wait until the store works again. If the
        # failed commit has worked after all, the fence makes writing them twice harmless.
        self._outcomes[:0] = work.request.outcomes
        self._memos[:0] = work.memos
        for unit in work.units:
            if not unit.answer.done():
                unit.answer.set_exception(error)
        for step in work.fires:
            if not step.answer.done():
                step.answer.set_exception(error)
        if self.participant is not None:
            self.participant.after_failure(work.request, error)
        if isinstance(error, StoreFailed):
            self.fail(error)
            if self.on_fatal is not None:
                self.on_fatal(error)

    def _refuse(self, error: StoreError) -> None:
        self._units += self._busy.take_units()
        while self._units:
            unit = self._units.popleft()
            if not unit.answer.done():
                unit.answer.set_exception(error)
        for step in self._fires:
            if not step.answer.done():
                step.answer.set_exception(error)
        self._fires.clear()
        for kept in self._memos:
            if kept.answer is not None and not kept.answer.done():
                kept.answer.set_exception(error)
        self._memos.clear()


def too_many(jobs: int, verb: Several = "enqueue_many") -> InvalidOptions:
    """Return the error for a call with more than ``ROWS_PER_CALL`` jobs."""
    return InvalidOptions(
        f"{verb}() takes {ROWS_PER_CALL:,} jobs at most, not {jobs:,}: it is one transaction, and nobody else can write"
        f" meanwhile. {_INSTEAD[verb]}"
    )
