"""Rows in bulk: what becomes of each, and of the table, is what would become of them one by one."""

import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jobrunner.core.model import Enqueue, Enqueued, chained
from jobrunner.store.sqlite.maintenance import migrate
from jobrunner.store.sqlite.sql.insert import insert_all
from tests.support.factories import HOUR, MINUTE, NOW, new

OPTIONS: dict[str, Any] = {
    "tag": "tag",
    "timeout": 5,
    "max_attempts": 3,
    "expires_at": NOW + HOUR,
    "replay_of": "another",
    "schedule": "daily",
    "scheduled_for": NOW,
}


def opened(path: Path) -> sqlite3.Connection:
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute("PRAGMA synchronous = OFF")
    while migrate.check(conn):
        migrate.migrate_one(conn)
    return conn


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(opened(tmp_path / "jobs.db")) as conn:
        yield conn


@pytest.fixture
def other(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(opened(tmp_path / "other.db")) as conn:
        yield conn


def stored(conn: sqlite3.Connection) -> list[tuple[Any, ...]]:
    columns = ", ".join(Enqueue._fields)
    asked = f"SELECT {columns}, state FROM jobrunner_jobs ORDER BY seq"  # noqa: S608 - our own names
    return conn.execute(asked).fetchall()


def some(rng: random.Random, number: int) -> list[Enqueue]:
    """Return jobs with any options, in runs and one by one; few keys, so that many are taken."""
    jobs: list[Enqueue] = []
    while len(jobs) < number:
        names = rng.sample(sorted(OPTIONS), rng.choice([0, 0, 1, 1, 2, 7]))
        for _ in range(rng.choice([1, 1, 2, 9, 70])):
            job = new(
                rng.choice(["work", "play"]),
                run_at=NOW + rng.choice([0, 0, MINUTE]),
                priority=rng.choice([0, 7]),
                key=rng.choice([None, None, f"key {rng.randrange(30)}"]),
            )
            jobs.append(job._replace(**{name: OPTIONS[name] for name in names}))
    return jobs


@pytest.mark.parametrize("seed", range(12))
def test_jobs_in_bulk_become_what_they_would_become_one_by_one(
    conn: sqlite3.Connection, other: sqlite3.Connection, seed: int
) -> None:
    rng = random.Random(seed)
    refused = 0
    for size in (3, 40, 300):
        jobs = some(rng, size)
        one_by_one = [made for job in jobs for made in insert_all(other, [job], NOW)]
        assert insert_all(conn, jobs, NOW) == one_by_one
        refused += sum(not made.created for made in one_by_one)
    assert stored(conn) == stored(other)
    assert refused


@pytest.mark.parametrize("keys", [(None, None, None), (None, "taken", None), ("taken", "a", "a")])
def test_chain_among_others_is_stored_as_it_would_be_alone(
    conn: sqlite3.Connection, other: sqlite3.Connection, keys: Sequence[str | None]
) -> None:
    before = [new(), new(key="taken"), new(tag="tag")]
    chain = chained([new(key=key) for key in keys])
    after = [new(tag="tag"), new(key="a")]
    alone = [insert_all(other, part, NOW) for part in (before, chain, after)]
    made = insert_all(conn, [*before, *chain, *after], NOW)
    assert made == [one for part in alone for one in part]
    of_chain = [one for one in made[3:6] if one.created]
    assert [one.after for one in of_chain] == [None, *(one.id for one in of_chain[:-1])]
    assert {one.chain for one in of_chain} == {of_chain[0].id}
    assert stored(conn) == stored(other)


def test_keys_that_occur_twice_belong_to_the_first(conn: sqlite3.Connection) -> None:
    jobs = [new(key=f"key {n % 40}", tag="tag" if n % 3 else None) for n in range(120)]
    made = insert_all(conn, jobs, NOW)
    assert [one.id for one in made] == [jobs[n % 40].id for n in range(120)]
    assert [one.created for one in made] == [n < 40 for n in range(120)]


def statements_of(conn: sqlite3.Connection, jobs: Sequence[Enqueue]) -> list[str]:
    """Store jobs; return the statements that this took."""
    run: list[str] = []
    conn.set_trace_callback(run.append)
    made: Sequence[Enqueued] = insert_all(conn, jobs, NOW)
    conn.set_trace_callback(None)
    assert len(made) == len(jobs)
    return [text for text in run if text.startswith("INSERT")]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"run_at": NOW + HOUR},
        {"tag": "tag", "timeout": 5, "max_attempts": 3, "expires_at": NOW + HOUR},
    ],
)
@pytest.mark.parametrize("keyed", [False, True])
def test_many_jobs_take_few_statements_whatever_their_options(
    conn: sqlite3.Connection, options: dict[str, Any], keyed: bool
) -> None:
    jobs = [new(key=f"key {n}" if keyed else None, **options) for n in range(96)]
    assert len(statements_of(conn, jobs)) == 3  # 64 + 16 + 16


def test_neighbours_with_different_options_share_statements(conn: sqlite3.Connection) -> None:
    kinds: list[dict[str, Any]] = [{}, {"tag": "tag"}, {"key": "key"}, {"timeout": 5}]
    jobs = [new(id=f"job {n}", **kinds[n % 4]) for n in range(96)]
    assert len(statements_of(conn, jobs)) == 3


def test_plain_jobs_do_not_bind_the_options_of_a_few(conn: sqlite3.Connection) -> None:
    few = [new(tag="tag", timeout=5, max_attempts=3, expires_at=NOW + HOUR)]
    run = statements_of(conn, [*(new() for _ in range(64)), *few, *(new() for _ in range(64))])
    assert ["expires_at" in text for text in run] == [False, True, False]
