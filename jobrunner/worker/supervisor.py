"""Supervises the attempts in a worker's slots: starts, stops, cleans up and abandons them.

Attempts are asyncio tasks; their outcomes go to the committer.  A slot is free once its attempt has ended.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.core.logs import log_of
from jobrunner.core.model import Claimed, Ended, Outcome, Parked, Released, RetryAt, Snoozed
from jobrunner.core.tracing import Tracing
from jobrunner.store.committer import Committer
from jobrunner.tasks.spec import TaskSpec
from jobrunner.worker.attempt import Attempt, StopReason
from jobrunner.worker.dependencies import AttemptScope, LeftBehind, Resolved
from jobrunner.worker.events import Events
from jobrunner.worker.executor import clean_up, execute
from jobrunner.worker.grace import Grace
from jobrunner.worker.outcomes import extra, log_wait
from jobrunner.worker.parking import unsaved
from jobrunner.worker.progress import ProgressReports
from jobrunner.worker.statistics import Statistics
from jobrunner.worker.steps import StepRuntime
from jobrunner.worker.thread_pool import Threads
from jobrunner.worker.transactions import Transactions
from jobrunner.worker.unawaited import caller

logger = log_of("jobrunner")

OBEY_S: Final = 10.0
"""Seconds that an ``async def`` may go on after it was cancelled; then its slot is freed."""

CLEAN_UP_S: Final = 30.0
"""Seconds that the clean-up of an attempt's dependencies may take; then it is cancelled."""


