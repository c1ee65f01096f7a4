"""Reads on a separate connection, in the calling thread."""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from jobrunner.core.errors import StoreUnavailable
from jobrunner.store.sqlite.connection import read_only, read_snapshot
from jobrunner.store.sqlite.driver_errors import raise_as_ours

T = TypeVar("T")


class BlockingReader:
    """A read connection for callers without an event loop; they wait for each other.

    It is opened by the first of them, since most applications have none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._closed = False

    def read(self, function: Callable[..., T], *args: Any) -> T:
        """Run ``function(connection, *args)`` in one read transaction.

        Raises:
            StoreError: The driver raised an error, or the store is closed.
        """
        with self._lock:
            if self._closed:
                raise StoreUnavailable(f"{self._path} is not open any more")
            try:
                if self._connection is None:
                    self._connection = read_only(self._path)
                return read_snapshot(self._connection, function, *args)
            except sqlite3.Error as error:
                raise_as_ours(error, self._path)

    def close(self) -> None:
        """Close the connection; wait for a running read, which takes milliseconds."""
        with self._lock:
            self._closed = True
            if self._connection is not None:
                self._connection.close()
                self._connection = None
