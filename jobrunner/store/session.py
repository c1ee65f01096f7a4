"""The contract for a session of the application, in whose transaction jobs are stored."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from jobrunner.core.model import Enqueue, Enqueued, Outcome


class Session(Protocol):
    """A session of the application, of any kind: jobs can be part of its transaction.

    What is written through it is committed or rolled back with the application's rows, all of one call or nothing.
    Errors of the store are ``StoreError`` as elsewhere; what the application's own rows meet in ``commit`` passes as it
    is.
    """

    source: Any
    """What the application holds."""
    blocking: bool
    """Whether the methods do their work at once in the calling thread, and never wait for a loop."""

    async def has_changes(self) -> bool:
        """Return whether anything in it is neither committed nor rolled back."""
        ...

    async def begin(self) -> None:
        """Begin a write transaction; other writers wait until it ends.

        Raises:
            InvalidSession: it is in a transaction already.
            StoreBusy: somebody else writes for too long.
        """
        ...

    async def enqueue(self, jobs: Sequence[Enqueue], *, now: int) -> list[Enqueued]:
        """Store jobs in its transaction, all or none, in the order given; it begins one if there is none.

        A key that an unfinished job holds is answered with that job, as by ``Store.write``. A caller that is cancelled
        has not undone it: all of them are in the transaction, or none.

        Raises:
            InvalidSession: it cannot carry jobs as it stands; the message says what to write.
        """
        ...

    async def has_committed(self) -> bool:
        """Return whether its holder has committed something through it, as far as that can be known."""
        ...

    async def settle(self, outcome: Outcome, *, now: int) -> bool:
        """Write how an attempt ended in its transaction; return False if the attempt is no longer the worker's."""
        ...

    async def commit(self) -> None:
        """Commit through the application's own session; a caller that is cancelled meanwhile is so afterwards.

        So after a ``CancelledError`` the transaction has been committed; after any other error it has not.
        """
        ...

    async def rollback(self) -> None:
        """Roll back through the application's own session."""
        ...

    def watch(self, on_commit: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """Watch the present transaction.

        Args:
            on_commit: called soon after it has been committed, never before others see its rows; on any thread.
            on_lost: called if it ends with neither commit nor rollback, where that can be known; also if it was closed
                too soon after a rollback for that to be seen.
        """
        ...
