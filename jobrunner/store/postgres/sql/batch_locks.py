"""Locks batches, before anything about their members is changed or judged.

A statement sees nothing that is not committed: two transactions that each end one of the last two members of a batch
would both find the other one unfinished, and nobody would end the batch.  So a transaction that ends, adds, revives
or queues members again holds the batch's row until its commit, in the order of the numbers, and judges in a later
statement, which sees what the last holder has committed.  A claim takes no such lock: it ends no job.

Rows are locked in this order: batches, jobs, edges.
"""

from collections.abc import Collection
from typing import Final

from jobrunner.store.postgres.sql.transaction import Transaction

_HOLD: Final = """
SELECT seq FROM jobrunner.batches WHERE seq = ANY ({}) ORDER BY seq FOR NO KEY UPDATE"""
_OF_BATCHES: Final = _HOLD.format(
    "$1::bigint[] || ARRAY(SELECT seq FROM jobrunner.batches WHERE id = ANY ($2::text[]))"
)
# With the batches that they have made and wait for. Not "batch IS NOT NULL", for the reason in states.py.
_OF_JOBS: Final = _HOLD.format(
    "ARRAY(SELECT batch FROM jobrunner.jobs WHERE id = ANY ($1::text[]))"
    " || ARRAY(SELECT seq FROM jobrunner.batches WHERE parent = ANY ($1::text[]) AND parent IS NOT NULL)"
)
_OF_ROWS: Final = _HOLD.format(
    "ARRAY(SELECT batch FROM jobrunner.jobs WHERE seq = ANY ($1::bigint[]))"
)
_OF_WORKER: Final = _HOLD.format(
    "ARRAY(SELECT batch FROM jobrunner.jobs WHERE state = 'running' AND worker = $1)"
)
_OF_LETTERS: Final = _HOLD.format(
    "ARRAY(SELECT batch FROM jobrunner.dead_letters WHERE letter = ANY ($1::bigint[]))"
)
_OF_LETTER: Final = _HOLD.format("ARRAY(SELECT batch FROM jobrunner.dead_letters WHERE id = $1)")


async def hold(tx: Transaction, seqs: Collection[int], ids: Collection[str] = ()) -> None:
    """Lock these batches, unless the transaction holds them already."""
    missing = set(seqs) - tx.held
    if missing or ids:
        await _hold(tx, _OF_BATCHES, sorted(missing), list(ids))


async def hold_of_job(tx: Transaction, id: str) -> None:
    """Lock the batch of a job, and those that it has made."""
    await _hold(tx, _OF_JOBS, [id])


async def hold_of_rows(tx: Transaction, jobs: Collection[int]) -> None:
    """Lock the batches of jobs, given by ``seq``."""
    await _hold(tx, _OF_ROWS, list(jobs))


async def hold_of_worker(tx: Transaction, worker: int) -> None:
    """Lock the batches of the jobs that a worker runs."""
    await _hold(tx, _OF_WORKER, worker)


async def hold_of_letters(tx: Transaction, letters: Collection[int]) -> None:
    """Lock the batches of dead letters, given by their numbers."""
    await _hold(tx, _OF_LETTERS, list(letters))


async def hold_of_letter(tx: Transaction, id: str) -> None:
    """Lock the batch of a dead letter."""
    await _hold(tx, _OF_LETTER, id)


async def _hold(tx: Transaction, statement: str, *values: object) -> None:
    tx.held.update(seq for (seq,) in await tx.fetch(statement, *values))
