"""Wakes the code that waits for a job, here and in other processes."""

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Final

from jobrunner.core.clock import now_us
from jobrunner.store.protocol import Store
from jobrunner.worker.chores import Period

BEAT_S: Final = 20.0
"""The time between two beats of a process that watches jobs; see ``WorkerStore.watched``."""


class Waiters:
    """Futures of the callers that wait for something about a job, by its id."""

    def __init__(self) -> None:
        self._futures: dict[str, set[asyncio.Future[None]]] = {}

    def __bool__(self) -> bool:
        return bool(self._futures)

    def ids(self) -> frozenset[str]:
        """Return the jobs that somebody waits for."""
        return frozenset(self._futures)

    def wait_for(self, id: str) -> asyncio.Future[None]:
        """Return a future that the next ``wake`` of the job resolves."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(id, set()).add(waiter)
        waiter.add_done_callback(lambda done: self._forget(id, done))
        return waiter

    def wake(self, id: str) -> None:
        """Resolve the futures of a job."""
        for waiter in self._futures.pop(id, ()):
            if not waiter.done():
                waiter.set_result(None)

    def wake_all(self) -> None:
        """Resolve all futures."""
        for id in list(self._futures):
            self.wake(id)

    def _forget(self, id: str, waiter: asyncio.Future[None]) -> None:
        waiters = self._futures.get(id)
        if waiters is not None:
            waiters.discard(waiter)
            if not waiters:
                del self._futures[id]


class Watches:
    """The jobs whose changes are watched: in this process, and in others as last read.

    Args:
        notify_others: Called with jobs that have changed and that other processes watch.
    """

    def __init__(self, notify_others: Callable[[Collection[str]], None]) -> None:
        self.here = Waiters()
        self.elsewhere: Collection[str] = frozenset()
        self.ended = False
        """True once the process shuts down: no change is waited for any more."""
        self._notify_others = notify_others
        self._changed: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self.here._futures or self.elsewhere)  # noqa: SLF001 - asked for every job

    def change_of(self, id: str) -> asyncio.Future[None]:
        """Return a future that the job's next change or the shutdown resolves."""
        change = self.here.wait_for(id)
        if self.ended:
            self.here.wake(id)
        return change

    def changed(self, ids: Iterable[str]) -> None:
        """Wake those that watch one of the jobs; other processes once for all changes of a round."""
        for id in ids:
            self.here.wake(id)
            if id in self.elsewhere:
                if not self._changed:
                    asyncio.get_running_loop().call_soon(self._notify)
                self._changed.add(id)

    def _notify(self) -> None:
        changed, self._changed = self._changed, set()
        self._notify_others(changed)

    def end(self) -> None:
        """Let all that watch jobs end, since the process shuts down."""
        self.ended = True
        self.here.wake_all()


class WatchExchange:
    """Exchanges with other processes which jobs each of them watches."""

    def __init__(self, store: Store, watcher: int, watches: Watches) -> None:
        self._store = store
        self._watcher = watcher
        self._watches = watches
        self._published: frozenset[str] = frozenset()
        self._beat = Period(BEAT_S)

    async def publish(self) -> None:
        """Store the jobs that this process watches, if they have changed."""
        jobs = self._watches.here.ids()
        if not (jobs or self._published):
            return
        due = self._beat.begin()
        if jobs == self._published and not due:
            return
        await self._store.workers.watch(
            self._watcher, jobs, self._watches.here.wake_all, now=now_us()
        )
        if jobs - self._published:
            self._store.workers.notify()
        self._published = jobs

    async def leave(self) -> None:
        """Delete what ``publish`` has stored."""
        if self._published:
            await self._store.workers.watch(self._watcher, (), _nothing, now=now_us())

    async def read(self) -> None:
        """Read which jobs other processes watch."""
        self._watches.elsewhere = await self._store.workers.watched(self._watcher, now=now_us())


def _nothing() -> None:
    """Ignore a change, because the process shuts down."""
