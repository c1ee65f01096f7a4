"""Owns the one connection of this process that writes."""

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
    """Runs functions on the write connection, under the write lock of the file."""

    def __init__(self, connection: Connection, write_lock: WriteLock) -> None:
        self._connection = connection
        self.write_lock = write_lock

    @classmethod
    async def open(cls, path: Path, folder: Path, durability: str) -> Self:
        """Open the file for writing.

        Args:
            path: the database file.
            folder: the folder of the locks.
            durability: see ``Connection.open``.
        """
        write_lock = WriteLock(folder)
        try:
            connection = await Connection.open(path, durability=durability)
        except BaseException:
            write_lock.close()
            raise
        self = cls(connection, write_lock)
        try:
            log = None if durability == "off" else Path(f"{path}-wal")
            await connection.run(self._locked, _prepare_log, log)
        except BaseException:
            await self.close()
            raise
        return self

    async def read(self, function: Callable[..., T], *args: Any) -> T:
        """Run ``function(connection, *args)`` without a transaction."""
        return await self._connection.run(function, *args)

    async def write(self, function: Callable[..., T], *args: Any) -> T:
        """Run ``function(connection, *args)`` in one transaction; it is durable when this returns."""
        return await self._connection.run(self._locked, transact, function, *args)

    async def exclusive(self, function: Callable[..., T], *args: Any) -> T:
        """Run ``function(connection, *args)`` under the write lock, outside any transaction."""
        return await self._connection.run(self._locked, function, *args)

    def _locked(self, conn: sqlite3.Connection, function: Callable[..., T], *args: Any) -> T:
        self.write_lock.acquire()
        try:
            return function(conn, *args)
        finally:
            self.write_lock.release()

    async def close(self) -> None:
        """Close the connection, under the write lock unless waiting for it times out.

        SQLite moves the log into the file when the last connection closes.
        """
        try:
            await self._connection.run(lambda _: self._acquire_if_free())
        finally:
            try:
                await self._connection.close()
            finally:
                self.write_lock.close()

    def _acquire_if_free(self) -> None:
        # On a timeout, close without the lock: then other connections are open, and the last of them moves the log.
        with contextlib.suppress(StoreBusy):
            self.write_lock.acquire()


def _prepare_log(conn: sqlite3.Connection, log: Path | None) -> None:
    """Keep the log between connections; make room in it, unless it is None."""
    keep_log(conn)
    if log is not None:
        make_room_in_log(conn, log)
