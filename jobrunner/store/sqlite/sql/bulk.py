"""A statement for many rows at once.

To run a statement costs as much as to write a small row, so it takes as many rows as it can.  And each value that is
bound has its price, ``None`` three times that of a number: what is NULL in nearly all rows is left out of the text.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final

_SIZES: Final = (64, 16, 4, 1)
"""Rows per run. Few texts, since the driver keeps compiled statements by them; SQLite takes 32,766 values in one."""


class Many:
    """A statement around ``VALUES``, for any number of rows.

    Args:
        before: up to ``VALUES``.
        row: the values of one row, such as ``(?, ?, 'queued')``.
        after: what follows the last row.
    """

    def __init__(self, before: str, row: str, after: str = "") -> None:
        self._texts: Mapping[int, str] = {
            size: f"{before} VALUES {', '.join([row] * size)}{after}" for size in _SIZES
        }

    def run(self, conn: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> int:
        """Run it for the rows, in their order; return how many rows of the table it has changed."""
        changed = at = 0
        for size, text in self._texts.items():
            while len(rows) - at >= size:
                values = tuple(chain.from_iterable(rows[at : at + size]))
                changed += conn.execute(text, values).rowcount
                at += size
        return changed
