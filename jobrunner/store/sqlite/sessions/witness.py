"""Notices commits on a file that no code of the kit has announced."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Self


class Witness:
    """Compares the file's version with the one after the last announced commit.

    An unannounced commit that falls into the time of an announced one is not noticed.
    """

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self._lock = threading.Lock()
        self._announced = 0
        """The number of commits that may happen now."""
        self._one_more = False
        self._version = self._read()
        self._found = False

    @classmethod
    @contextmanager
    def of(cls, path: Path) -> Iterator[Self]:
        """Watch a file inside the block."""
        with closing(sqlite3.connect(path, check_same_thread=False, isolation_level=None)) as conn:
            witness = cls(conn)
            yield witness

    def _read(self) -> int:
        # Other connections' commits change it. Source: sqlite.org/pragma.html#pragma_data_version
        (version,) = self._conn.execute("PRAGMA data_version").fetchone()
        return int(version)

    def has_found(self) -> bool:
        """Return whether there was an unannounced commit until now."""
        with self._lock:
            self._look()
        return self._found

    def _look(self) -> None:
        if not self._announced:
            before, self._version = self._version, self._read()
            if before != self._version:
                self._found = self._found or not self._one_more
                self._one_more = False

    def expect_one(self) -> None:
        """Expect one commit at any later time."""
        self._one_more = True

    @contextmanager
    def announced(self) -> Iterator[None]:
        """Expect commits inside the block."""
        with self._lock:
            self._look()
            self._announced += 1
        try:
            yield
        finally:
            with self._lock:
                self._announced -= 1
                self._version = self._read()
