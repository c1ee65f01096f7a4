"""Runs the due jobs of a runner with a worker that a test starts."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

from jobrunner.core.clock import now_us
from jobrunner.core.model import Dead, Outcome, RetryAt
from jobrunner.queue.queue import enqueuer_of
from jobrunner.runner.harness import OpenRunner
from jobrunner.store.committer import Committer
from jobrunner.tasks import current_queue
from jobrunner.worker.producer import Producer


class Driver:
    """A worker on one open runner, which works inside the block.

    It claims, runs and settles jobs as every worker does; only its timers and chores are missing. The test says when
    time has passed.
    """

    def __init__(self, runner: OpenRunner) -> None:
        self.runner = runner
        self.errors: list[tuple[str, BaseException]] = []
        """The exceptions that ended attempts, oldest first, each with the id of its job."""
        self._committer = Committer(runner.store)
        self._listening = ExitStack()
        self._started = 0
        """The number of started attempts at the last ``run_due``."""
        self._stored_at_s: float | None = None
        """The time of the runner's last round at the last promotion, by the loop's clock."""
        self.worker = runner.make_worker(self._committer, slots=runner.slots, work=True)

    async def __aenter__(self) -> Self:
        token = current_queue.running.set(enqueuer_of(self.runner.queue))
        try:
            with ExitStack() as stack:
                stack.enter_context(self.listening())
                await self.worker.start()
                self._listening = stack.pop_all()
        finally:
            current_queue.running.reset(token)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listening.close()
        await self.worker.stop()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note errors of attempts, and wake the worker for each stored job.

        A task may wait for such a job, and the store notifies the workers of other processes only.
        """
        workers, events = self.runner.store.workers, self.runner.events
        notify_others, notify_outcome = workers.notify, events.notify_outcome

        def notify() -> None:
            notify_others()
            self.producer.wake(suspects=True)

        def note_outcome(outcome: Outcome) -> None:
            raised = outcome.ended.raised
            if isinstance(outcome, RetryAt | Dead) and raised is not None:
                self.errors.append((outcome.job.id, raised.error))
            notify_outcome(outcome)

        vars(workers)["notify"], vars(events)["notify_outcome"] = notify, note_outcome
        try:
            yield
        finally:
            del vars(workers)["notify"], vars(events)["notify_outcome"]

    @property
    def producer(self) -> Producer:
        """The producer of the worker."""
        producer = self.worker.producer
        assert producer is not None  # noqa: S101 - it works
        return producer

    async def run_due(self, *, check: bool = True) -> bool:
        """Fire due schedules and run due jobs, and those that they enqueue.

        Args:
            check: False if nothing was stored since the last call, so that only the clock makes jobs due.

        Returns:
            Whether an attempt was started since the last call.
        """
        supervisor, scheduler = self.producer.supervisor, self.worker.scheduler
        if check:
            self._promote()
        while True:
            await self._end_attempts()
            await self.runner.events.delivered()
            tick, due, now = scheduler.next_tick, self.producer.next_due, now_us()
            fired = tick is not None and tick <= now and await scheduler.fire_due() > 0
            if (due is not None and due <= now) or self._has_stored():
                self._promote()
            elif not fired:
                before, self._started = self._started, supervisor.started
                return self._started > before

    def _promote(self) -> None:
        """Request a round that promotes due jobs and claims."""
        self._stored_at_s = self.runner.committer.written_at_s
        self.producer.wake(suspects=True)

    def _has_stored(self) -> bool:
        """Return whether jobs were stored, perhaps after the last claim."""
        return self.runner.committer.written_at_s != self._stored_at_s

    async def _end_attempts(self) -> None:
        """Wait until all attempts have ended and are settled; each round of a settlement claims more."""
        supervisor, started = self.producer.supervisor, -1
        while started != supervisor.started:
            started = supervisor.started
            await self._committer.flushed()
            await supervisor.quiet()
        await self._committer.flushed()

    def next_due(self) -> int | None:
        """Return the time (µs) of the next due job, expiry or tick, or None.

        Call it after ``run_due``.
        """
        now = now_us()
        times = (self.producer.next_due, self.worker.scheduler.next_tick)
        return min((time for time in times if time is not None and time > now), default=None)

    def abandon(self) -> None:
        """Give back the threads and timers of a worker that was killed; its attempts stay as they are."""
        self.worker.scheduler.begin_stop()
        self.producer.begin_stop()
        self.producer.supervisor.close()

    def running(self) -> list[str]:
        """Return the tasks and ids of attempts that have not ended."""
        jobs = [attempt.job for attempt in self.producer.supervisor.holders()]
        return sorted({f"{job.task} {job.id}" for job in jobs})
