"""The transactions that attached engines have begun in the present context: nothing may wait for them there.

SQLite has one writer, and a session that has written and is not committed is the one.  A write of the store's own that
is asked for by the code which holds the session would wait until its time is out, and everybody else with it.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jobrunner.store.sqlite.host.identity import FileIdentity


class OpenTransaction:
    """One transaction on a driver's connection."""

    __slots__ = ("changes", "database", "driver", "over")

    def __init__(self, driver: Any, database: str) -> None:
        self.driver = driver
        self.database = database
        self.changes: int = driver.total_changes
        """Rows that the connection had changed when it began: one that has read alone has no more."""
        self.over = False
        """Its connection, which is used again and again, is back in its pool, closed, or has begun another one."""

    def has_changed(self) -> bool:
        """Return whether it is open and has changed rows, so that it holds SQLite's write lock."""
        return bool(self.driver.in_transaction and self.driver.total_changes != self.changes)

    def writes_to(self, file: FileIdentity) -> bool:
        """Return whether it is open and has written to the file."""
        if self.over:
            return False
        try:
            return self.has_changed() and file.is_at(self.database)
        except (sqlite3.ProgrammingError, ValueError):
            return False  # closed by its holder


_begun: ContextVar[tuple[OpenTransaction, ...]] = ContextVar("jobrunner.begun", default=())


def note(begun: OpenTransaction) -> None:
    """Keep what this context has begun, beside what it has begun before on other connections."""
    _begun.set((*(one for one in _begun.get() if not one.over), begun))


@contextmanager
def left_behind() -> Iterator[None]:
    """Start tasks inside the block that are no part of what this context has begun, and may wait for its end."""
    token = _begun.set(())
    try:
        yield
    finally:
        _begun.reset(token)


def writes_to(file: FileIdentity) -> bool:
    """Return whether this context has begun a transaction that has written to the file, and not ended it."""
    return any(one.writes_to(file) for one in _begun.get())
