"""Deletes jobs and dead letters past their retention, in short slices."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from jobrunner.store.postgres.sql import history
from jobrunner.store.postgres.sql.states import FINISHED
from jobrunner.store.postgres.sql.transaction import Transaction


class Due(NamedTuple):
    """The limits that make a finished job due for deletion."""

    before: int
    """Jobs that finished before this time are due."""
    by_task: Mapping[str, int]
    """Overrides ``before`` for tasks with their own retention."""
    keep: int
    """Finished jobs beyond the newest so many are due too."""


_SURPLUS: Final = f"""
SELECT finished_at, seq FROM jobrunner.jobs WHERE {FINISHED}
ORDER BY finished_at DESC, seq DESC LIMIT 1 OFFSET $1"""
_SPAN: Final = "SELECT max(seq) - min(seq) FROM jobrunner.jobs"

_DUE: Final = f"""
SELECT seq FROM jobrunner.jobs LEFT JOIN unnest($2::text[], $3::bigint[]) AS own (its_task, before) ON its_task = task
WHERE {FINISHED} AND batch IS NULL AND finished_at < $4
    AND (finished_at < coalesce(own.before, $1::bigint) OR (finished_at, seq) <= ($5::bigint, $6::bigint))
ORDER BY finished_at, seq LIMIT $7"""

# Of callbacks, and of jobs that have made batches: the edges of members go with the batch.
_FORGET_EDGES: Final = "DELETE FROM jobrunner.edges WHERE job = ANY ($1::text[])"
NONE: Final = (-1, -1)
"""The position before all finished jobs."""


async def find_jobs(tx: Transaction, due: Due, limit: int) -> list[int]:
    """Find finished jobs that are due and in no batch, oldest first; return their ``seq``."""
    newest = await surplus(tx, due.keep)
    rows = await tx.fetch(
        _DUE,
        *(due.before, list(due.by_task), list(due.by_task.values())),
        *(latest(due, newest), *newest, limit),
    )
    return [seq for (seq,) in rows]


async def surplus(tx: Transaction, keep: int) -> tuple[int, int]:
    """Return end and number of the newest finished job beyond the ``keep`` newest."""
    span = await tx.fetchval(_SPAN)
    if span is None or span < keep:
        return NONE
    row = await tx.fetchrow(_SURPLUS, keep)
    return NONE if row is None else (row[0], row[1])


def latest(due: Due, surplus: tuple[int, int]) -> int:
    """Return the time before which all has finished that is due."""
    return max(due.before, *due.by_task.values(), surplus[0] + 1)


async def find_letters(tx: Transaction, before: int, limit: int) -> list[int]:
    """Return the dead letters that died before a time, oldest first."""
    rows = await tx.fetch(
        "SELECT letter FROM jobrunner.dead_letters"
        " WHERE died_at < $1 AND (batch IS NULL OR replayed_as IS NOT NULL) ORDER BY died_at LIMIT $2",
        *(before, limit),
    )
    return [letter for (letter,) in rows]


async def delete(tx: Transaction, jobs: list[int], letters: list[int]) -> int:
    """Delete jobs and dead letters with their attempts; return the number of deleted rows."""
    # Another process may delete the same ones, and a dead letter may have been replayed since.
    gone = await tx.fetch(
        f"DELETE FROM jobrunner.jobs WHERE seq = ANY ($1::bigint[]) AND {FINISHED} RETURNING seq, id",
        jobs,
    )
    await tx.execute(_FORGET_EDGES, [id for _, id in gone])
    seqs = [seq for seq, _ in gone]
    letters_gone = await tx.fetch(
        "DELETE FROM jobrunner.dead_letters WHERE letter = ANY ($1::bigint[]) RETURNING seq",
        letters,
    )
    seqs += [seq for (seq,) in letters_gone]
    await history.delete(tx, seqs)
    return len(seqs)
