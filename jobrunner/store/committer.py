"""Commits enqueues, outcomes, ticks and claims in shared rounds (group commit).

While one round is being committed, enqueues and outcomes gather for the next, so that a thousand callers share a few
commits; each caller is answered after the commit that holds its rows.  The committer's own task runs the rounds, so
cancelling a waiting caller does not undo its write.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, Protocol

from jobrunner.core.clock import now_us
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
from jobrunner.core.model import Claim, Enqueue, Enqueued, Fire, Fired, Outcome
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round, Written
from jobrunner.store.statistics import StatisticsRow

logger = log_of("jobrunner")

ROWS_PER_ROUND: Final = 2_000
BYTES_PER_ROUND: Final = 4 * 1024 * 1024
"""Both limits bound the time that one transaction blocks other writers."""
ROWS_PER_CALL: Final = 10_000
"""Maximum number of jobs in one ``enqueue_many``: it is one transaction, which blocks other writers."""

Several = Literal["enqueue_many", "enqueue_chain"]
_INSTEAD: Final[Mapping[Several, str]] = {
    "enqueue_many": f"Call it once per slice: `for i in range(0, len(calls), {ROWS_PER_CALL:_}):"
    f" await queue.enqueue_many(calls[i : i + {ROWS_PER_CALL:_}])`",
    "enqueue_chain": "Let the last job of a chain enqueue the next chain",
}

SLOW_S: Final = 0.25
"""A longer round has probably waited for somebody else's transaction."""
FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0


class RoundParticipant(Protocol):
    """A worker that claims jobs in every round and starts them after the commit."""

    tasks: frozenset[str]
    """Names of all tasks that the worker can run, including aliases."""

    def next_claim(self) -> Claim | None:
        """Return the claim for the next round; None if the worker claims nothing."""
        ...

    def take_promote_due(self) -> bool:
        """Return whether the next round should promote due jobs, and reset the request."""
        ...

    def take_statistics(self, *, all_of_them: bool = False) -> Sequence[StatisticsRow]:
        """Return the statistics to add with the next round; by default about once a second."""
        ...

    def put_back_statistics(self, rows: Sequence[StatisticsRow]) -> None:
        """Keep statistics that were not stored for a later round."""
        ...

    def after_commit(self, request: Round, written: Written) -> None:
        """Called after the commit: start the claimed jobs and resolve waiters."""
        ...

    def warn_slow(self) -> None:
        """Called while a round is slow: name the tasks whose sessions may block it."""
        ...

    def after_failure(self, request: Round, error: StoreError) -> None:
        """Called after a failed round: request the same work again."""
        ...


class _Unit(NamedTuple):
    """Jobs of one call, stored all or none, and the future of their caller."""

    jobs: Sequence[Enqueue]
    size: int
    answer: asyncio.Future[list[Enqueued]]


class _Fires(NamedTuple):
    """Steps of schedules and the future of the scheduler."""

    fires: Sequence[Fire]
    answer: asyncio.Future[Sequence[Fired | StoreError]]


