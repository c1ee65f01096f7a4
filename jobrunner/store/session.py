"""Defines the contract of an application session that stores jobs in its transaction."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from jobrunner.core.model import BatchEnqueue, Enqueue, Enqueued, Memo, Outcome
from jobrunner.core.workflows import BatchEnqueued


class Session(Protocol):
    """A session of the application whose transaction can contain jobs.

    Everything written through it is committed or rolled back with the application's rows; each call stores everything
    or nothing. Errors of the store are ``StoreError`` as elsewhere; an error that the application's own rows cause in
    ``commit`` is raised unchanged.
    """

    source: Any
    """The application's own session or connection object."""
    blocking: bool
    """True if the methods work in the calling thread and never wait for a loop."""

    async def has_changes(self) -> bool:
        """Return whether the session has changes that are neither committed nor rolled back."""
        ...

    async def begin(self) -> None:
        """Begin a write transaction; other writers wait until it ends.

        Raises:
            InvalidSession: The session is in a transaction already.
            StoreBusy: Another writer holds the write lock for too long.
        """
        ...

    async def insert(self, jobs: Sequence[Enqueue], *, now: int) -> list[Enqueued]:
        """Store jobs in the session's transaction, all or none, in the order given.

        Begins a transaction if there is none. If an unfinished job holds a key, that job is returned, as by
        ``Store.write``. Cancelling the caller does not split the jobs: all of them are in the transaction, or none.

        Raises:
            InvalidSession: The session cannot store jobs in its present state; the message says what to write.
        """
        ...

    async def insert_batch(self, request: BatchEnqueue, *, now: int) -> BatchEnqueued:
        """Store a batch in the session's transaction, as ``insert`` stores jobs.

        Raises:
            BatchEnded, KeyTaken, InvalidBatch: As in ``Store.write``.
            InvalidSession: As in ``insert``.
        """
        ...

    async def has_committed(self) -> bool:
        """Return whether the application has committed through this session, as far as known."""
        ...

    async def settle(self, outcome: Outcome, *, now: int) -> bool:
        """Write an outcome in the session's transaction; return False if the fence refuses it."""
        ...

    async def keep(self, memo: Memo, *, now: int) -> bool:
        """Store a memo in the session's transaction.

        Returns:
            False if the fence refuses it, or such a memo is there.
        """
        ...

    async def commit(self) -> None:
        """Commit through the application's session; a cancel takes effect after the commit.

        So the transaction is committed after a ``CancelledError``; after any other error it is not.
        """
        ...

    async def rollback(self) -> None:
        """Roll back through the application's session."""
        ...

    def watch(self, on_commit: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """Watch the current transaction until it ends.

        Args:
            on_commit: called soon after the commit, on any thread, never before others see the rows.
            on_lost: called if the transaction is known to have ended with neither commit nor rollback; also if the
                connection was closed too soon after a rollback to detect it.
        """
        ...
