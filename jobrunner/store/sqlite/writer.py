"""The one connection of this process that writes, one turn after another."""

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

from jobrunner.core.errors import StoreBusy
from jobrunner.store.sqlite.connection import Connection, keep_log, make_room_in_log, transact
from jobrunner.store.sqlite.host.turnstile import WriteLock

T = TypeVar("T")


class Writer:
    """Runs each function in one durable write transaction, in turn with the other processes on the file."""

    def __init__(self, connection: Connection, turns: WriteLock) -> None:
        self._connection = connection
        self.turns = turns

    @classmethod
    async def open(cls, path: Path, folder: Path, durability: str) -> Self:
        """Open the file for writing.

        Args:
            path: the database file.
            folder: where the processes take turns.
            durability: see ``Connection.open``.
        """
        turns = WriteLock(folder)
        try:
            connection = await Connection.open(path, durability=durability)
        except BaseException:
            turns.close()
            raise
        self = cls(connection, turns)
        try:
            await connection.run(self._in_turn, keep_log)
            await connection.run(self._in_turn, make_room_in_log, Path(f"{path}-wal"))
        except BaseException:
            await self.close()
            raise
        return self

    async def read(self, function: Callable[..., T], *args: Any) -> T:
        """Run ``function(connection, *args)`` without a transaction."""
        return await self._connection.run(function, *args)

    async def write(self, function: Callable[..., T], *args: Any) -> T:
        """Run ``function(connection, *args)`` in one transaction; it is durable when this returns."""
        return await self._connection.run(self._in_turn, transact, function, *args)

    async def exclusive(self, function: Callable[..., T], *args: Any) -> T:
        """Run ``function(connection, *args)`` in turn, for what SQLite refuses to do inside a transaction."""
        return await self._connection.run(self._in_turn, function, *args)

    def _in_turn(self, conn: sqlite3.Connection, function: Callable[..., T], *args: Any) -> T:
        self.turns.begin()
        try:
            return function(conn, *args)
        finally:
            self.turns.end()

    async def close(self) -> None:
        """Close the connection in turn: SQLite moves the log into the file when the last one closes."""
        try:
            await self._connection.run(lambda _: self._last_turn())
        finally:
            try:
                await self._connection.close()
            finally:
                self.turns.close()

    def _last_turn(self) -> None:
        # Without it, if it cannot be had: others go on, and the last of them moves the log.
        with contextlib.suppress(StoreBusy):
            self.turns.begin()
