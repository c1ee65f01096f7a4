"""Stores which processes watch which jobs, inside an open transaction."""

import json
from collections.abc import Collection

from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.protocol import WATCH_US


async def put(tx: Transaction, watcher: int, jobs: Collection[str], now: int) -> None:
    """Store the jobs of a watcher, or delete it if there are none; delete those of killed processes too."""
    await tx.execute(
        "DELETE FROM jobrunner.watchers WHERE watcher = $1 OR beat_at < $2",
        *(watcher, now - WATCH_US),
    )
    if jobs:
        await tx.execute(
            "INSERT INTO jobrunner.watchers VALUES ($1, $2, $3) ON CONFLICT (watcher) DO UPDATE SET"
            " jobs = excluded.jobs, beat_at = excluded.beat_at",
            *(watcher, json.dumps(sorted(jobs)), now),
        )


async def others(tx: Transaction, watcher: int, now: int) -> frozenset[str]:
    """Return the jobs that other watchers watch."""
    rows = await tx.fetch(
        "SELECT jobs FROM jobrunner.watchers WHERE watcher <> $1 AND beat_at >= $2",
        *(watcher, now - WATCH_US),
    )
    return frozenset(job for (jobs,) in rows for job in json.loads(jobs))
