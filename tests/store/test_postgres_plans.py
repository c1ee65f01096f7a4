"""The plans of a round on PostgreSQL: by index, whatever the statistics say, also those of an empty table."""

import json
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from jobrunner.store.postgres.connection import WRITER, Connection, close, connect
from jobrunner.store.postgres.sql import claim, lanes, settle
from jobrunner.store.postgres.store import PostgresStore
from jobrunner.store.round import Round
from tests.support.factories import NOW, new

SEQS: Final = list(range(1, 101))
STATEMENTS: Final[dict[str, tuple[str, tuple[Any, ...]]]] = {
    "jobs of several tasks": (
        claim._OF_TASKS,
        ("default", NOW, ["a", "b", "c"], 100, [1_000] * 3, 120, 60),
    ),
    "jobs of one task": (claim._OF_TASK, ("default", NOW, "a", 100)),
    "jobs that are started": (claim._START, (7, NOW, SEQS)),
    "jobs of lanes": (claim._LOCK, (SEQS, NOW)),
    "successes": (settle._SUCCEED, (SEQS, [1] * 100, [7] * 100, [NOW] * 100)),
    "outcomes of failures": (
        settle._RUN_AGAIN,
        (
            *(SEQS, [1] * 100, [7] * 100, ["scheduled"] * 100, [NOW] * 100, [0] * 100),
            [False] * 100,
        ),
    ),
    "lanes of jobs": (lanes._ARRIVED.format(lanes._BY_SEQ, lanes._REOPEN), (SEQS,)),
}
ROWS: Final = 10_000
MOST_READ: Final = 1_000
"""The rows that a statement about a hundred jobs may read, or throw away."""
HISTORIES: Final = {
    "nobody has made statistics": "SELECT",
    "it was empty": "ANALYZE jobrunner.jobs",
    # Its pages are still there: the planner believes that they hold next to nothing.
    "it was nearly empty, after others had been deleted": """
        INSERT INTO jobrunner.jobs (state, id, task, queue, args, created_at, run_at, priority)
        SELECT 'queued', 'old-' || number, 'a', 'default', '{}', 0, 0, 0
        FROM generate_series(1, 3000) AS old (number);
        DELETE FROM jobrunner.jobs WHERE id <> 'old-1';
        ANALYZE jobrunner.jobs;
        DELETE FROM jobrunner.jobs;
    """,
}


@pytest.fixture(params=HISTORIES)
async def writer(
    request: pytest.FixtureRequest, bare_postgres_url: str
) -> AsyncIterator[Connection]:
    """A connection of rounds to a store with many queued jobs, on which the statements ran when it had none."""
    store = PostgresStore(bare_postgres_url)
    await store.open()
    connection = await connect(bare_postgres_url, WRITER)
    await connection.execute("ALTER TABLE jobrunner.jobs SET (autovacuum_enabled = false)")
    await connection.execute(HISTORIES[request.param])
    for number, (statement, values) in enumerate(STATEMENTS.values()):
        await connection.execute(f"PREPARE p{number} AS {statement}")
        await connection.execute(f"EXPLAIN EXECUTE p{number} ({_literals(values, 0)})")
    jobs = [new("abc"[number % 3]) for number in range(ROWS)]
    for first in range(0, ROWS, 2_000):
        await store.write(Round(NOW, enqueues=jobs[first : first + 2_000]))
    yield connection
    await connection.execute("ALTER TABLE jobrunner.jobs RESET (autovacuum_enabled)")
    await close(connection)
    await store.close()


@pytest.mark.parametrize("plan", ["kept", "new"])
async def test_F21_statements_about_a_hundred_jobs_read_few_rows_whatever_the_statistics_say(
    writer: Connection, plan: str
) -> None:
    if plan == "new":
        await writer.execute("DISCARD PLANS")
    # Some numbers were given to jobs that are gone.
    first = await writer.fetchval("SELECT min(seq) - 1 FROM jobrunner.jobs")
    await writer.execute("SET statement_timeout = '10s'")
    for number, (name, (_, values)) in enumerate(STATEMENTS.items()):
        await writer.execute("BEGIN")
        rows = await writer.fetch(
            f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE p{number} ({_literals(values, first)})"
        )
        await writer.execute("ROLLBACK")
        read = [
            (
                node.get("Actual Rows", 0)
                + node.get("Rows Removed by Filter", 0)
                + node.get("Rows Removed by Join Filter", 0)
            )
            * node.get("Actual Loops", 1)
            for node in _nodes(json.loads(rows[0][0])[0]["Plan"])
        ]
        assert max(read) <= MOST_READ, f"{name}: {rows[0][0]}"


def _literals(values: tuple[Any, ...], first: int) -> str:
    """Write the values of a statement; ``first`` is added to numbers of jobs."""
    return ", ".join(
        _literal([first + seq for seq in value] if value is SEQS else value) for value in values
    )


def _literal(value: Any) -> str:
    if isinstance(value, list):
        return "'{" + ",".join(str(one) for one in value) + "}'"
    return f"'{value}'"


def _nodes(node: Any) -> list[Any]:
    return [node, *(below for child in node.get("Plans", ()) for below in _nodes(child))]
