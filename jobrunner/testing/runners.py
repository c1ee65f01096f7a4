"""Holds the runners of one tester: opens their stores, drivers them together, and reads their jobs."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from jobrunner.core.clock import from_us, now_us, replaced
from jobrunner.core.errors import ConfigurationError, NotRunning, UnknownTask
from jobrunner.core.model import FINISHED
from jobrunner.queue.enqueuer import Enqueuer
from jobrunner.queue.queue import JobQueue, enqueuer_of
from jobrunner.queue.schedules import Schedule, schedule_of
from jobrunner.runner.harness import OpenRunner, installed
from jobrunner.store.open import blank_store, image_of, location_of, put_blank, read_all
from jobrunner.tasks.task import Task
from jobrunner.testing.clock import TestClock
from jobrunner.testing.driver import Driver
from jobrunner.testing.records import Record
from jobrunner.worker.scheduler import declare_schedules

T = TypeVar("T")

DEFAULT_TIMEOUT_S = 30.0
"""The real time after which jobs that do not end fail a test."""
MOST_STEPS = 100_000
"""The most steps of the clock in one call; a task that snoozes for ever fails the test."""

_blank: bytes | None = None


async def _blank_bytes() -> bytes:
    """Return the template of a blank store, which is made once per process."""
    global _blank  # noqa: PLW0603 - making it takes longer than most tests
    if _blank is None:
        _blank = await blank_store()
    return _blank


@dataclass
class Place:
    """A store of the tester and the runner that uses it."""

    path: Path
    owner: Enqueuer | None = None
    """The queue of the runner that opened it last."""
    runner: OpenRunner | None = None
    """The runner while it is open."""


class TestedRunners:
    """The runners that are opened under one tester, each on its store.

    It is the ``Harness`` under which they open. A runner that opens again gets its former store.
    """

    def __init__(self, store: Path | None) -> None:
        """Take a file for the store of the only runner; None for temporary files."""
        self.clock = TestClock()
        self.at_work = False
        """True while jobs run."""
        self.stuck: list[str] = []
        """The tasks and ids of the attempts whose code did not end with its worker."""
        self._store = store
        self._folder: Path | None = None
        self._places: dict[str, Place] = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Take over the runners that open inside the block, and the clock.

        Raises:
            AlreadyRunning: Another tester is open in this process.
        """
        with ExitStack() as stack:
            folder = tempfile.TemporaryDirectory(prefix="jobrunner-", ignore_cleanup_errors=True)
            self._folder = Path(stack.enter_context(folder))
            stack.enter_context(installed(self))
            stack.enter_context(replaced(self.clock.now_us))
            yield

    # -- as a harness --------------------------------------------------------------

    async def store_of(self, configured: Any) -> Path:
        """Return the file that takes the place of a runner's store."""
        key = location_of(configured)
        place = self._places.get(key)
        if place is None:
            if self._store is not None and self._places:
                raise ConfigurationError(
                    f"the tester has one store for two runners ({', '.join(self._places)} and {key}): leave out"
                    " store=..., and each gets a temporary file"
                )
            assert self._folder is not None  # noqa: S101 - installed
            path = self._store or self._folder / f"jobs{len(self._places) or ''}.db"
            place = self._places[key] = Place(path)
        if not place.path.exists():
            put_blank(place.path, await _blank_bytes())
        return place.path

    @asynccontextmanager
    async def opened(self, runner: OpenRunner) -> AsyncIterator[None]:
        """Store the declared schedules of a runner, and keep it while it is open."""
        place = self._places[location_of(runner.settings.store)]
        place.owner, place.runner = enqueuer_of(runner.queue), runner
        if runner.schedules:
            await declare_schedules(
                runner.store,
                runner.schedules,
                revision=runner.settings.revision,
                elsewhere=frozenset(),
            )
        try:
            yield
        finally:
            place.runner = None

    # -- what is open ------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """The file of the first runner's store."""
        for place in self._places.values():
            return place.path
        if self._store is not None:
            return self._store
        assert self._folder is not None  # noqa: S101 - installed
        return self._folder / "jobs.db"

    @property
    def runners(self) -> list[OpenRunner]:
        """The open runners, in the order in which they were first opened.

        Raises:
            NotRunning: No runner is open.
        """
        found = [place.runner for place in self._places.values() if place.runner is not None]
        if not found:
            raise NotRunning(
                "no runner is open under this tester: write `async with JobTester(app) as t:`, which runs the"
                " application's lifespan, or `with SyncJobTester(app) as t, TestClient(app) as client:`"
            )
        return found

    def is_open(self) -> bool:
        """Return whether a runner is open."""
        return any(place.runner is not None for place in self._places.values())

    def path_of(self, runner: OpenRunner) -> Path:
        """Return the file of a runner's store."""
        return self._places[location_of(runner.settings.store)].path

    def runner_of(self, task: Task[..., Any]) -> OpenRunner:
        """Return the open runner that has a task.

        Raises:
            UnknownTask: No open runner has it.
        """
        if not isinstance(task, Task):
            raise UnknownTask(f"{task!r} is not a task; decorate the function with @jobs.task")
        for runner in self.runners:
            known = enqueuer_of(runner.queue).parts.tasks.get(task.name)
            if known is task.spec or task.spec.is_same(known):
                return runner
        raise UnknownTask(
            f"{task.name} ({task.spec.where}) is not registered with the runner under test; write"
            " jobs.include(router), or test the application that has it"
        )

    def queue_of(self, record: Record) -> JobQueue:
        """Return the queue of the open runner that has a job."""
        return next(one.queue for one in self.runners if enqueuer_of(one.queue) is record.owner)

    def require(self, task: Task[..., Any]) -> None:
        """Raise if runners are open and none has a task; see ``runner_of``."""
        if self.is_open():
            self.runner_of(task)

    # -- reading ------------------------------------------------------------------------

    def records(self) -> list[Record]:
        """Return all jobs and dead letters, in the order in which they were stored."""
        return [
            Record(row, attempts, place.owner)
            for place in self._places.values()
            if place.owner is not None
            for row, attempts in read_all(place.path).jobs
        ]

    def record(self, id: str) -> Record:
        """Return one job or dead letter.

        Raises:
            LookupError: There is no such job.
        """
        for record in self.records():
            if record.row.id == id:
                return record
        raise LookupError(f"the tester's stores have no job {id}")

    def schedules(self) -> list[Schedule]:
        """Return all schedules, the one with the next tick first."""
        rows = [
            row
            for place in self._places.values()
            if place.owner is not None
            for row in read_all(place.path).schedules
        ]
        found = [schedule_of(row) for row in rows]
        return sorted(found, key=lambda one: (one.next_at is None, one.next_at, one.id))

    def images(self) -> dict[Path, bytes]:
        """Return the bytes of each store's file; no runner is open."""
        return {place.path: image_of(place.path) for place in self._places.values()}

    # -- running ------------------------------------------------------------------------

    @contextmanager
    def works(self) -> Iterator[None]:
        """Mark the tester as at work inside the block.

        Raises:
            RuntimeError: It is at work already.
        """
        if self.at_work:
            raise RuntimeError(
                "the tester is at work already: a task, or a second coroutine of the test, cannot use it meanwhile"
            )
        self.at_work = True
        try:
            yield
        finally:
            self.at_work = False

    @asynccontextmanager
    async def driven(self) -> AsyncIterator[list[Driver]]:
        """Let a worker of each open runner work inside the block; raises like ``works``."""
        with self.works():
            async with AsyncExitStack() as stack:
                drivers = [await stack.enter_async_context(Driver(one)) for one in self.runners]
                stack.callback(self._note_stuck, drivers)
                yield drivers

    def _note_stuck(self, drivers: list[Driver]) -> None:
        self.stuck += [name for driver in drivers for name in driver.running()]

    async def in_time(
        self, drivers: list[Driver], work: Coroutine[Any, Any, T], timeout: float
    ) -> T:
        """Await work that runs jobs, for at most ``timeout`` real seconds.

        Raises:
            TimeoutError: It has not ended; the message names the jobs that still run.
        """
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                return await work
        except TimeoutError as error:
            if not limit.expired():
                raise
            running = [name for driver in drivers for name in driver.running()]
            raise TimeoutError(
                f"after {timeout:g} s these jobs still run: {', '.join(running) or 'none'}; the tester waits for them"
                " in real time, so let them end, or pass timeout=..."
            ) from error

    async def run_due(self, drivers: list[Driver], *, check: bool = True) -> None:
        """Run what is due now, and what that makes due, to its end; see ``Driver.run_due``."""
        while True:
            busy = [await driver.run_due(check=check) for driver in drivers]
            if len(drivers) == 1 or not any(busy):
                return
            check = True

    async def step(self, drivers: list[Driver], until: int | None) -> bool:
        """Move the clock to the next due job or tick, and run it.

        Args:
            drivers: The workers, after ``run_due``.
            until: The latest instant (µs); None for any.

        Returns:
            False if nothing is due by then.
        """
        due = min((time for one in drivers if (time := one.next_due()) is not None), default=None)
        if due is None or (until is not None and due > until):
            return False
        self.clock.move_to(due)
        await self.run_due(drivers, check=False)
        return True

    async def travel_to(self, drivers: list[Driver], instant: int) -> None:
        """Run what becomes due up to an instant, and move the clock there."""
        await self.run_due(drivers)
        while await self.step(drivers, instant):
            pass
        self.clock.move_to(instant)
        await self.run_due(drivers)

    async def run_to_end(self, drivers: list[Driver], id: str) -> Record:
        """Run a job to its end, moving the clock past its waits.

        Raises:
            AssertionError: Nothing lets the job go on.
        """
        await self.run_due(drivers)
        record = self.record(id)
        for _ in range(MOST_STEPS):
            if record.row.state in FINISHED:
                return record
            if not await self.step(drivers, None):
                raise AssertionError(
                    f"{record.row.task} {id} is {record.row.state}, and nothing lets it go on: is its queue paused,"
                    " or does it wait for a signal? Then write t.signal(job, name)"
                )
            record = self.record(id)
        raise AssertionError(
            f"{record.row.task} {id} is {record.row.state} at {from_us(now_us()).isoformat()}, after"
            f" {MOST_STEPS:,} steps of the clock"
        )
