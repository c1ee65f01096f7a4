"""Runs one statement for many rows at once.

Running a statement costs as much as writing a small row, so a statement takes as many rows as possible.  Binding a
value also costs time, ``None`` three times as much as a number, so columns that are nearly always NULL are left out.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final

_SIZES: Final = (64, 16, 4, 1)
"""Rows per run; few sizes, as the driver caches statements by text. SQLite binds at most 32,766 values."""


class Many:
    """A statement with ``VALUES`` for any number of rows.

    Args:
        before: the text before ``VALUES``.
        row: the values of one row, such as ``(?, ?, 'queued')``.
        after: the text after the last row.
    """

    def __init__(self, before: str, row: str, after: str = "") -> None:
        self._texts: Mapping[int, str] = {
            size: f"{before} VALUES {', '.join([row] * size)}{after}" for size in _SIZES
        }

    def run(self, conn: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> int:
        """Run the statement for the rows, in order; return the number of changed table rows."""
        changed = at = 0
        for size, text in self._texts.items():
            while len(rows) - at >= size:
                values = tuple(chain.from_iterable(rows[at : at + size]))
                changed += conn.execute(text, values).rowcount
                at += size
        return changed
