"""The parts of an open runner that all of its queues share."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jobrunner.core.clock import now_us
from jobrunner.core.errors import StoreError
from jobrunner.core.forked import refuse_forked
from jobrunner.queue.audit import AuditLog
from jobrunner.queue.dead_letters import DeadLetters
from jobrunner.queue.limits import Limits
from jobrunner.queue.local_worker import LocalWorker
from jobrunner.queue.queues import Queues
from jobrunner.queue.results import JobReader
from jobrunner.queue.schedules import Schedules
from jobrunner.queue.shared_reads import SharedReads
from jobrunner.queue.sinks import CommitterSink
from jobrunner.store.protocol import Store
from jobrunner.tasks.spec import TaskSpec
from jobrunner.worker.events import Events


@dataclass(slots=True, eq=False)
class QueueParts:
    """The parts of one open runner, for its queues with and without a session."""

    store: Store
    committer: CommitterSink
    worker: LocalWorker
    events: Events
    reads: SharedReads
    """Reads the jobs that callers wait for."""
    tasks: Mapping[str, TaskSpec]
    """The tasks by stored name and by alias."""
    names: frozenset[str]
    """The names of the runner's queues."""
    reader: JobReader
    session_reader: JobReader
    """Reads jobs that may still be uncommitted."""
    queues: Queues
    dead_letters: DeadLetters
    schedules: Schedules
    audit: AuditLog
    limits: Limits
    opened_on: asyncio.AbstractEventLoop
    opened_in: int
    """The process that opened the runner; see ``forked.generation``."""
    notify: Callable[[], None]
    """Wakes the workers; may be called in any thread."""
    now_us: Callable[[], int] = now_us
    """The clock of new jobs; the system's beside a tester that has not taken over the runner."""
    session_advice: str | None = None
    """The error message for a plain ``Queue``, if the runner has a session to join."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop on which the runner is open; other threads call into it.

        Raises:
            NotRunning: This process was forked while the runner was open.
        """
        refuse_forked(self.opened_in)
        return self.opened_on

    async def failure(self) -> StoreError:
        """Wait until the worker has stopped for good, and return its error.

        The wait never ends if the worker does not fail.
        """
        await self.worker.has_failed.wait()
        assert self.worker.failed is not None  # noqa: S101 - set together
        return self.worker.failed
