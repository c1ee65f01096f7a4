"""Keeps what one transaction leaves to later ones, so that none takes long.

Any process goes on with it, so a kill between two slices loses nothing.  The rows of a batch are only touched while its
row is locked.
"""

from collections.abc import Sequence
from typing import Final

from jobrunner.store.postgres.sql.transaction import Transaction

SLICE = 250
"""Jobs or edges that one transaction changes because others have ended."""

# Twice the same id: two jobs that were cancelled may have the same one before them.
_LEAVE: Final = """
INSERT INTO jobrunner.followups (id, batch)
SELECT id, min(batch) FROM unnest($1::text[], $2::bigint[]) AS left_over (id, batch) GROUP BY id ORDER BY id
ON CONFLICT (id) DO UPDATE SET batch = excluded.batch"""


async def leave(tx: Transaction, rows: Sequence[tuple[str, int | None]]) -> bool:
    """Leave jobs, with their batches, to later transactions; return whether there are any."""
    if rows:
        await tx.execute(_LEAVE, [id for id, _ in rows], [batch for _, batch in rows])
    return bool(rows)


async def is_empty(tx: Transaction) -> bool:
    """Return whether nothing is left over."""
    return await tx.fetchrow("SELECT FROM jobrunner.followups LIMIT 1") is None


async def done(tx: Transaction, ids: Sequence[str]) -> list[str]:
    """Forget jobs or batches that were left over; return those that no other transaction has forgotten."""
    rows = await tx.fetch(
        "DELETE FROM jobrunner.followups WHERE id = ANY ($1::text[]) RETURNING id", ids
    )
    return [id for (id,) in rows]
