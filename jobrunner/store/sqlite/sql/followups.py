"""Keeps what one transaction leaves to later ones.

So none holds the write lock for long.

Any process goes on with it, so a kill between two slices loses nothing.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final

SLICE = 250
"""Jobs or edges that one transaction changes because others have ended."""

_LEAVE: Final = "INSERT OR REPLACE INTO jobrunner_followups (id, batch) VALUES (?, ?)"


def leave(conn: sqlite3.Connection, rows: Sequence[tuple[str, int | None]]) -> bool:
    """Leave jobs, with their batches, to later transactions; return whether there are any."""
    conn.executemany(_LEAVE, rows)
    return bool(rows)


def is_empty(conn: sqlite3.Connection) -> bool:
    """Return whether nothing is left over."""
    return conn.execute("SELECT 1 FROM jobrunner_followups LIMIT 1").fetchone() is None


def done(conn: sqlite3.Connection, ids: Sequence[str]) -> None:
    """Forget jobs or batches that were left over."""
    conn.executemany("DELETE FROM jobrunner_followups WHERE id = ?", [(id,) for id in ids])
