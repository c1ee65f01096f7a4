"""Walks through the rows that match a filter, newest first, in short steps.

If few rows match, one SELECT would read the whole table.  A walk reads the table in windows of its key, checks the
clock after each, and knows its position even if no row matched.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final, NamedTuple

from jobrunner.core.clock import now_s
from jobrunner.store.sqlite.driver_errors import primary_code

STEP_S: Final = 0.01
"""Duration of a step; other reads on the connection wait for it, and other writers if it holds the write lock."""
FIRST_WINDOW: Final = 250
"""Keys in the first window; about ten milliseconds if each row has a megabyte."""
MAX_INTEGER: Final = 2**63 - 1
"""The largest integer of SQLite."""
EVERYTHING: Final = 2**62
"""A window that holds every key."""


class Rows(NamedTuple):
    """The rows of a walk, as the parts of a SELECT."""

    table: str
    how: str
    """``INDEXED BY ...`` or ``NOT INDEXED``; otherwise the planner might sort the whole table."""
    key: str
    """The key column: an integer that grows with each new row."""
    test: str
    """The condition of the WHERE clause."""
    values: tuple[str | int, ...]
    """The values of ``test``."""
    window: int = FIRST_WINDOW
    """Keys in the first window."""
    largest: int = EVERYTHING
    """Maximum keys in a window: short rows make it grow, and long rows may follow them."""


class Position(NamedTuple):
    """The progress of a walk: all rows with a key of ``before`` or more are done."""

    before: int
    window: int | None = None
    """Keys in the next window; None for ``Rows.window``."""


class Step(NamedTuple):
    """The result of one step."""

    rows: list[tuple[Any, ...]]
    """The rows found, each preceded by its key."""
    size: int
    """Characters of text in the rows."""
    position: Position | None
    """The start of the next step; None at the end."""


@contextmanager
def interrupted(conn: sqlite3.Connection, end_s: float) -> Iterator[None]:
    """Interrupt the statements of the block at a time of the clock; the code after the block goes on."""
    conn.set_progress_handler(lambda: now_s() >= end_s, 1_000)
    try:
        yield
    except sqlite3.OperationalError as error:
        # An interrupt before the time is up comes from ``Connection.close``.
        if primary_code(error) != sqlite3.SQLITE_INTERRUPT or now_s() < end_s:
            raise
    finally:
        conn.set_progress_handler(None, 0)


def step(
    conn: sqlite3.Connection,
    rows: Rows,
    columns: str,
    position: Position | None,
    *,
    limit: int,
    room: int = EVERYTHING,
) -> Step:
    """Walk through windows until the step's time is up; reads at least one.

    Args:
        conn: a connection in a transaction.
        rows: the rows to walk.
        columns: the columns to return.
        position: ``Step.position`` of the previous step; None begins at the newest row.
        limit: maximum number of rows to return.
        room: characters of text to return; the row that exceeds it is the last.
    """
    select = (
        f"SELECT {rows.key}, {columns} FROM {rows.table} {rows.how}"
        f" WHERE {rows.key} < ? AND {rows.key} >= ? AND {rows.test} ORDER BY {rows.key} DESC LIMIT ?"
    )
    found: list[tuple[Any, ...]] = []
    size = 0
    walk = _Walk(conn, rows, position)
    for before, after in walk:
        values = (before, after, *rows.values, limit - len(found))
        # Row by row: a page of long rows must not be in memory as a whole before its size is checked.
        with closing(conn.execute(select, values)) as cursor:
            for row in cursor:
                found.append(row)
                size += sum(len(value) for value in row if isinstance(value, str))
                if len(found) == limit or size >= room:
                    return Step(found, size, Position(row[0], walk.window))
    return Step(found, size, walk.position())


def count(
    conn: sqlite3.Connection, rows: Rows, position: Position | None, *, cap: int
) -> tuple[int, Position | None]:
    """Count rows until the step's time is up.

    Returns:
        The number of rows, up to ``cap``, and the start of the next step (None at the end).
    """
    select = f"SELECT count(*) FROM {rows.table} {rows.how} WHERE {rows.key} < ? AND {rows.key} >= ? AND {rows.test}"
    number = 0
    walk = _Walk(conn, rows, position)
    for window in walk:
        number += conn.execute(select, (*window, *rows.values)).fetchone()[0]
        if number >= cap:
            return cap, None
    return number, walk.position()


class _Walk:
    """Yields the windows of one step; their size adapts to the time that they take."""

    def __init__(self, conn: sqlite3.Connection, rows: Rows, position: Position | None) -> None:
        self._conn = conn
        self._highest = f"SELECT {rows.key} FROM {rows.table} WHERE {rows.key} < ? ORDER BY {rows.key} DESC LIMIT 1"
        self._largest = rows.largest
        self._before = self._next(MAX_INTEGER if position is None else position.before)
        self.window = (position.window if position is not None else None) or rows.window

    def _next(self, before: int) -> int | None:
        """Return the start of the next window, skipping gaps in the keys; None at the end."""
        row = self._conn.execute(self._highest, (before,)).fetchone()
        return None if row is None else int(row[0]) + 1

    def __iter__(self) -> Iterator[tuple[int, int]]:
        end_s = now_s() + STEP_S
        while self._before is not None:
            began_s = now_s()
            after = self._before - self.window
            yield self._before, after
            self._before = self._next(after)
            took_s = now_s() - began_s
            if took_s < STEP_S / 8:
                self.window = min(self.window * 4, self._largest)
            elif took_s > STEP_S:
                self.window = max(int(self.window * STEP_S / took_s), 1)
            if now_s() >= end_s:
                return

    def position(self) -> Position | None:
        """Return the start of the next step; None at the end."""
        return None if self._before is None else Position(self._before, self.window)
