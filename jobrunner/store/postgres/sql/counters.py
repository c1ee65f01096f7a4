"""Adds to the counters of a store and reads them, inside an open transaction."""

from typing import Final

from jobrunner.store import counters
from jobrunner.store.counters import CounterKey, Counters
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.statistics import StatisticsRow

_MOST: Final = (1 << 63) - 1

# Sorted, so that two transactions lock the rows in one order. A sum of times passes 64 bits if the clock steps from
# 1970 to now while five thousand jobs wait; the column would refuse the sum, and with it each later round.
_ADD: Final = f"""
INSERT INTO jobrunner.counters (name, queue, task, number)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])
ON CONFLICT (name, queue, task) DO UPDATE SET
    number = CASE WHEN counters.number > {_MOST} - excluded.number THEN 0 ELSE counters.number END + excluded.number"""


async def add(tx: Transaction, more: Counters) -> None:
    """Add to counters; one that does not exist yet begins at 0."""
    if more:
        rows = [(*key, min(number, _MOST)) for key, number in sorted(more.items())]
        await tx.execute(_ADD, *zip(*rows, strict=True))


def of_row(row: StatisticsRow) -> Counters:
    """Return what a row of statistics adds to counters."""
    found = dict(row.counts)
    if row.succeeded:
        found[counters.attempts("succeeded")] = row.succeeded
    for name, histogram in ((counters.WAIT, row.wait), (counters.RUN, row.run)):
        for power, count in histogram.by_power().items():
            found[f"{name}:{power}"] = count
    return {(name, row.queue, row.task): number for name, number in found.items()}


async def read(tx: Transaction) -> dict[CounterKey, int]:
    """Return all counters, the oldest first."""
    rows = await tx.fetch(
        "SELECT name, queue, task, number FROM jobrunner.counters ORDER BY counter"
    )
    return {(name, queue, task): number for name, queue, task, number in rows}
