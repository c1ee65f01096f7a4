"""Reads what a monitoring system wants to know, inside a read transaction."""

from typing import Final

from jobrunner.store.measurements import BatchCounts, Measurements
from jobrunner.store.postgres.sql import counters, limit_rows, queues, workers
from jobrunner.store.postgres.sql.transaction import Transaction

CAP: Final = 10_000
_LAST_TICKS: Final = """
SELECT id, last FROM jobrunner.schedules WHERE last IS NOT NULL ORDER BY created_at, id"""
_BYTES: Final = """
SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c
WHERE c.relnamespace = 'jobrunner'::regnamespace AND c.relkind = 'r'"""

# From the index alone.
_RUNNING_BATCHES: Final = """(SELECT count(*) FROM (
    SELECT FROM jobrunner.batches WHERE state = 'running' AND cancelled_at IS {} LIMIT $1
) few)"""
_BATCHES: Final = f"SELECT {_RUNNING_BATCHES.format('NULL')}, {_RUNNING_BATCHES.format('NOT NULL')}"


async def read(tx: Transaction) -> Measurements:
    """Return all measurements, of one snapshot."""
    return Measurements(
        counters=await counters.read(tx),
        queues=await queues.queues(tx),
        workers=await workers.workers(tx),
        last_ticks=dict(map(tuple, await tx.fetch(_LAST_TICKS))),
        file_bytes=await tx.fetchval(_BYTES),
        log_bytes=0,  # the server's, which all its databases share
        lanes=await limit_rows.lane_counts(tx, CAP),
        batches=BatchCounts(*await tx.fetchrow(_BATCHES, CAP)),
    )
