"""Notices the end of transactions that no event announces: of bare connections and ``AsyncConnection``.

``in_transaction`` turns false when the COMMIT begins, not when it is done; so the row itself is asked for, by a
connection of the store's own.  A transaction that takes very long is left to the supervisor's poll, which starts a job
566 ms after its commit (p50) where the watcher does so after 7, and which knows nothing of jobs that were lost.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Literal

from jobrunner.core.errors import StoreError

FIRST_PAUSE_S: Final = 0.002
LONGEST_PAUSE_S: Final = 0.1
WATCH_S: Final = 30.0
LAST_LOOKS: Final = 8
"""How often a row that is not there yet is asked for after the transaction has ended."""

Find = Callable[[str], Awaitable[object | None]]
"""Returns the job of an id as others see it, None if they see none."""


_State = Literal["open", "ended", "closed", "silent"]
"""``silent``: always in a transaction (``autocommit=False``), so that only the row tells of an end."""


class Watched:
    """One connection, the last job that was stored through it, and the calls for its end."""

    def __init__(self, raw: Callable[[], sqlite3.Connection | None]) -> None:
        self.raw = raw
        self.id = ""
        self.on_commit: list[Callable[[], None]] = []
        self.on_lost: list[Callable[[], None]] = []

    def state(self) -> "_State":
        """Return how the transaction stands, as far as the connection tells."""
        conn = self.raw()
        try:
            if conn is None:
                return "closed"
            if _has_no_end(conn):
                return "silent"
            return "open" if conn.in_transaction else "ended"
        except sqlite3.ProgrammingError:
            return "closed"


def _has_no_end(conn: sqlite3.Connection) -> bool:
    """Return whether the connection is always in a transaction, as far as it may be asked."""
    try:
        return getattr(conn, "autocommit", -1) is False
    except sqlite3.ProgrammingError as error:
        # Unlike `in_transaction`, this is answered on the connection's own thread alone; aiosqlite's is another.
        if "thread" in str(error):
            return False
        raise


class Watch:
    """The connections of one open store that have jobs whose commit is still to be reported."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._loop = asyncio.get_running_loop()
        self._watched: dict[Hashable, Watched] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def add(
        self,
        raw: Callable[[], sqlite3.Connection | None],
        key: Hashable,
        id: str,
        on_commit: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        """Follow the present transaction of a connection; may be called on any thread.

        Args:
            raw: returns the connection, None once it is closed.
            key: of the connection among those that are watched.
            id: of the job that was stored last.
            on_commit: see ``Session.watch``.
            on_lost: the same.
        """
        # A loop that is closed has no worker to wake.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._add, raw, key, id, on_commit, on_lost)

    def _add(
        self,
        raw: Callable[[], sqlite3.Connection | None],
        key: Hashable,
        id: str,
        on_commit: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        if self._closed:
            return
        watched = self._watched.get(key)
        if watched is None:
            watched = self._watched[key] = Watched(raw)
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
        """Wait for the end of the transaction; return the calls that report it."""
        pause_s, looks = FIRST_PAUSE_S, 0
        deadline_s = self._loop.time() + WATCH_S
        while self._loop.time() < deadline_s:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)
            state, id = watched.state(), watched.id
            if state == "open":
                looks = 0
                continue
            with contextlib.suppress(StoreError):
                if await self._find(id) is not None:
                    return watched.on_commit
            if id != watched.id:
                continue
            if state == "closed":
                return watched.on_lost
            looks += 1
            if state == "ended" and looks >= LAST_LOOKS:
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
