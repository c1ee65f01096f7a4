"""Walks through rows that match a filter, newest first, in windows.

If few rows match, one SELECT would read the whole table.  A walk checks the time after each window, and knows its
position even if no row matched.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final, NamedTuple

from jobrunner.store.job_protocol import Count
from jobrunner.store.postgres.sql.transaction import Transaction

PAGE_S: Final = 0.1
"""After this time a page ends with the rows found so far and the cursor of the next page."""
_WINDOW_S: Final = 0.01
"""The time that a window should take."""
_FIRST: Final = 250
"""Keys in the first window."""
_PREFETCH: Final = 50
MAX_INTEGER: Final = 2**63 - 1
EVERYTHING: Final = 2**62
"""A window that holds every key."""


class Condition:
    """Collects tests and their values, which are numbered in order."""

    def __init__(self, *tests: str, first: int = 1) -> None:
        """``first`` is the number of the first value."""
        self._tests = list(tests)
        self._first = first
        self.values: list[object] = []

    def add(self, test: str, value: object) -> "Condition":
        """Add a test with the place of its value as ``{}``."""
        self.values.append(value)
        self._tests.append(test.format(f"${self._first + len(self.values) - 1}"))
        return self

    @property
    def text(self) -> str:
        """All tests, joined by AND."""
        return " AND ".join(self._tests) or "true"

    def place(self, number: int) -> str:
        """Return the place of a value that follows: 1 is the first one."""
        return f"${self._first + len(self.values) + number - 1}"


class Rows(NamedTuple):
    """The rows of a walk, as the parts of a SELECT."""

    table: str
    key: str
    """The key column: an integer that grows with each new row."""
    where: Condition
    window: int = _FIRST
    """Keys in the first window."""


class Found(NamedTuple):
    """One page of a walk."""

    rows: list[Any]
    """Rows, each preceded by its key."""
    next: int | None
    """The cursor: the next page has the rows with a smaller key; None at the end."""
    complete: bool
    """True if the page is full or is the last one."""


async def page(
    tx: Transaction,
    rows: Rows,
    columns: str,
    before: int | None,
    limit: int,
    room: float = math.inf,
) -> Found:
    """Walk until the page is full, its time is up, or the rows end.

    Args:
        tx: a transaction.
        rows: the rows to walk.
        columns: the columns to return.
        before: the cursor of the previous page; None begins at the newest row.
        limit: maximum number of rows on the page.
        room: characters of text on the page; the row that exceeds it is the last.
    """
    where = rows.where
    select = (
        f"SELECT {rows.key}, {columns} FROM {rows.table}"
        f" WHERE {rows.key} < {where.place(1)} AND {rows.key} >= {where.place(2)} AND {where.text}"
        f" ORDER BY {rows.key} DESC LIMIT {where.place(3)}"
    )
    found: list[Any] = []
    async with aclosing(_windows(tx, rows, before, PAGE_S)) as windows:
        async for end, start in windows:
            # One row more than the limit shows that there is a next page.
            values = (*where.values, end, start, limit + 1 - len(found))
            async for row in tx.cursor(select, *values, prefetch=_PREFETCH):
                found.append(row)
                room -= sum(len(value) for value in row if isinstance(value, str))
                if len(found) > limit:
                    return Found(found[:limit], found[limit - 1][0], complete=True)
                if room <= 0:
                    return Found(found, row[0], complete=len(found) == limit)
            highest = await _highest(tx, rows, start)
            if highest is None:
                return Found(found, None, complete=True)
            before = highest + 1
    if before is None or (not found and await _highest(tx, rows, before) is None):
        return Found(found, None, complete=True)
    return Found(found, before, complete=len(found) == limit)


async def count(tx: Transaction, rows: Rows, *, cap: int, seconds: float | None) -> Count:
    """Count up to ``cap`` and until the time is up."""
    where = rows.where
    select = (
        f"SELECT count(*) FROM (SELECT FROM {rows.table}"
        f" WHERE {rows.key} < {where.place(1)} AND {rows.key} >= {where.place(2)} AND {where.text}"
        f" LIMIT {where.place(3)}) few"
    )
    number = 0
    before: int | None = None
    async with aclosing(_windows(tx, rows, None, seconds)) as windows:
        async for end, start in windows:
            number += await tx.fetchval(select, *where.values, end, start, cap - number)
            before = start
            if number >= cap:
                return Count(number, complete=False)
    ended = before is None or await _highest(tx, rows, before) is None
    return Count(number, complete=ended)


async def _highest(tx: Transaction, rows: Rows, before: int) -> int | None:
    """Return the highest key below a position; None at the end."""
    found: int | None = await tx.fetchval(
        f"SELECT max({rows.key}) FROM {rows.table} WHERE {rows.key} < $1", before
    )
    return found


async def _windows(
    tx: Transaction, rows: Rows, before: int | None, seconds: float | None
) -> AsyncGenerator[tuple[int, int], None]:
    """Yield windows until the rows or the time end; their size adapts to the time that they take."""
    clock = asyncio.get_running_loop().time
    end_s = math.inf if seconds is None else clock() + seconds
    window = rows.window
    position = MAX_INTEGER if before is None else before
    while (highest := await _highest(tx, rows, position)) is not None:
        began_s = clock()
        position = highest + 1 - window
        yield highest + 1, position
        took_s = clock() - began_s
        if took_s < _WINDOW_S / 8:
            window = min(window * 4, EVERYTHING)
        elif took_s > _WINDOW_S:
            window = max(int(window * _WINDOW_S / took_s), 1)
        if clock() >= end_s:
            return


def timer(seconds: float | None) -> Callable[[], bool]:
    """Return a function that returns whether so many seconds have passed; None never ends."""
    clock = asyncio.get_running_loop().time
    end_s = math.inf if seconds is None else clock() + seconds
    return lambda: clock() >= end_s
