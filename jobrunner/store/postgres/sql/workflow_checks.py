"""Searches for rows of batches and edges that contradict each other."""

from typing import Final

from jobrunner.store.postgres.sql.states import UNFINISHED
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.workflow_checks import statements
from jobrunner.store.workflow_protocol import Contradiction

_CHECKS: Final = statements("jobrunner.{}", UNFINISHED)


async def check(tx: Transaction, limit: int) -> list[Contradiction]:
    """Return the rules that are broken, each with at most ``limit`` ids."""
    found: list[Contradiction] = []
    for rule, statement in _CHECKS.items():
        ids = [id for (id,) in await tx.fetch(f"{statement} LIMIT $1", limit)]
        if ids:
            found.append(Contradiction(rule, ids))
    return found
