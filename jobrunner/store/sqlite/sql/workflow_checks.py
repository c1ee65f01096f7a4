"""Searches for rows of batches and edges that contradict each other."""

import sqlite3
from collections.abc import Iterator
from typing import Final

from jobrunner.store.sqlite.sql.statements import UNFINISHED
from jobrunner.store.workflow_checks import statements
from jobrunner.store.workflow_protocol import Contradiction

_CHECKS: Final = statements("jobrunner_{}", UNFINISHED, "INDEXED BY jobrunner_{}")


def contradictions(conn: sqlite3.Connection, limit: int) -> Iterator[Contradiction]:
    """Yield the rules that are broken, each with at most ``limit`` ids."""
    for rule, statement in _CHECKS.items():
        ids = [id for (id,) in conn.execute(f"{statement} LIMIT {limit}").fetchall()]
        if ids:
            yield Contradiction(rule, ids)


def check(conn: sqlite3.Connection, limit: int) -> list[Contradiction]:
    """Return the rules that are broken."""
    return list(contradictions(conn, limit))
