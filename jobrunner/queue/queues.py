"""Lists, pauses and resumes the queues of an open runner."""

from collections.abc import Callable

from jobrunner.core.clock import now_us
from jobrunner.core.exports import exported
from jobrunner.core.health import QueueInfo
from jobrunner.queue.page import Page
from jobrunner.store.protocol import Store
from jobrunner.worker.health import queues_in
from jobrunner.worker.settings import unknown_queue


@exported
class Queues:
    """Lists, pauses and resumes the queues of a runner.

    ::

        await jobs.queues.pause("mail")         # running jobs finish, no others start
        await jobs.queues.resume("mail")
    """

    def __init__(self, store: Store, known: frozenset[str], *, wake: Callable[[], None]) -> None:
        self._store = store
        self._known = known
        self._wake = wake

    async def list(self) -> Page[QueueInfo]:
        """Return all queues on one page, in the order of their names.

        They are the runner's queues, and others that are served, are paused or have jobs.

        Counting stops at 10,000 jobs per queue and state, or after about 10 ms. Scheduled and blocked jobs are counted
        to 10,000 over all queues. A queue that was not counted to its end has ``complete`` False.
        """
        return Page(await queues_in(self._store, self._known), None)

    async def pause(self, name: str) -> None:
        """Stop all workers from starting jobs of a queue, until ``resume``.

        Running jobs finish, and new jobs can be stored. The pause is stored, so it survives a restart.

        Raises:
            UnknownQueue: The runner does not have the queue.
        """
        self._check(name)
        await self._store.jobs.pause(name, now=now_us())

    async def resume(self, name: str) -> None:
        """Let workers start jobs of a paused queue again.

        Raises:
            UnknownQueue: The runner does not have the queue.
        """
        self._check(name)
        await self._store.jobs.resume(name)
        self._wake()

    def _check(self, name: str) -> None:
        if name not in self._known:
            raise unknown_queue(name, "the name", self._known)
