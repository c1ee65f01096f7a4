"""The open transactions that attached engines have begun in the present context, where no code may wait for them.

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

    __slots__ = ("changes", "database", "driver", "is_over")

    def __init__(self, driver: Any, database: str) -> None:
        self.driver = driver
        self.database = database
        self.changes: int = driver.total_changes
        """Rows that the connection had changed when it began: one that has read alone has no more."""
        self.is_over = False
        """Its connection, which is used again and again, is back in its pool, closed, or has begun another one."""

    def has_changed(self) -> bool:
        """Return whether it is open and has changed rows, so that it holds SQLite's write lock."""
        return bool(self.driver.in_transaction and self.driver.total_changes != self.changes)

    def writes_to(self, file: FileIdentity) -> bool:
        """Return whether it is open and has written to the file."""
        if self.is_over:
            return False
        try:
            return self.has_changed() and file.is_at(self.database)
        except (sqlite3.ProgrammingError, ValueError):
            return False  # closed by its holder


_noted: ContextVar[tuple[OpenTransaction, ...]] = ContextVar(
    "jobrunner.open_transactions", default=()
)


def note(transaction: OpenTransaction) -> None:
    """Keep a transaction that this context has begun, beside those on other connections."""
    _noted.set((*(one for one in _noted.get() if not one.is_over), transaction))


@contextmanager
def left_behind() -> Iterator[None]:
    """Start tasks inside the block that belong to none of these transactions, and may wait for their end."""
    token = _noted.set(())
    try:
        yield
    finally:
        _noted.reset(token)


def writes_to(file: FileIdentity) -> bool:
    """Return whether this context has begun a transaction that has written to the file, and not ended it."""
    return any(one.writes_to(file) for one in _noted.get())
