"""Reads batches, their graphs and results inside a transaction."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from jobrunner.core.model import JobRow
from jobrunner.core.workflows import BatchGraph, BatchRow, BatchState, EdgeRow, ResultRow
from jobrunner.store.postgres.sql import queries, walks
from jobrunner.store.postgres.sql.states import UNFINISHED
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.postgres.sql.walks import EVERYTHING, Condition, Found, Rows
from jobrunner.store.workflow_protocol import ResultPage
from jobrunner.store.workflow_rules import EDGE_STATES, batch_row

# Each number but that of the running jobs comes from an index of members; those that run are few.
_NUMBERS: Final = f"""
    (SELECT count(*) FROM jobrunner.jobs WHERE batch = b.seq AND batch IS NOT NULL),
    (SELECT count(*) FROM jobrunner.jobs WHERE batch = b.seq AND batch IS NOT NULL AND jobs.{UNFINISHED}),
    (SELECT count(*) FROM jobrunner.jobs
        WHERE batch = b.seq AND batch IS NOT NULL AND jobs.state IN ('cancelled', 'expired')),
    (SELECT count(*) FROM jobrunner.dead_letters
        WHERE batch = b.seq AND batch IS NOT NULL AND replayed_as IS NULL) + deleted,
    (SELECT count(*) FROM jobrunner.jobs
        WHERE b.state = 'running' AND batch = b.seq AND batch IS NOT NULL AND jobs.state = 'running')"""
_COLUMNS: Final = (
    f"b.seq, b.id, name, b.state, b.created_at, ended_at, cancelled_at, parent, {_NUMBERS}"
)
_BATCH: Final = f"SELECT {_COLUMNS} FROM jobrunner.batches b WHERE"

# A job that waits for a batch of its own is none of its callbacks.
_OF_JOB: Final = """
SELECT coalesce(
    (SELECT batch FROM jobrunner.jobs WHERE id = $1),
    (SELECT batch FROM jobrunner.dead_letters WHERE id = $1),
    (
        SELECT called.seq FROM jobrunner.edges JOIN jobrunner.batches called ON called.id = needs
        WHERE job = $1 AND called.parent IS DISTINCT FROM $1 LIMIT 1
    )
)"""
_CALLBACKS: Final = "SELECT job FROM jobrunner.edges WHERE needs = $1 AND job IS DISTINCT FROM $2"
_MEMBERS: Final = """
SELECT seq, id FROM (
    (SELECT seq, id FROM jobrunner.jobs WHERE batch = $1 AND batch IS NOT NULL ORDER BY seq LIMIT $2)
    UNION ALL
    SELECT seq, id FROM jobrunner.dead_letters WHERE batch = $1 AND batch IS NOT NULL AND replayed_as IS NULL
) members ORDER BY seq LIMIT $2"""
_EDGES: Final = "SELECT job, needs, need, state FROM jobrunner.edges WHERE job = ANY ($1::text[])"

# One statement, so of one snapshot.
_RESULTS: Final = """
SELECT id, task, state, result, result_omitted, finished_at FROM jobrunner.jobs WHERE id = ANY ($1::text[])
UNION ALL
SELECT id, task, 'dead', NULL, NULL, died_at FROM jobrunner.dead_letters WHERE id = ANY ($1::text[])"""
_MEMBER_RESULTS: Final = """
SELECT seq, id, task, state, result, result_omitted, finished_at FROM jobrunner.jobs
WHERE batch = (SELECT batches.seq FROM jobrunner.batches WHERE batches.id = $1) AND batch IS NOT NULL
    AND seq > $2 AND state = 'succeeded' AND ($3::text[] IS NULL OR task = ANY ($3))
ORDER BY seq LIMIT $4"""
_PREFETCH: Final = 50


async def get(tx: Transaction, id: str) -> BatchRow | None:
    """Return a batch by its id."""
    if "\0" in id:
        return None
    row = await tx.fetchrow(f"{_BATCH} b.id = $1", id)
    return None if row is None else batch_row(row)


async def of_job(tx: Transaction, id: str) -> BatchRow | None:
    """Return the batch of a member or a callback."""
    if "\0" in id:
        return None
    row = await tx.fetchrow(f"{_BATCH} b.seq = $1", await tx.fetchval(_OF_JOB, id))
    return None if row is None else batch_row(row)


async def page(
    tx: Transaction, state: BatchState | None, name: str | None, before: int | None, limit: int
) -> Found:
    """Return a page of batches, newest first."""
    where = Condition()
    if state is not None:
        where.add("b.state = {}", state)
    if name is not None:
        where.add("name IS NOT NULL AND name = {}", name)
    rows = Rows("jobrunner.batches b", "seq", where)
    if name is not None:
        rows = rows._replace(window=EVERYTHING)
    return await walks.page(tx, rows, _COLUMNS, before, limit)


async def graph(tx: Transaction, id: str, limit: int) -> BatchGraph | None:
    """Return members, callbacks and edges of a batch."""
    if "\0" in id:
        return None
    row = await tx.fetchrow("SELECT seq, parent FROM jobrunner.batches WHERE id = $1", id)
    if row is None:
        return None
    seq, parent = row
    found = await tx.fetch(_MEMBERS, seq, limit + 1)
    members = [job for _, job in found[:limit]]
    callbacks = [job for (job,) in await tx.fetch(_CALLBACKS, id, parent)]
    edges = await tx.fetch(_EDGES, [*members, *callbacks])
    rows = {row.id: row for row in await queries.listed(tx, [*members, *callbacks])}
    return BatchGraph(
        _in_order(rows, members),
        sorted(_in_order(rows, callbacks), key=lambda row: row.seq),
        [EdgeRow(job, needs, need, EDGE_STATES[state]) for job, needs, need, state in edges],
        complete=len(found) <= limit,
    )


def _in_order(rows: Mapping[str, JobRow], ids: Sequence[str]) -> list[JobRow]:
    return [rows[id] for id in ids if id in rows]


async def results(tx: Transaction, ids: Collection[str]) -> dict[str, ResultRow]:
    """Return the states and results of jobs by id."""
    rows = await tx.fetch(_RESULTS, [id for id in ids if "\0" not in id])
    return {row[0]: ResultRow(*row) for row in rows}


async def member_results(
    tx: Transaction, id: str, tasks: Collection[str] | None, after: int, limit: int
) -> ResultPage:
    """Return a page of the results of the members that succeeded."""
    found: list[ResultRow] = []
    last, size = after, 0
    if "\0" in id:
        return ResultPage(found, None)
    given = (id, after, None if tasks is None else sorted(tasks), limit + 1)
    async for seq, *row in tx.cursor(_MEMBER_RESULTS, *given, prefetch=_PREFETCH):
        if len(found) == limit or size >= queries.PAGE_ROOM:
            return ResultPage(found, last)
        found.append(ResultRow(*row))
        last = seq
        size += len(found[-1].result or "")
    return ResultPage(found, None)
