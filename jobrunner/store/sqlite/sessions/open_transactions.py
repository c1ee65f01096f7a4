"""Tracks the open transactions that attached engines have begun in the current context.

SQLite has one writer, and that is a session with uncommitted writes.  If the code that holds such a session called a
write of the store, the write would wait for the session until its timeout, and all other writers with it.
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
        """The connection's ``total_changes`` at the start; it stays the same while the transaction only reads."""
        self.is_over = False
        """True once the connection went back to its pool, was closed, or began another transaction."""

    def has_changed(self) -> bool:
        """Return whether it is open and has changed rows: it holds the write lock."""
        return bool(self.driver.in_transaction and self.driver.total_changes != self.changes)

    def writes_to(self, file: FileIdentity) -> bool:
        """Return whether it is open and has written to the file."""
        if self.is_over:
            return False
        try:
            return self.has_changed() and file.is_at(self.database)
        except (sqlite3.ProgrammingError, ValueError):
            return False  # the application has closed the connection


_noted: ContextVar[tuple[OpenTransaction, ...]] = ContextVar(
    "jobrunner.open_transactions", default=()
)


def note(transaction: OpenTransaction) -> None:
    """Add a transaction that this context has begun."""
    _noted.set((*(one for one in _noted.get() if not one.is_over), transaction))


@contextmanager
def left_behind() -> Iterator[None]:
    """Detach the tasks started inside the block from these transactions.

    Such a task may wait for their end.
    """
    token = _noted.set(())
    try:
        yield
    finally:
        _noted.reset(token)


def writes_to(file: FileIdentity) -> bool:
    """Return whether this context has an open transaction that has written to the file."""
    return any(one.writes_to(file) for one in _noted.get())
