"""Owns this process's read connections: single rows, lists, and one per backup.

Reads on one connection wait for each other.  So the reads that must be quick (recovery, cancels, health, a job by its
id) never share a connection with a list, and a list lets the next one run after each of its steps.
"""

import asyncio
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, Self, TypeVar

from jobrunner.store.job_protocol import Count
from jobrunner.store.sqlite.blocking_reader import BlockingReader
from jobrunner.store.sqlite.connection import LISTS_CACHE_KIB, Connection, read_snapshot
from jobrunner.store.sqlite.maintenance import backup
from jobrunner.store.sqlite.sql.walks import EVERYTHING, Position, Step

T = TypeVar("T")

PAGE_S: Final = 0.1
"""After this time a page ends with the rows found so far and the cursor of the next page."""
PLANNED_ROWS: Final = 1_000
"""Maximum number of jobs or dead letters that a plan reads at once."""


class Found(NamedTuple):
    """One page of a walk."""

    rows: list[tuple[Any, ...]]
    """Rows, each preceded by its key."""
    next: int | None
    """The cursor: the next page has the rows with a smaller key; None at the end."""
    complete: bool
    """True if the page is full or is the last one."""


class Readers:
    """The open read connections; each callable runs in one read transaction."""

    def __init__(self, path: Path, single: Connection, lists: Connection) -> None:
        self._path = path
        self._single = single
        self._lists = lists
        self._blocking = BlockingReader(path)
        self._backups: dict[threading.Event, asyncio.Event] = {}
        """Running backups: the event that cancels each, and the event set at its end."""

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Open both connections; on an error neither stays open."""
        single = await Connection.open(path, read_only=True)
        try:
            lists = await Connection.open(path, read_only=True, cache_kib=LISTS_CACHE_KIB)
        except BaseException:
            await single.close()
            raise
        return cls(path, single, lists)

    def read_blocking(self, function: Callable[..., T], *args: Any) -> T:
        """Run ``function(connection, *args)`` in the calling thread, whichever it is."""
        return self._blocking.read(function, *args)

    async def close(self) -> None:
        """Close the connections; running reads and backups are interrupted."""
        backups = dict(self._backups)
        for broken_off in backups:
            broken_off.set()
        self._blocking.close()
        # Concurrently: all are interrupted at once before any is awaited.
        await asyncio.gather(
            self._lists.close(), self._single.close(), *(ended.wait() for ended in backups.values())
        )

    async def read(self, function: Callable[..., T], *args: Any) -> T:
        """Run ``function(connection, *args)``, which must end within a few milliseconds."""
        return await self._single.run(read_snapshot, function, *args)

    async def read_list(self, function: Callable[..., T], *args: Any) -> T:
        """Run ``function(connection, *args)`` on the connection for lists, after their queued steps."""
        return await self._lists.run(read_snapshot, function, *args)

    async def page(
        self,
        step: Callable[..., Step],
        *args: Any,
        before: int | None,
        limit: int,
        room: int = EVERYTHING,
    ) -> Found:
        """Walk until the page is full, its time is up, or the rows end.

        Args:
            step: ``step(connection, *args, position, limit, room)`` runs one step of the walk.
            args: arguments of ``step``, such as the filter.
            before: the cursor of the previous page; None begins at the newest row.
            limit: maximum number of rows on the page.
            room: characters of text on the page; the row that exceeds it is the last.
        """
        is_over = self.timer(PAGE_S)
        position = None if before is None else Position(before)
        found: list[tuple[Any, ...]] = []
        while True:
            # One row more than the limit shows that there is a next page.
            done = await self.read_list(step, *args, position, limit + 1 - len(found), room)
            found += done.rows
            room -= done.size
            position = done.position
            if len(found) > limit:
                return Found(found[:limit], found[limit - 1][0], complete=True)
            if position is None:
                return Found(found, None, complete=True)
            if room <= 0 or is_over():
                return Found(found, position.before, complete=len(found) == limit)

    async def count(
        self,
        step: Callable[..., tuple[int, Position | None]],
        *args: Any,
        cap: int,
        seconds: float | None,
    ) -> Count:
        """Count in steps, up to ``cap`` and until the time is up."""
        is_over = self.timer(seconds)
        number, position = 0, None
        while True:
            more, position = await self.read_list(step, *args, position, cap - number)
            number += more
            if position is None or is_over():
                return Count(number, position is None and number < cap)

    @staticmethod
    def timer(seconds: float | None) -> Callable[[], bool]:
        """Return a function that returns whether so many seconds have passed; None never ends."""
        loop = asyncio.get_running_loop()
        end_s = math.inf if seconds is None else loop.time() + seconds
        return lambda: loop.time() >= end_s

    async def backup(self, destination: Path, on_progress: Callable[[int, int], None]) -> None:
        """Write a copy on a separate connection; see ``backup.backup``.

        A cancel, or ``close``, also stops the copy on its thread, after its current step.
        """
        broken_off, ended = threading.Event(), asyncio.Event()

        def report(done: int, total: int) -> None:
            if broken_off.is_set():
                raise InterruptedError("the copy was broken off")
            on_progress(done, total)

        connection = await Connection.open(self._path, read_only=True)
        self._backups[broken_off] = ended
        try:
            await connection.run(backup.backup, self._path, destination, report)
        except asyncio.CancelledError:
            broken_off.set()
            raise
        finally:
            try:
                await connection.close()
            finally:
                del self._backups[broken_off]
                ended.set()