class Committer:
    """Runs the rounds of one open store, one at a time."""

    def __init__(self, store: Store, participant: RoundParticipant | None = None) -> None:
        self._store = store
        self.participant = participant
        self._units: deque[_Unit] = deque()
        self._outcomes: list[Outcome] = []
        self._fires: list[_Fires] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
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

    async def submit(self, jobs: Sequence[Enqueue]) -> list[Enqueued]:
        """Store jobs in one transaction; return their results, in order, once they are durable.

        A caller waits for one call at a time, so serving calls in order of arrival is fair to callers.

        Raises:
            InvalidOptions: The call has more than ``ROWS_PER_CALL`` jobs.
            WrongThread: The call runs on another loop, where nothing would set its result.
            StoreError: The jobs were not stored; after ``StoreOutcomeUnknown`` they may have been.
        """
        if len(jobs) > ROWS_PER_CALL:
            raise too_many(len(jobs))
        if self._closing or self._broken:
            raise self.error or StoreUnavailable("the runner is closed")
        if not jobs:
            return []
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            raise WrongThread(
                "the runner is open on another event loop than this one; in a thread write"
                " `jobs.sync.enqueue(task, ...)`, and here `await asyncio.to_thread(jobs.sync.enqueue, task, ...)`"
            )
        answer: asyncio.Future[list[Enqueued]] = loop.create_future()
        size = sum(len(job.args) for job in jobs)
        self._units.append(_Unit(jobs, size, answer))
        self.wake()
        return await answer

    def settle(self, outcome: Outcome) -> None:
        """Submit an outcome for the next round; failed rounds are tried again until it is written."""
        self._outcomes.append(outcome)
        self.wake()

    async def fire(self, fires: Sequence[Fire]) -> Sequence[Fired | StoreError]:
        """Carry out steps of schedules in one round; see ``Store.write``.

        Raises:
            StoreError: None of the steps was stored; after ``StoreOutcomeUnknown`` they may have been.
        """
        if self._closing or self._broken:
            raise self.error or StoreUnavailable("the runner is closed")
        step = _Fires(fires, asyncio.get_running_loop().create_future())
        self._fires.append(step)
        self.wake()
        return await step.answer

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
            units, steps, request = self._gather()
            failed = await self._write(units, steps, request)
            if failed is None:
                pause_s = FIRST_PAUSE_S
            elif self._closing or isinstance(failed, StoreFailed):
                break
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
                self._wake.set()
            if self._units or self._outcomes or self._fires:
                self._wake.set()
            if not self._wake.is_set():
                self._idle.set()
                if self._closing:
                    await self._write_last_statistics()
                    if not self._wake.is_set():
                        break

    def _gather(self) -> tuple[list[_Unit], list[_Fires], Round]:
        """Take the waiting work that fits into the next round."""
        outcomes = self._outcomes[:ROWS_PER_ROUND]
        del self._outcomes[: len(outcomes)]
        rows = len(outcomes)
        size = 0
        units: list[_Unit] = []
        while self._units:
            unit = self._units[0]
            if unit.answer.cancelled():
                # The caller was cancelled before its jobs reached the store: the only case where nothing is stored.
                self._units.popleft()
                continue
            full = rows + len(unit.jobs) > ROWS_PER_ROUND or size + unit.size > BYTES_PER_ROUND
            if full and units:
                break
            units.append(self._units.popleft())
            rows += len(unit.jobs)
            size += unit.size
        steps, self._fires = self._fires, []
        participant = self.participant
        claim = None if participant is None else participant.next_claim()
        if claim is not None and claim.held is not None:
            # These attempts have ended, but the store still has them as running.
            ended = ((one.job.seq, one.job.lease) for one in (*outcomes, *self._outcomes))
            claim = claim._replace(held=claim.held.union(ended))
        promote_due = participant is not None and participant.take_promote_due()
        request = Round(
            now=now_us(),
            outcomes=outcomes,
            promote_due=promote_due,
            fires=[fire for step in steps for fire in step.fires],
            enqueues=[job for unit in units for job in unit.jobs],
            claim=claim,
            ticks_of=participant.tasks
            if participant is not None and (promote_due or steps)
            else None,
            statistics=() if participant is None else participant.take_statistics(),
        )
        return units, steps, request

    async def _write(
        self, units: list[_Unit], steps: list[_Fires], request: Round
    ) -> StoreError | None:
        loop = asyncio.get_running_loop()
        # Called during the wait: afterwards the sessions that blocked the round may be closed.
        slow = (
            None
            if self.participant is None
            else loop.call_later(SLOW_S, self.participant.warn_slow)
        )
        try:
            written = await self._store_round(request)
        except StoreError as error:
            self._failed(units, steps, request, error)
            return error
        except Exception as bug:
            # A bug of ours. Continuing would leave a worker that seems alive and writes nothing.
            logger.critical("a round broke; please report this", exc_info=True)
            broken = StoreFailed(f"a round broke: {bug!r}")
            self._failed(units, steps, request, broken)
            return broken
        finally:
            if slow is not None:
                slow.cancel()
        if self.error is not None:
            self.error = None
            logger.info("rounds are written again")
        self.written_at_s = loop.time()
        at = 0
        for unit in units:
            _answer(unit, written.enqueued[at : at + len(unit.jobs)])
            at += len(unit.jobs)
        at = 0
        for step in steps:
            if not step.answer.done():
                step.answer.set_result(written.fired[at : at + len(step.fires)])
            at += len(step.fires)
        if self.participant is not None:
            self.participant.after_commit(request, written)
        elif written.left_queued:
            # No worker of this process runs them.
            self._store.workers.notify()
        return None

    async def _store_round(self, request: Round) -> Written:
        """Store a round, without its statistics if it fails with them."""
        try:
            return await self._store.write(request)
        except StoreError as error:
            self._keep_statistics(request, error)
            if not request.statistics or not isinstance(error, (StoreFull, StoreUnavailable)):
                raise
        # Jobs must not fail because of their statistics, for which a full disk may have no room.
        return await self._store.write(request._replace(statistics=()))

    def _keep_statistics(self, request: Round, error: StoreError) -> None:
        """Keep the statistics of a failed round for a later one.

        Those that may be stored are dropped, so that none counts twice.
        """
        may_be_stored = isinstance(error, StoreOutcomeUnknown)
        if request.statistics and self.participant is not None and not may_be_stored:
            self.participant.put_back_statistics(request.statistics)

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

    def _failed(
        self, units: list[_Unit], steps: list[_Fires], request: Round, error: StoreError
    ) -> None:
        if self.error is None or type(self.error) is not type(error):
            logger.error("a round could not be written: %s", error, like=type(error))
        self.error = error
        # Outcomes must not be lost while the process lives: they wait until the store works again. If the failed commit
        # has worked after all, the fence makes writing them twice harmless.
        self._outcomes[:0] = request.outcomes
        for unit in units:
            if not unit.answer.done():
                unit.answer.set_exception(error)
        for step in steps:
            if not step.answer.done():
                step.answer.set_exception(error)
        if self.participant is not None:
            self.participant.after_failure(request, error)
        if isinstance(error, StoreFailed):
            self.fail(error)
            if self.on_fatal is not None:
                self.on_fatal(error)

    def _refuse(self, error: StoreError) -> None:
        while self._units:
            unit = self._units.popleft()
            if not unit.answer.done():
                unit.answer.set_exception(error)
        for step in self._fires:
            if not step.answer.done():
                step.answer.set_exception(error)
        self._fires.clear()


def _answer(unit: _Unit, stored: Sequence[Enqueued | StoreError]) -> None:
    if unit.answer.done():
        return
    jobs: list[Enqueued] = []
    for one in stored:
        if isinstance(one, StoreError):
            unit.answer.set_exception(one)
            return
        jobs.append(one)
    unit.answer.set_result(jobs)


def too_many(jobs: int, verb: Several = "enqueue_many") -> InvalidOptions:
    """Return the error for a call with more than ``ROWS_PER_CALL`` jobs."""
    return InvalidOptions(
        f"{verb}() takes {ROWS_PER_CALL:,} jobs at most, not {jobs:,}: it is one transaction, and nobody else can write"
        f" meanwhile. {_INSTEAD[verb]}"
    )