class Supervisor:
    """Manages the slots of one worker and the attempts in them."""

    def __init__(
        self,
        committer: Committer,
        *,
        specs: Mapping[str, TaskSpec],
        slots: Mapping[str, int],
        events: Events,
        statistics: Statistics,
        progress: ProgressReports,
        around: AttemptScope,
        transactions: Transactions,
        steps: StepRuntime,
    ) -> None:
        self.specs = specs
        self.slots = dict(slots)
        self.attempts: dict[int, Attempt] = {}
        """The unsettled attempts of this worker, by ``seq``."""
        self.stuck: set[Attempt] = set()
        """Attempts whose thread or clean-up goes on after their end; each still holds its slot."""
        self.stopping = False
        self.suspect: int | None = None
        """The ``seq`` of the suspect that runs here; None if none does."""
        self.started = 0
        """The number of attempts that this worker has started."""
        self._busy = dict.fromkeys(slots, 0)
        self._committer = committer
        self._events = events
        self._statistics = statistics
        self._progress = progress
        self._around = around
        self._transactions = transactions
        self._steps = steps
        self._threads = Threads(sum(slots.values()))
        self._quiet = asyncio.Event()
        self._quiet.set()

    # -- attempts -------------------------------------------------------------------------

    def free_slots(self) -> Mapping[str, int]:
        """Return the free slots of the queues that have some."""
        return {
            queue: slots - self._busy[queue]
            for queue, slots in self.slots.items()
            if slots > self._busy[queue]
        }

    def start(self, jobs: Sequence[Claimed]) -> None:
        """Start an attempt for each claimed job."""
        self.started += len(jobs)
        loop = asyncio.get_running_loop()
        started = [self._start(job, loop) for job in jobs]
        caller.set(None)
        # After their first steps, in which many of them end and then need no timer.
        loop.call_soon(_start_timers, started)

    def _start(self, job: Claimed, loop: asyncio.AbstractEventLoop) -> Attempt:
        attempt = Attempt(job, self.specs[job.task])
        self._progress.begin(attempt)
        self._busy[job.queue] += 1
        former = self.attempts.get(job.seq)
        if former is not None and former.job.id != job.id:
            # Someone has emptied the tables and SQLite's counter for `seq`: the outcome of the old attempt would be
            # taken for the one of this job.
            former.settled = True
            self.abandon(former)
        self.attempts[job.seq] = attempt
        if job.suspect:
            self.suspect = job.seq
        self._quiet.clear()
        # Set before the task is made, which copies the context: setting it inside the task would cost more.
        caller.set(attempt)
        tracing = self._events.tracing
        run = (
            self._run(attempt)
            if tracing is None or not tracing.is_active()
            else self._traced(attempt, tracing)
        )
        attempt.task = loop.create_task(run, name=job.task)
        return attempt

    async def _traced(self, attempt: Attempt, tracing: Tracing) -> None:
        """Run an attempt in its span, together with the clean-up of its dependencies."""
        with contextlib.ExitStack() as stack:
            try:
                end = stack.enter_context(tracing.attempt(attempt.job))
            except Exception:
                # The code of samplers and processors is not ours. The job must run whatever they do.
                logger.exception("attempts cannot be traced", like="trace")
                end = None
            await self._run(attempt, end)

    async def _run(
        self, attempt: Attempt, on_outcome: Callable[[Outcome], None] | None = None
    ) -> None:
        """Run an attempt and settle its outcome; free the slot once its code has ended."""
        try:
            outcome = await execute(
                attempt, self._threads, self._around, self._transactions, self._steps
            )
        except (Exception, GeneratorExit) as error:
            # A bug in jobrunner, or a future that failed with GeneratorExit, which closes the coroutines that await it.
            # The job and its slot must not be lost, and the job must not run again at once.
            logger.critical(
                "the outcome of an attempt could not be determined; please report this",
                exc_info=True,
            )
            now = now_us()
            ended = Ended("failed", now, type(error).__name__, str(error))
            outcome = RetryAt(attempt.job, ended, now + 60 * SECOND_US)
        if on_outcome is not None:
            _end_span(on_outcome, outcome)
        thread = attempt.thread
        if thread is not None and not thread.done() and not attempt.abandoned:
            await self._outlast(attempt, outcome, thread)
        if attempt.resolved is not None:
            await self._clean_up(attempt, outcome, attempt.resolved)
        late = attempt.settled
        self._settle(attempt, outcome)
        self._free(attempt)
        # Break reference cycles, which only the garbage collector could free: the task's context and that of the error
        # in the outcome refer to the attempt, and the error's innermost frame leads back to this one (Python 3.12).
        attempt.task = attempt.decided = None
        del outcome
        if late:
            self.stuck.discard(attempt)
            # Nothing else announces that the slot is free.
            self._committer.wake()

    async def _outlast(
        self, attempt: Attempt, outcome: Outcome, thread: asyncio.Future[object]
    ) -> None:
        """Wait for the thread of a timed-out ``def`` task, which cannot be stopped."""
        job = attempt.job
        logger.error(
            "%s %s timed out, and its thread goes on: its slot is taken until the thread ends. Check `job.cancelled` in"
            " the task, or give its calls a time-out of their own",
            job.task,
            job.id,
            extra=extra(job),
        )
        self._settle_unless_again(attempt, outcome)
        if self.stopping:
            self._abandon_settled(attempt)
        while not (thread.done() or attempt.abandoned):
            # A cancellation is meant for the attempt, which has ended; now only the end of the thread counts.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([thread])
        self.stuck.discard(attempt)

    def _settle_unless_again(self, attempt: Attempt, outcome: Outcome) -> None:
        """Settle an attempt whose thread goes on, unless its job will run again.

        A retry waits until the thread has ended: two runs of one job must not overlap in one process.
        """
        self.stuck.add(attempt)
        if not isinstance(outcome, (RetryAt, Snoozed, Parked, Released)):
            self._settle(attempt, outcome)

    async def _clean_up(self, attempt: Attempt, outcome: Outcome, resolved: Resolved) -> None:
        """Clean up the dependencies of an attempt whose outcome is decided and final."""
        if attempt.thread is not None and not attempt.thread.done():
            return  # the process shuts down and leaves the thread behind
        attempt.decided = outcome
        if attempt.settled:
            # It is no longer in `attempts`; `stuck` lets a shutdown find and leave it.
            self.stuck.add(attempt)

        def report(what: str, error: BaseException) -> None:
            logger.error(
                "%s %s: %s failed; that changes nothing in what became of the job: %s",
                attempt.job.task,
                attempt.job.id,
                what,
                repr(error),
                exc_info=error,
                extra=extra(attempt.job),
                like=(attempt.job.task, what),
            )

        timer = asyncio.get_running_loop().call_later(CLEAN_UP_S, self._clean_up_lasts, attempt)
        try:
            await clean_up(attempt, resolved, self._threads, report)
        except LeftBehind:
            return
        finally:
            timer.cancel()
            self.stuck.discard(attempt)
            # The error refers to its frames, and these refer to the attempt.
            attempt.resolved = attempt.error = None

    def _clean_up_lasts(self, attempt: Attempt) -> None:
        job = attempt.job
        logger.error(
            "%s %s has ended, and the clean-up of its dependencies goes on after %g s: %s",
            job.task,
            job.id,
            CLEAN_UP_S,
            "it is cancelled"
            if attempt.thread is None
            else "its slot is taken until the thread ends; give its calls a time-out of their own",
            extra=extra(job),
        )
        if attempt.thread is None:
            attempt.end_clean_up()
        elif attempt.decided is not None:
            self._settle_unless_again(attempt, attempt.decided)

    def _settle(self, attempt: Attempt, outcome: Outcome) -> None:
        if not (attempt.settled or attempt.abandoned):
            attempt.settled = True
            self._progress.end(attempt)
            if attempt.has_committed:
                self._statistics.count((outcome,), now_us())
                self._events.notify_outcome(outcome)
                self._committer.wake()
            else:
                has_steps = attempt.context._steps is not None  # noqa: SLF001 - made by the context, read here
                if has_steps and type(outcome) is not Parked and (memos := unsaved(attempt)):
                    self._committer.keep_with_outcome(memos)
                self._committer.settle(outcome)
            if self.attempts.get(attempt.job.seq) is attempt:
                del self.attempts[attempt.job.seq]

    def _free(self, attempt: Attempt) -> None:
        if attempt.abandoned:
            return
        job = attempt.job
        self._busy[job.queue] -= 1
        if self.suspect == job.seq:
            self.suspect = None
        if not any(self._busy.values()):
            self._quiet.set()

    async def quiet(self) -> None:
        """Wait until no attempt holds a slot."""
        await self._quiet.wait()

    def holders(self) -> Iterator[Attempt]:
        """Yield the attempts that hold a slot, except abandoned ones; some come twice."""
        for attempt in (*self.attempts.values(), *self.stuck):
            if not attempt.abandoned:
                yield attempt

    def warn_of_sessions(self) -> None:
        """Log the attempts with a session, which may block all writers: SQLite has one at a time."""
        holders = [
            f"{attempt.job.task} {attempt.job.id}"
            for attempt in self.attempts.values()
            if self._transactions.session_of(attempt) is not None
        ]
        if holders:
            logger.warning(
                "a round waits, and these have a session: %s. From a session's first write to its commit nobody else"
                " can write: do what takes time before the first write",
                ", ".join(holders),
            )

    def stop(self, seq: int, lease: int | None, reason: StopReason) -> bool:
        """Stop one attempt; return whether it runs here, with that lease if one is given."""
        attempt = self.attempts.get(seq)
        if attempt is None or (lease is not None and attempt.job.lease != lease):
            return False
        attempt.stop(reason)
        return True

    def lose_all(self) -> Sequence[Claimed]:
        """Stop all attempts and settle none: others may have taken their jobs over; return the jobs.

        Each keeps its slot until its code has ended.
        """
        lost = list(self.attempts.values())
        self.attempts.clear()
        for attempt in lost:
            attempt.settled = True
            self._progress.end(attempt)
            self.stuck.add(attempt)
            attempt.stop("lost")
        return [attempt.job for attempt in lost]

    def abandon_unresponsive(self) -> None:
        """Abandon each ``async def`` that goes on long after it was cancelled."""
        now_s = asyncio.get_running_loop().time()
        for attempt in (*self.attempts.values(), *self.stuck):
            stopped_at = attempt.stopped_at
            if attempt.thread is None and stopped_at is not None and now_s - stopped_at > OBEY_S:
                job = attempt.job
                logger.error(
                    "%s %s has swallowed its cancel for %g s and is left behind; its result no longer counts."
                    " Let CancelledError pass through %s",
                    job.task,
                    job.id,
                    OBEY_S,
                    "the task" if attempt.decided is None else "the clean-up of its dependencies",
                    extra=extra(job),
                )
                self.abandon(attempt)

    def abandon(self, attempt: Attempt) -> None:
        """Settle an attempt without waiting for its code."""
        self._settle(attempt, attempt.decided or attempt.outcome_of_stop())
        self._free(attempt)
        self.stuck.discard(attempt)
        attempt.leave_behind()

    def _abandon_settled(self, attempt: Attempt) -> None:
        """Abandon a settled attempt whose thread goes on, which could take the whole grace."""
        if attempt.settled and attempt.resolved is None:
            self.abandon(attempt)

    # -- shutdown ----------------------------------------------------------------------------

    def begin_stop(self) -> None:
        """Stop starting attempts, and warn the running ones (``job.cancelled``)."""
        if self.stopping:
            return
        self.stopping = True
        for attempt in self.attempts.values():
            attempt.warn("shutdown")
        for attempt in list(self.stuck):
            self._abandon_settled(attempt)

    async def stop_all(self, grace: Grace) -> None:
        """Wait for attempts up to the grace, then cancel them, then release the rest."""
        self.begin_stop()
        log_wait([attempt.job for attempt in self.attempts.values()], grace.seconds)
        if not await self._ended_within(grace):
            for attempt in list(self.attempts.values()):
                attempt.stop("shutdown")
            await self._ended_within(Grace(min(1.0, max(grace.seconds, 0.1))))
            for attempt in list(self.attempts.values()):
                job = attempt.job
                logger.error(
                    "%s %s does not end; it is %s left behind",
                    job.task,
                    job.id,
                    "given back and" if attempt.decided is None else "settled, and its clean-up is",
                    extra=extra(job),
                )
                self.abandon(attempt)
        for attempt in list(self.stuck):
            # Its job is settled; only its task still waits for the thread, and `asyncio.run` would wait for the task.
            attempt.leave_behind()

    async def _ended_within(self, grace: Grace) -> bool:
        try:
            async with grace.limit():
                await self._quiet.wait()
        except TimeoutError:
            return not self.attempts
        return True

    def close(self) -> None:
        """Close the thread pool."""
        self._threads.close()


def _end_span(end: Callable[[Outcome], None], outcome: Outcome) -> None:
    try:
        end(outcome)
    except Exception:
        logger.exception("the outcomes of attempts cannot be traced", like="trace")


def _start_timers(attempts: Sequence[Attempt]) -> None:
    for attempt in attempts:
        attempt.start_timer()
