"""Gives the parts of one store access to its open connections."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from jobrunner.core.errors import StoreUnavailable
from jobrunner.core.forked import generation, refuse_forked
from jobrunner.store.sqlite.readers import Readers
from jobrunner.store.sqlite.writer import Writer

T = TypeVar("T")


class Access:
    """Runs functions on the writer or the readers of an open store."""

    def __init__(self, path: Path, refuse_wait: Callable[[object], None]) -> None:
        """``refuse_wait`` raises if the calling code's own transaction blocks other writers."""
        self._path = path
        self.refuse_wait = refuse_wait
        self._opened_in = generation()
        self._writer: Writer | None = None
        self._readers: Readers | None = None

    def bind(self) -> None:
        """Record this process as the one that opens the store."""
        self._opened_in = generation()

    def use_writer(self, writer: Writer) -> None:
        """Write on this connection until ``close``."""
        self._writer = writer

    def use_readers(self, readers: Readers) -> None:
        """Read on these connections until ``close``."""
        self._readers = readers

    def holds_turnstile(self) -> bool:
        """Return whether other processes still use the same turnstile; True if the store is closed."""
        return self._writer is None or self._writer.write_lock.in_place()

    def check_process(self) -> None:
        """Raise in a process that was forked after the store was opened.

        Raises:
            NotRunning: This process was forked after the store was opened.
        """
        refuse_forked(self._opened_in)

    @property
    def writer(self) -> Writer:
        """The connection that writes.

        Raises:
            StoreUnavailable: The store is not open.
            NotRunning: See ``check_process``.
        """
        self.check_process()
        if self._writer is None:
            raise StoreUnavailable(f"{self._path} is not open")
        return self._writer

    @property
    def readers(self) -> Readers:
        """The connections that read; raises the same errors as ``writer``."""
        self.check_process()
        if self._readers is None:
            raise StoreUnavailable(f"{self._path} is not open")
        return self._readers

    async def write(self, function: Callable[..., T], *args: Any) -> T:
        """Run ``function(connection, *args)`` in one transaction; it is durable when this returns.

        Raises:
            WouldDeadlock: The calling code's own transaction blocks other writers.
        """
        self.refuse_wait(function)
        return await self.writer.write(function, *args)

    async def read(self, function: Callable[..., T], *args: Any) -> T:
        """Run ``function(connection, *args)``, which must end within a few milliseconds."""
        return await self.readers.read(function, *args)

    async def read_list(self, function: Callable[..., T], *args: Any) -> T:
        """Run ``function(connection, *args)`` on the connection for lists, after their queued steps."""
        return await self.readers.read_list(function, *args)

    def read_blocking(self, function: Callable[..., T], *args: Any) -> T:
        """Run ``function(connection, *args)`` in the calling thread, whichever it is."""
        return self.readers.read_blocking(function, *args)

    async def close(self) -> None:
        """Close the connections, readers first; running reads are interrupted."""
        if self._readers is not None:
            readers, self._readers = self._readers, None
            await readers.close()
        if self._writer is not None:
            writer, self._writer = self._writer, None
            await writer.close()
