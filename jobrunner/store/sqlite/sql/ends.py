"""Applies the ends of jobs to the jobs and batches that wait for them.

All code that ends a job calls ``follow``.  Callers may leave out jobs that are in no chain and no batch, unless they
were cancelled: such a job may have made a batch for which it waits.
"""

import sqlite3
from collections.abc import Collection
from typing import Literal, NamedTuple

from jobrunner.store.effects import Effects
from jobrunner.store.sqlite.sql import batches, chains, edges
from jobrunner.store.sqlite.sql.edges import Needed


class End(NamedTuple):
    """A job that has ended."""

    id: str
    chain: str | None
    batch: int | None
    how: Literal["succeeded", "dead", "stopped"]
    """``stopped``: it was cancelled or has expired."""


def follow(conn: sqlite3.Connection, now: int, ends: Collection[End], effects: Effects) -> None:
    """Unblock, cancel and finish what waits for jobs that have ended."""
    stopped = [one.id for one in ends if one.how == "stopped"]
    if stopped:
        edges.void(conn, stopped)
        batches.cancel_children(conn, stopped, now, effects)
    chained = [one for one in ends if one.chain is not None]
    if chained:
        chains.follow(
            conn,
            now,
            succeeded=[one.id for one in chained if one.how == "succeeded"],
            died=[one.id for one in chained if one.how == "dead"],
            stopped=[one.id for one in chained if one.how == "stopped"],
            effects=effects,
        )
    edges.reconcile(
        conn,
        now,
        [
            Needed(one.id, one.batch, "succeeded" if one.how == "succeeded" else "failed")
            for one in ends
            if one.batch is not None
        ],
        effects,
    )
