"""Deletes buckets that are full again, in slices; one without a row is full too."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

Key = tuple[str, str]
"""Scope and name of a bucket."""

_READ: Final = """
SELECT scope, name, full_at FROM jobrunner_buckets WHERE (scope, name) > (?, ?) ORDER BY scope, name LIMIT ?"""
# The condition again: a claim may have taken a token since the slice was read.
_DELETE: Final = """
DELETE FROM jobrunner_buckets WHERE full_at < ? AND (scope, name) IN (
    SELECT value ->> 0, value ->> 1 FROM json_each(?)
)"""


class Slice(NamedTuple):
    """The buckets to delete in one slice."""

    keys: Sequence[Key]
    last: Key | None
    """The last key of the slice; None at the end."""


def full(conn: sqlite3.Connection, after: Key, before: int, limit: int) -> Slice:
    """Find the buckets of a slice that were full before an instant."""
    rows = conn.execute(_READ, (*after, limit)).fetchall()
    last = (rows[-1][0], rows[-1][1]) if len(rows) == limit else None
    return Slice([(scope, name) for scope, name, full_at in rows if full_at < before], last)


def delete(conn: sqlite3.Connection, keys: Sequence[Key], before: int) -> int:
    """Delete those buckets that are still full; return their number."""
    return conn.execute(_DELETE, (before, json.dumps(keys))).rowcount
