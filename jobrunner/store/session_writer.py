"""Stores jobs in the application's own transaction and wakes the worker after its commit."""

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from jobrunner.core.errors import WrongThread
from jobrunner.core.logs import log_of
from jobrunner.core.model import BatchEnqueue, Enqueue, Enqueued
from jobrunner.core.workflows import BatchEnqueued
from jobrunner.store.session import Session

logger = log_of("jobrunner")

T = TypeVar("T")


@dataclass(slots=True)
class Caller:
    """The request that a session belongs to."""

    name: str
    """For example ``POST /register``."""
    has_raised: bool = False
    """True if the request ended with an error, so that a missing commit is expected."""


class SessionWriter:
    """Stores jobs through one session."""

    def __init__(
        self,
        session: Session,
        *,
        loop: asyncio.AbstractEventLoop,
        notify: Callable[[], None],
        caller: Caller | None,
    ) -> None:
        """Bind to a session.

        Args:
            session: stores the jobs.
            loop: the loop that the runner is open on.
            notify: called on any thread after the commit, once others can see the jobs; see ``call_on``.
            caller: the request that the session belongs to; None outside a request.
        """
        self.session = session
        self._loop = loop
        self._notify = notify
        self._caller = caller

    async def insert(self, jobs: Sequence[Enqueue], *, now: int) -> list[Enqueued]:
        """Insert jobs in the session's transaction; see ``Session.insert``.

        Raises:
            WrongThread: The session belongs to another event loop than the running one.
        """
        if not jobs:
            return []
        return await self._insert(
            jobs,
            lambda: self.session.insert(jobs, now=now),
            lambda stored: any(job.created for job in stored),
        )

    async def insert_batch(self, batch: BatchEnqueue, *, now: int) -> BatchEnqueued:
        """Insert a batch in the session's transaction; see ``Session.insert_batch``.

        Raises:
            WrongThread: The session belongs to another event loop than the running one.
        """
        return await self._insert(
            [*batch.members, *batch.callbacks],
            lambda: self.session.insert_batch(batch, now=now),
            lambda _: True,
        )

    async def _insert(
        self,
        jobs: Sequence[Enqueue],
        insert: Callable[[], Awaitable[T]],
        has_inserted: Callable[[T], bool],
    ) -> T:
        """Insert, and watch the transaction if there is something in it to lose."""
        session = self.session
        if not session.blocking and asyncio.get_running_loop() is not self._loop:
            raise WrongThread(
                "an async session belongs to the event loop that its runner is open on, and this is another one; in a"
                " thread use a Session of SQLAlchemy, or a blocking connection of that thread"
            )
        lost = partial(self._lost, sorted({job.task for job in jobs}), len(jobs))
        try:
            stored = await insert()
        except asyncio.CancelledError:
            # The rows may be in the transaction all the same, and the caller may still commit it.
            session.watch(self._notify, lost)
            raise
        if has_inserted(stored):
            session.watch(self._notify, lost)
        return stored

    def _lost(self, tasks: Sequence[str], count: int) -> None:
        if (self._caller is not None and self._caller.has_raised) or sys.exc_info()[0] is not None:
            return
        logger.error(
            "%s: the session ended without a commit of the %d job(s) that had been enqueued through it (%s): they are"
            " not stored. Commit after the last enqueue: `await session.commit()` (this is also logged for a bare"
            " connection that is closed right after its rollback, since the two cases cannot be distinguished)",
            "outside a request" if self._caller is None else self._caller.name,
            count,
            ", ".join(tasks),
        )


def call_on(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> Callable[[], None]:
    """Return a thread-safe function that calls ``function`` on the loop."""

    def call() -> None:
        if asyncio._get_running_loop() is loop:  # noqa: SLF001 - as get_running_loop(), without an error to catch
            function()
            return
        # A closed loop has no worker to wake.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(function)

    return call
