"""Applies the ends of jobs to the jobs and batches that wait for them.

All code that ends a job calls ``follow``, and locks its batch before it touches the job (``batch_locks``).  Callers may
leave out jobs that are in no chain and no batch, unless they were cancelled: such a job may have made a batch for which
it waits.
"""

from collections.abc import Collection
from typing import Literal, NamedTuple

from jobrunner.store.effects import Effects
from jobrunner.store.postgres.sql import batch_locks, batches, chains, edges
from jobrunner.store.postgres.sql.edges import Needed
from jobrunner.store.postgres.sql.transaction import Transaction


class End(NamedTuple):
    """A job that has ended."""

    id: str
    chain: str | None
    batch: int | None
    how: Literal["succeeded", "dead", "stopped"]
    """``stopped``: it was cancelled or has expired."""


async def follow(tx: Transaction, now: int, ends: Collection[End], effects: Effects) -> None:
    """Unblock, cancel and finish what waits for jobs that have ended."""
    stopped = [one.id for one in ends if one.how == "stopped"]
    if stopped:
        await batches.give_up(tx, stopped, now, effects)
    chained = [one for one in ends if one.chain is not None]
    if chained:
        await chains.follow(
            tx,
            now,
            succeeded=[one.id for one in chained if one.how == "succeeded"],
            died=[one.id for one in chained if one.how == "dead"],
            stopped=[one.id for one in chained if one.how == "stopped"],
            effects=effects,
        )
    members = {one.batch for one in ends if one.batch is not None}
    if members:
        await batch_locks.hold(tx, members)
        await edges.reconcile(
            tx,
            now,
            [
                Needed(one.id, one.batch, "succeeded" if one.how == "succeeded" else "failed")
                for one in ends
                if one.batch is not None
            ],
            effects,
        )
