"""The cost of a claim in steps of SQLite's virtual machine.

It does not depend on the jobs that wait behind or beside the claimed ones, and hardly on those before them.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from jobrunner.core.model import Enqueue
from jobrunner.store.round import Round
from jobrunner.store.sqlite.maintenance import migrate
from jobrunner.store.sqlite.sql import claim, statements
from jobrunner.store.sqlite.sql.round import write_round
from jobrunner.store.sqlite.sql.turns import Turns
from tests.support.factories import HOUR, MINUTE, NOW, claim_of, new

SLOTS = 20
TASKS = [f"task{n:03}" for n in range(500)]


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as conn:
        conn.execute("PRAGMA synchronous = OFF")
        while migrate.check(conn):
            migrate.migrate_one(conn)
        yield conn


def put(conn: sqlite3.Connection, jobs: Sequence[Enqueue]) -> None:
    conn.execute("BEGIN")
    write_round(conn, Round(NOW, enqueues=jobs))
    conn.execute("COMMIT")


def steps_of_claim(
    conn: sqlite3.Connection, *, claimed: int = SLOTS, heads: claim.Heads | None = None
) -> int:
    """Claim, and undo it; return the steps of the virtual machine in tens."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    conn.execute("BEGIN")
    conn.set_progress_handler(count, 10)
    wanted = claim_of(slots=SLOTS, tasks=TASKS)
    found = claim.claim(conn, wanted, NOW, claim.Heads() if heads is None else heads, Turns())
    conn.set_progress_handler(None, 0)
    conn.execute("ROLLBACK")
    assert len(found.jobs) == claimed
    return steps


def test_claim_costs_the_same_with_one_task_waiting_and_with_500(
    conn: sqlite3.Connection,
) -> None:
    put(conn, [new(TASKS[0]) for _ in range(1_000)])
    one = steps_of_claim(conn)
    conn.execute("DELETE FROM jobrunner_jobs")
    put(conn, [new(TASKS[n % 500]) for n in range(1_000)])
    assert steps_of_claim(conn) <= one * 1.1


@pytest.mark.parametrize("tasks", [1, 100])
def test_claim_behind_rows_of_unknown_tasks_costs_the_same_however_many(
    conn: sqlite3.Connection, tasks: int
) -> None:
    put(conn, [new(TASKS[n % 5]) for n in range(100)])
    aliens = [new(f"alien{n % tasks}", run_at=NOW - HOUR) for n in range(4_000)]
    put(conn, aliens[:200])
    few = steps_of_claim(conn)
    put(conn, aliens[200:])
    assert steps_of_claim(conn) <= few * 1.1


@pytest.mark.parametrize("tasks", [1, 100])
def test_second_claim_behind_rows_of_unknown_tasks_knows_where_its_own_begin(
    conn: sqlite3.Connection, tasks: int
) -> None:
    put(conn, [new(TASKS[n % 500]) for n in range(1_000)])
    heads = claim.Heads()
    alone = steps_of_claim(conn, heads=heads)
    assert not heads.ranks
    put(conn, [new(f"alien{n % tasks}", run_at=NOW - HOUR) for n in range(4_000)])
    first = steps_of_claim(conn, heads=heads)
    assert first > alone * 4
    assert steps_of_claim(conn, heads=heads) <= alone * 1.3


def test_claim_reads_nothing_of_what_is_not_queued(conn: sqlite3.Connection) -> None:
    put(conn, [new(TASKS[n % 5]) for n in range(100)])
    alone = steps_of_claim(conn)
    put(conn, [new(TASKS[n % 5], run_at=NOW + HOUR) for n in range(2_000)])
    put(conn, [new(TASKS[n % 5], queue="other", run_at=NOW - HOUR) for n in range(2_000)])
    conn.execute("UPDATE jobrunner_jobs SET state = 'succeeded' WHERE seq % 2 AND queue = 'other'")
    assert steps_of_claim(conn) <= alone * 1.1


def test_claim_that_finds_nothing_to_run_looks_at_few_rows(conn: sqlite3.Connection) -> None:
    put(conn, [new(f"alien{n % 3}", run_at=NOW - MINUTE) for n in range(4_000)])
    heads = claim.Heads()
    assert steps_of_claim(conn, claimed=0, heads=heads) <= 500
    assert steps_of_claim(conn, claimed=0, heads=heads) <= 20


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (statements.FIRST_IN_ORDER, "jobrunner_jobs_claim (queue=?)"),
        (
            statements.REST_OF_PRIORITY,
            "jobrunner_jobs_claim (queue=? AND priority=? AND run_at>?)",
        ),
        (statements.LOWER_PRIORITIES, "jobrunner_jobs_claim (queue=? AND priority<?)"),
        (statements.RANK, "jobrunner_jobs_queued (queue=? AND task=?)"),
    ],
)
def test_first_rows_are_read_from_an_index_in_their_order(
    conn: sqlite3.Connection, statement: str, index: str
) -> None:
    values = {"queue": "default", "now": NOW, "task": "work", "limit": SLOTS}
    asked = values if ":queue" in statement else (0,) * statement.count("?")
    (step,) = conn.execute(f"EXPLAIN QUERY PLAN {statement}", asked)
    assert re.fullmatch(rf"SEARCH (job|jobrunner_jobs) USING INDEX {re.escape(index)}", step[3])
