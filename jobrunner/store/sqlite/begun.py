"""The transaction that an attached engine has begun in the present context: nothing may wait for it there.

SQLite has one writer, and a session that has written and is not committed is the one.  A write of the store's own that
is asked for by the code which holds the session would wait until its time is out, and everybody else with it.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jobrunner.store.sqlite.files import FileIdentity


class Begun:
    """One transaction on a driver's connection."""

    __slots__ = ("changes", "database", "driver", "over")

    def __init__(self, driver: Any, database: str) -> None:
        self.driver = driver
        self.database = database
        self.changes: int = driver.total_changes
        """Rows that the connection had changed when it began: one that has read alone has no more."""
        self.over = False
        """Its connection, which is used again and again, has gone back to its pool or begun another one since."""

    def has_changed(self) -> bool:
        """Return whether it is open and has changed rows, so that it holds SQLite's write lock."""
        return bool(self.driver.in_transaction and self.driver.total_changes != self.changes)


_begun: ContextVar[Begun | None] = ContextVar("jobrunner.begun", default=None)


def note(begun: Begun) -> None:
    """Keep what this context has begun last."""
    _begun.set(begun)


@contextmanager
def left_behind() -> Iterator[None]:
    """Start tasks inside the block that are no part of what this context has begun, and may wait for its end."""
    token = _begun.set(None)
    try:
        yield
    finally:
        _begun.reset(token)


def writes_to(file: FileIdentity) -> bool:
    """Return whether this context has begun a transaction that has written to the file, and not ended it."""
    begun = _begun.get()
    if begun is None or begun.over:
        return False
    try:
        return begun.has_changed() and file.is_at(begun.database)
    except (sqlite3.ProgrammingError, ValueError):
        return False  # closed
