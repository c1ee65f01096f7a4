"""The plans of statements about batches on PostgreSQL: by index, with the statistics of an empty table."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import pytest

from jobrunner.store.postgres.connection import WRITER, Connection, close, connect
from jobrunner.store.postgres.sql import batch_locks, batches, chains, edges, replays, steps
from jobrunner.store.postgres.store import PostgresStore
from tests.support.factories import NOW, WORKER, new
from tests.support.workflows import a_batch, claim_all, needs

MEMBERS: Final = 5_000
"""Members behind one other member."""
SOME: Final = 100
TABLES: Final = ("jobs", "edges", "batches", "steps", "followups", "dead_letters")
MOST_READ: Final = 600
"""The rows that a statement about a hundred jobs may read, or throw away."""

Statements = dict[str, tuple[str, tuple[Any, ...]]]


def statements(
    batch: int, id: str, root: str, ids: Sequence[str], seqs: Sequence[int]
) -> Statements:
    """Return statements about a hundred members, with their values."""
    needed = edges._NEEDING.format("ANY ($1::text[])", edges._OUT_OF_LINE["succeeded"])
    names, some = [*ids], len(ids)
    fence = ([*seqs], [1] * some, [WORKER] * some)
    return {
        "batches by number and id": (batch_locks._OF_BATCHES, ([batch], [id])),
        "batches of a job": (batch_locks._OF_JOBS, ([root],)),
        "batches of jobs": (batch_locks._OF_ROWS, ([*seqs],)),
        "batches of a worker": (batch_locks._OF_WORKER, (WORKER,)),
        "batches that are over": (edges._OVER, ([batch],)),
        "batches that may succeed": (edges._MAY_SUCCEED, ([batch],)),
        "edges to a batch": (edges._CALLED_BACK, ([batch],)),
        "edges to a job": (f"{needed} LIMIT $2", ([root], 251)),
        "edges that change": (
            edges._SET,
            (names, [f"{name} {root}" for name in names], [1] * some, [0] * some),
        ),
        "edges that are given up": (edges._VOID, (names,)),
        "jobs that wait": (edges._LOCK, (names,)),
        "jobs that are released": (edges._RELEASE, (NOW, names)),
        "jobs that are cancelled": (edges._BREAK, (NOW, names)),
        "jobs that may be revived": (edges._REVIVABLE, (names,)),
        "states": (edges._STATES, (names,)),
        "older members": (batches._OLDER_MEMBERS, (names, batch)),
        "a slice of a cancel": (batches._CANCEL_WAITING, (NOW, batch, 250)),
        "the next slice": (batches._HAS_WAITING, (batch,)),
        "jobs that are asked to stop": (batches._REQUEST, ([batch],)),
        "what is given up": (batches._GIVE_UP, (NOW, names)),
        "jobs behind in chains": (chains._CANCEL_REST, (names, NOW, 250)),
        "edges that move": (replays._MOVE, (root, "another", names)),
        "memos": (
            steps._KEEP,
            (*fence, ["step"] * some, ["charge"] * some, ["1"] * some, NOW),
        ),
        "attempts that park": (steps._HELD, ([*seqs],)),
        "what is there": (steps._IS_MET, ([*seqs], ["!approved", id] * (some // 2))),
        "jobs that are woken": (steps._WAKE, (NOW, root)),
    }


@pytest.fixture
async def store(bare_postgres_url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(bare_postgres_url)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def writer(bare_postgres_url: str) -> AsyncIterator[Connection]:
    connection = await connect(bare_postgres_url, WRITER)
    for table in TABLES:
        await connection.execute(f"ALTER TABLE jobrunner.{table} SET (autovacuum_enabled = false)")
    yield connection
    for table in TABLES:
        await connection.execute(f"ALTER TABLE jobrunner.{table} RESET (autovacuum_enabled)")
    await close(connection)


_ALL: Final = ", ".join(f"jobrunner.{table}" for table in TABLES)


@pytest.mark.parametrize("statistics", ["none", "of a few rows", "of no rows on many pages"])
async def test_statements_about_a_hundred_members_read_few_rows_of_a_wide_graph(
    store: PostgresStore, writer: Connection, statistics: str
) -> None:
    root = new()
    if statistics == "of a few rows":
        await a_batch(store, first := new(), second := new(), edges=needs(second, first))
        await writer.execute(f"ANALYZE {_ALL}")
    elif statistics == "of no rows on many pages":
        head = new()
        rest = [new() for _ in range(MEMBERS)]
        await a_batch(store, head, *rest, edges=[edge for job in rest for edge in needs(job, head)])
        for table in TABLES:
            await writer.execute(f"DELETE FROM jobrunner.{table}")  # noqa: S608 - one of ours
        await writer.execute(f"VACUUM (TRUNCATE false, ANALYZE) {_ALL}")
    members = [new() for _ in range(MEMBERS)]
    made = await a_batch(
        store, root, *members, edges=[edge for job in members for edge in needs(job, root)]
    )
    running = (await claim_all(store))[root.id]
    assert running.batch is not None
    ids = [job.id for job in members[:SOME]]
    seqs = [running.seq + number for number in range(SOME)]
    for name, (statement, values) in statements(running.batch, made.id, root.id, ids, seqs).items():
        await writer.execute("BEGIN")
        await writer.execute("SET LOCAL statement_timeout = '5s'")
        rows = await writer.fetch(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *values)
        await writer.execute("ROLLBACK")
        for node in nodes(json.loads(rows[0][0])[0]["Plan"]):
            read = node["Actual Rows"] * node["Actual Loops"] + node.get(
                "Rows Removed by Filter", 0
            )
            assert read <= MOST_READ, f"{name}: {node}"


def nodes(node: Any) -> list[Any]:
    """Return a node of a plan and all below it."""
    return [node, *(below for child in node.get("Plans", ()) for below in nodes(child))]
