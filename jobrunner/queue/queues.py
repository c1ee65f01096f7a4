"""The queues of an open runner: list, pause, resume."""

from collections.abc import Callable

from jobrunner.core.clock import now_us
from jobrunner.core.exports import exported
from jobrunner.core.job import QueueInfo
from jobrunner.queue.page import Page
from jobrunner.store.protocol import Store
from jobrunner.worker.health import queues_in
from jobrunner.worker.settings import unknown_queue


@exported
class Queues:
    """The names under which jobs wait; ``queue.queues``."""

    def __init__(self, store: Store, known: frozenset[str], *, wake: Callable[[], None]) -> None:
        self._store = store
        self._known = known
        self._wake = wake

    async def list(self) -> Page[QueueInfo]:
        """Return every queue that is served, paused, or holds jobs, by name, on one page.

        Counting stops at 10,000 jobs (of scheduled and blocked ones over all queues), or after some 10 ms; then a queue
        is not ``complete``.
        """
        return Page(await queues_in(self._store, self._known), None)

    async def pause(self, name: str) -> None:
        """Let no worker start jobs of the queue until ``resume``; running ones go on.

        Raises:
            UnknownQueue: the runner has no such queue.
        """
        self._check(name)
        await self._store.jobs.pause(name, now=now_us())

    async def resume(self, name: str) -> None:
        """Undo ``pause``; raises as it does."""
        self._check(name)
        await self._store.jobs.resume(name)
        self._wake()

    def _check(self, name: str) -> None:
        if name not in self._known:
            raise unknown_queue(name, "the name", self._known)
