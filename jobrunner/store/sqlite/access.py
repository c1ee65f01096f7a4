"""The open connections of one store, as each part of it uses them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from jobrunner.core.errors import StoreUnavailable
from jobrunner.core.forked import generation, refuse_forked
from jobrunner.store.sqlite.readers import Readers
from jobrunner.store.sqlite.writer import Writer

T = TypeVar("T")


class Access:
    """Runs functions on the writer or the readers while the store is open in this process."""

    def __init__(self, path: Path, refuse_wait: Callable[[object], None]) -> None:
        """``refuse_wait`` raises if the calling code's own transaction keeps others from writing."""
        self._path = path
        self._refuse_wait = refuse_wait
        self._opened_in = generation()
        self._writer: Writer | None = None
        self._readers: Readers | None = None

    def bind(self) -> None:
        """Bind to this process, which opens the store."""
        self._opened_in = generation()

    def use_writer(self, writer: Writer) -> None:
        """Write on this connection until ``close``."""
        self._writer = writer

    def use_readers(self, readers: Readers) -> None:
        """Read on these connections until ``close``."""
        self._readers = readers

    def holds_turnstile(self) -> bool:
        """Return whether other processes still find the turnstile that this one goes through; True if it is closed."""
        return self._writer is None or self._writer.write_lock.in_place()

    def check_process(self) -> None:
        """Refuse a process that was forked after the store was opened.

        Raises:
            NotRunning: this process is such a one.
        """
        refuse_forked(self._opened_in)

    @property
    def writer(self) -> Writer:
        """The connection that writes.

        Raises:
            StoreUnavailable: the store is not open.
        """
        self.check_process()
        if self._writer is None:
            raise StoreUnavailable(f"{self._path} is not open")
        return self._writer

    @property
    def readers(self) -> Readers:
        """The connections that read; raises as ``writer``."""
        self.check_process()
        if self._readers is None:
            raise StoreUnavailable(f"{self._path} is not open")
        return self._readers

    async def write(self, function: Callable[..., T], *args: Any) -> T:
        """Run ``function(connection, *args)`` in one transaction; it is durable when this returns.

        Raises:
            WouldDeadlock: the calling code's own transaction keeps others from writing.
        """
        self._refuse_wait(function)
        return await self.writer.write(function, *args)

    async def read(self, function: Callable[..., T], *args: Any) -> T:
        """Run ``function(connection, *args)``, which must take some milliseconds at most."""
        return await self.readers.read(function, *args)

    async def read_list(self, function: Callable[..., T], *args: Any) -> T:
        """Run ``function(connection, *args)`` behind the steps of lists that are under way."""
        return await self.readers.read_list(function, *args)

    async def close(self) -> None:
        """Close the connections, the readers first; reads that are under way are cut short."""
        if self._readers is not None:
            readers, self._readers = self._readers, None
            await readers.close()
        if self._writer is not None:
            writer, self._writer = self._writer, None
            await writer.close()
