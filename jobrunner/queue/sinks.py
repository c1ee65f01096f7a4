"""The two places where a queue stores jobs: a round of the committer, or the application's transaction."""

from collections.abc import Awaitable, Sequence
from typing import Final, Protocol

from jobrunner.core.forked import refuse_forked
from jobrunner.core.model import BatchEnqueue, Enqueue, Enqueued
from jobrunner.core.workflows import BatchEnqueued
from jobrunner.queue.local_worker import LocalWorker
from jobrunner.store.committer import ROWS_PER_CALL, Committer, too_many
from jobrunner.store.protocol import Store
from jobrunner.store.session_writer import SessionWriter


class Sink(Protocol):
    """A transaction in which jobs are stored."""

    @property
    def source(self) -> object:
        """The application's session; None in a round of the committer."""
        ...

    @property
    def blocking(self) -> bool:
        """True if ``store`` writes at once, in the calling thread."""
        ...

    def store(self, jobs: Sequence[Enqueue], now: int) -> Awaitable[Sequence[Enqueued]]:
        """Store jobs: all of them, or none."""
        ...

    def store_batch(self, batch: BatchEnqueue, now: int) -> Awaitable[BatchEnqueued]:
        """Store a batch: all of it, or nothing."""
        ...

    async def has_changes(self) -> bool:
        """Return whether the session has uncommitted changes."""
        ...


class CommitterSink:
    """Stores jobs in the committer's next round; they are on disk when the call returns."""

    source: Final = None
    blocking: Final = False

    def __init__(self, store: Store, committer: Committer) -> None:
        self._store = store
        self._committer = committer

    def store(self, jobs: Sequence[Enqueue], now: int) -> Awaitable[Sequence[Enqueued]]:
        """Pass jobs to the committer; see ``Committer.submit``.

        Raises:
            WouldDeadlock: The calling code holds a transaction that keeps the committer from writing.
        """
        self._store.refuse_wait("enqueue()")
        return self._committer.submit(jobs)

    def store_batch(self, batch: BatchEnqueue, now: int) -> Awaitable[BatchEnqueued]:
        """Pass a batch to the committer; see ``Committer.submit_batch``.

        Raises:
            WouldDeadlock: The calling code holds a transaction that keeps the committer from writing.
        """
        self._store.refuse_wait("enqueue_batch()")
        return self._committer.submit_batch(batch)

    async def has_changes(self) -> bool:
        """Return False: there is no session."""
        return False


class SessionSink:
    """Stores jobs in the transaction of the application's session.

    They are committed or rolled back with the session's rows.
    """

    __slots__ = ("_opened_in", "_worker", "_writer", "source")

    def __init__(
        self, writer: SessionWriter, source: object, worker: LocalWorker, opened_in: int
    ) -> None:
        """Store jobs through a session.

        Args:
            writer: Inserts the jobs.
            source: The application's session.
            worker: The worker of the process that opened the runner.
            opened_in: That process; see ``forked.generation``.
        """
        self.source = source
        self._writer = writer
        self._worker = worker
        self._opened_in = opened_in

    @property
    def blocking(self) -> bool:
        return self._writer.session.blocking

    def store(self, jobs: Sequence[Enqueue], now: int) -> Awaitable[Sequence[Enqueued]]:
        """Insert jobs through the session; see ``SessionWriter.insert``.

        Raises:
            NotRunning: This process was forked while the runner was open.
            InvalidOptions: There are more than 10,000 jobs.
            StoreError: The worker has stopped for good.
        """
        refuse_forked(self._opened_in)
        if len(jobs) > ROWS_PER_CALL:
            raise too_many(len(jobs))
        self._check_open()
        return self._writer.insert(jobs, now=now)

    def store_batch(self, batch: BatchEnqueue, now: int) -> Awaitable[BatchEnqueued]:
        """Insert a batch through the session; see ``SessionWriter.insert_batch``.

        Raises:
            NotRunning: This process was forked while the runner was open.
            StoreError: The worker has stopped for good.
        """
        self._check_open()
        return self._writer.insert_batch(batch, now=now)

    def _check_open(self) -> None:
        refuse_forked(self._opened_in)
        if self._worker.failed is not None:
            raise self._worker.failed

    async def has_changes(self) -> bool:
        return await self._writer.session.has_changes()
