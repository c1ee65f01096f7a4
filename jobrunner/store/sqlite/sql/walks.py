"""Walks through the rows that a filter means, newest first, in steps of some milliseconds each.

A filter that few rows meet makes SQLite read on and on.  A walk reads one window of the table's key after another, asks
the clock between them, and knows where it stands even if nothing was found.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final, NamedTuple

from jobrunner.core.clock import now_s

STEP_S: Final = 0.01
"""How long a step takes: so long other reads on the connection wait, and other writers if it holds the write lock."""
FIRST_WINDOW: Final = 250
"""Keys in the first window: some ten milliseconds where each row is a megabyte."""
MAX_INTEGER: Final = 2**63 - 1
"""The largest that SQLite knows."""
EVERYTHING: Final = 2**62
"""A window that holds every key."""


class Rows(NamedTuple):
    """Rows to walk through: the parts of a SELECT."""

    table: str
    how: str
    """``INDEXED BY`` or ``NOT INDEXED``: by the planner's own choice it might sort the whole table."""
    key: str
    """An integer that grows with each new row."""
    test: str
    values: tuple[str | int, ...]
    window: int = FIRST_WINDOW
    """Keys in the first window."""
    largest: int = EVERYTHING
    """Keys in a window, at most: behind many short rows, which let it grow, there may be long ones."""


class Position(NamedTuple):
    """Marks how far a walk has come: all rows from ``before`` on have been seen."""

    before: int
    window: int | None = None
    """How large the next window is; None for the first one."""


class Step(NamedTuple):
    """Rows that a step found, each with its key in front."""

    rows: list[tuple[Any, ...]]
    size: int
    """Letters of text in them."""
    position: Position | None
    """Where the next step begins; None at the end."""


def step(
    conn: sqlite3.Connection,
    rows: Rows,
    columns: str,
    position: Position | None,
    *,
    limit: int,
    room: int = EVERYTHING,
) -> Step:
    """Walk on until the step's time is up, but through one window at least.

    Args:
        conn: in a transaction.
        rows: what is walked through.
        columns: what is returned of each.
        position: where the step before stopped; None begins at the newest row.
        limit: rows to return, at most.
        room: letters of text to return; at most one row more than fit.
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
        # Row by row: a page of long rows must not lie in memory whole before they are counted.
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
    """Count on until the step's time is up; return how many, ``cap`` at most, and where the next step begins."""
    select = f"SELECT count(*) FROM {rows.table} {rows.how} WHERE {rows.key} < ? AND {rows.key} >= ? AND {rows.test}"
    number = 0
    walk = _Walk(conn, rows, position)
    for window in walk:
        number += conn.execute(select, (*window, *rows.values)).fetchone()[0]
        if number >= cap:
            return cap, None
    return number, walk.position()


class _Walk:
    """The windows of one step; each is larger than the one before while that keeps the step short."""

    def __init__(self, conn: sqlite3.Connection, rows: Rows, position: Position | None) -> None:
        self._conn = conn
        self._highest = f"SELECT {rows.key} FROM {rows.table} WHERE {rows.key} < ? ORDER BY {rows.key} DESC LIMIT 1"
        self._largest = rows.largest
        self._before = self._next(MAX_INTEGER if position is None else position.before)
        self.window = (position.window if position is not None else None) or rows.window

    def _next(self, before: int) -> int | None:
        """Return where the next window begins, whatever lies between; None at the end."""
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
        """Return where the next step begins."""
        return None if self._before is None else Position(self._before, self.window)
