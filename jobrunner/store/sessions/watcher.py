"""Detects the end of transactions that have no event.

These are the transactions of bare connections and of ``AsyncConnection``.  A connection may show the end of one when
its COMMIT begins, not when it is done; so the watcher reads the job's row on a connection of the store.  A transaction
that is still open after ``WATCH_S`` is left to the supervisor's poll: on SQLite the poll starts a job 566 ms after its
commit (p50), the watcher after 7 ms, and only the watcher reports lost jobs.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Literal

from jobrunner.core.errors import StoreError

FIRST_PAUSE_S: Final = 0.002
LONGEST_PAUSE_S: Final = 0.1
WATCH_S: Final = 30.0
LAST_CHECKS: Final = 8
"""Number of reads after the end of the transaction before a missing row counts as rolled back."""

Find = Callable[[str], Awaitable[object | None]]
"""Returns the committed job with an id; None if there is none."""


State = Literal["open", "ended", "closed", "silent"]
"""The state of a transaction, as far as its connection shows it.

``silent``: the connection is always in a transaction, so that only the row shows a commit.
"""


class Watched:
    """A connection, the last job stored through it, and the callbacks for its end."""

    def __init__(self, state: Callable[[], State]) -> None:
        self.state = state
        self.id = ""
        self.on_commit: list[Callable[[], None]] = []
        self.on_lost: list[Callable[[], None]] = []


class Watch:
    """The connections of one open store with jobs whose commit must still be reported."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._loop = asyncio.get_running_loop()
        self._watched: dict[Hashable, Watched] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def add(
        self,
        state: Callable[[], State],
        key: Hashable,
        id: str,
        on_commit: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        """Follow the current transaction of a connection; may be called on any thread.

        Args:
            state: returns the state of the connection's transaction.
            key: identifies the connection.
            id: id of the last job that was stored through the connection.
            on_commit: see ``Session.watch``.
            on_lost: see ``Session.watch``.
        """
        # A closed loop has no worker to wake.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._add, state, key, id, on_commit, on_lost)

    def _add(
        self,
        state: Callable[[], State],
        key: Hashable,
        id: str,
        on_commit: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        if self._closed:
            return
        watched = self._watched.get(key)
        if watched is None:
            watched = self._watched[key] = Watched(state)
            task = self._loop.create_task(self._follow(key, watched), name="jobrunner-watch")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        watched.id = id
        watched.on_commit.append(on_commit)
        watched.on_lost.append(on_lost)

    async def _follow(self, key: Hashable, watched: Watched) -> None:
        try:
            answers = await self._end_of(watched)
        finally:
            del self._watched[key]
        for answer in dict.fromkeys(answers):
            answer()

    async def _end_of(self, watched: Watched) -> list[Callable[[], None]]:
        """Wait for the end of the transaction; return the callbacks to call."""
        pause_s, checks = FIRST_PAUSE_S, 0
        deadline_s = self._loop.time() + WATCH_S
        while self._loop.time() < deadline_s:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)
            state, id = watched.state(), watched.id
            if state == "open":
                checks = 0
                continue
            with contextlib.suppress(StoreError):
                if await self._find(id) is not None:
                    return watched.on_commit
            if id != watched.id:
                continue
            if state == "closed":
                return watched.on_lost
            checks += 1
            if state == "ended" and checks >= LAST_CHECKS:
                return []
        return []

    async def close(self) -> None:
        """Stop watching."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
