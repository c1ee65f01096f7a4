"""The connections of this process that only read: one for single rows, one for lists, and one for each backup.

What is asked on one connection waits for what was asked before.  So nothing that keeps a promise (recovery, cancels,
health, a job by its id) shares a connection with a list, and a list gives way to the next one after each step.
"""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, Self, TypeVar

from jobrunner.store.sqlite.connection import Connection, look
from jobrunner.store.sqlite.maintenance import backup
from jobrunner.store.sqlite.sql.walks import EVERYTHING, Position, Step

T = TypeVar("T")

PAGE_S: Final = 0.1
"""After so long a page ends with the rows found, and says where the next one begins."""
LISTS_CACHE_KIB: Final = 2_048
"""A list reads most pages once; what it reads again and again are the few upper ones of the tree."""


class Found(NamedTuple):
    """One page of a walk."""

    rows: list[tuple[Any, ...]]
    """Each with its key in front."""
    next: int | None
    """The key before which the next page begins; None at the end."""
    complete: bool
    """Whether the page is full, or the last."""


class Readers:
    """The open connections; each callable runs in one read transaction."""

    def __init__(self, path: Path, single: Connection, lists: Connection) -> None:
        self._path = path
        self._single = single
        self._lists = lists
        self._backups: dict[threading.Event, asyncio.Event] = {}
        """Of each that is under way: what breaks it off, and what tells its end."""

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

    async def close(self) -> None:
        """Close the connections; a read that is under way is cut short."""
        backups = dict(self._backups)
        for broken_off in backups:
            broken_off.set()
        # Together: each is cut short at once, and waited for afterwards.
        await asyncio.gather(
            self._lists.close(), self._single.close(), *(ended.wait() for ended in backups.values())
        )

    async def read(self, function: Callable[..., T], *args: Any) -> T:
        """Run ``function(connection, *args)``, which must take some milliseconds at most."""
        return await self._single.run(look, function, *args)

    async def read_list(self, function: Callable[..., T], *args: Any) -> T:
        """Run ``function(connection, *args)`` behind the steps of lists that are under way."""
        return await self._lists.run(look, function, *args)

    async def page(
        self,
        step: Callable[..., Step],
        *args: Any,
        before: int | None,
        limit: int,
        room: int = EVERYTHING,
    ) -> Found:
        """Walk until a page is full, its time is up, or the rows end.

        Args:
            step: ``step(connection, *args, position, limit, room)`` walks on for a step.
            args: what it means.
            before: the key that a page before stopped at; None begins at the newest row.
            limit: rows on the page, at most.
            room: letters of text on the page; at most one row more than fit.
        """
        loop = asyncio.get_running_loop()
        end_s = loop.time() + PAGE_S
        position = None if before is None else Position(before)
        found: list[tuple[Any, ...]] = []
        while True:
            # One more than wanted tells whether there is a page after.
            done = await self.read_list(step, *args, position, limit + 1 - len(found), room)
            found += done.rows
            room -= done.size
            position = done.position
            if len(found) > limit:
                return Found(found[:limit], found[limit - 1][0], complete=True)
            if position is None:
                return Found(found, None, complete=True)
            if room <= 0 or loop.time() >= end_s:
                return Found(found, position.before, complete=len(found) == limit)

    async def count(
        self, step: Callable[..., tuple[int, Position | None]], *args: Any, cap: int
    ) -> int:
        """Count to the end, or to ``cap``, step by step."""
        number, position = 0, None
        while True:
            more, position = await self.read_list(step, *args, position, cap - number)
            number += more
            if position is None:
                return number

    async def backup(self, destination: Path, on_progress: Callable[[int, int], None]) -> None:
        """Write a copy on a separate connection; see ``backup.backup``.

        Cancelling it ends it on its thread too, after the step that it is at; so does ``close``.
        """
        broken_off, ended = threading.Event(), asyncio.Event()

        def tell(done: int, total: int) -> None:
            if broken_off.is_set():
                raise InterruptedError("the copy was broken off")
            on_progress(done, total)

        connection = await Connection.open(self._path, read_only=True)
        self._backups[broken_off] = ended
        try:
            await connection.run(backup.backup, self._path, destination, tell)
        except asyncio.CancelledError:
            broken_off.set()
            raise
        finally:
            try:
                await connection.close()
            finally:
                del self._backups[broken_off]
                ended.set()
