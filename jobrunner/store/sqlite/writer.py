"""The one connection of this process that writes, behind the turnstile."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from jobrunner.store.sqlite.checkpoint import checkpoint
from jobrunner.store.sqlite.connection import Connection, keep_log, make_room_in_log, transact
from jobrunner.store.sqlite.posix import Turnstile

T = TypeVar("T")

TURNSTILE_TIMEOUT_S: Final = 5.0


class Writer:
    """Runs each function in one durable write transaction, in turn with the other processes on the file."""

    def __init__(self, connection: Connection, turnstile: Turnstile) -> None:
        self._connection = connection
        self._turnstile = turnstile

    @classmethod
    async def open(cls, path: Path, folder: Path, durability: str) -> Self:
        """Open the file for writing.

        Args:
            path: the database file.
            folder: where the turnstile stands.
            durability: see ``Connection.open``.
        """
        turnstile = Turnstile(folder)
        try:
            connection = await Connection.open(path, durability=durability)
        except BaseException:
            turnstile.close()
            raise
        self = cls(connection, turnstile)
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

    async def checkpoint(self) -> None:
        """Move the log into the file, as far as readers allow."""
        await self.exclusive(checkpoint)

    async def exclusive(self, function: Callable[..., T], *args: Any) -> T:
        """Run ``function(connection, *args)`` in turn, for what SQLite refuses to do inside a transaction."""
        return await self._connection.run(self._in_turn, function, *args)

    def _in_turn(self, conn: sqlite3.Connection, function: Callable[..., T], *args: Any) -> T:
        turnstile = self._turnstile
        turnstile.acquire(TURNSTILE_TIMEOUT_S)
        try:
            return function(conn, *args)
        finally:
            turnstile.release()

    def in_place(self) -> bool:
        """Return whether other processes still queue at the same turnstile."""
        return self._turnstile.in_place()

    async def close(self) -> None:
        """Close the connection in turn: SQLite moves the log into the file when the last one closes."""
        turnstile = self._turnstile
        try:
            await self._connection.run(lambda _: turnstile.try_acquire(TURNSTILE_TIMEOUT_S))
        finally:
            try:
                await self._connection.close()
            finally:
                turnstile.close()
