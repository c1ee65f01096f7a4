"""Lets a test kit take over the runners that are opened: their store, their worker and their end."""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import NamedTuple, Protocol

from jobrunner.core.errors import AlreadyRunning
from jobrunner.core.schedule import Definition
from jobrunner.queue.queue import JobQueue
from jobrunner.runner.asgi import App
from jobrunner.store.committer import Committer
from jobrunner.store.protocol import Store
from jobrunner.worker.events import Events
from jobrunner.worker.settings import Settings
from jobrunner.worker.worker import Worker


class MakeWorker(Protocol):
    """Makes a worker of an open runner, which has not started yet."""

    def __call__(
        self,
        committer: Committer,
        *,
        slots: Mapping[str, int],
        work: bool,
    ) -> Worker: ...


class OpenRunner(NamedTuple):
    """The parts of a runner that a harness has taken over; it runs no jobs by itself."""

    app: App | None
    """The application whose requests use the runner."""
    queue: JobQueue
    store: Store
    committer: Committer
    """Stores the jobs of requests and of the test."""
    events: Events
    settings: Settings
    slots: Mapping[str, int]
    schedules: Mapping[str, Definition]
    """The schedules that the code declares, by id; they are not stored yet."""
    make_worker: MakeWorker


class Harness(Protocol):
    """Decides how runners are opened in a test."""

    async def store_of(self, configured: str | os.PathLike[str]) -> str | os.PathLike[str]:
        """Return the store that a runner opens instead of the configured one."""
        ...

    def opened(self, runner: OpenRunner) -> AbstractAsyncContextManager[None]:
        """Return a block around the time for which a runner is open."""
        ...


_installed: Harness | None = None


def current() -> Harness | None:
    """Return the harness under which runners are opened now; None outside of tests."""
    return _installed


@contextmanager
def installed(harness: Harness) -> Iterator[None]:
    """Open every runner of this process under a harness inside the block.

    Raises:
        AlreadyRunning: Another harness is installed.
    """
    global _installed  # noqa: PLW0603 - the lifespan that opens a runner may run in another thread
    if _installed is not None:
        raise AlreadyRunning(
            "a tester is open already in this process: use one per test, as `job_tester` or `sync_job_tester` gives it"
        )
    _installed = harness
    try:
        yield
    finally:
        _installed = None
