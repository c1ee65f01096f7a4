"""Writes of tasks together with their success, in a round: one failure affects no other job."""

import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import closing, suppress
from contextvars import copy_context
from pathlib import Path

import pytest

from jobrunner.core.model import Claimed, Succeeded, Write
from jobrunner.store.sqlite import SqliteStore
from tests.support.factories import claim, ended, enqueue, new, released, settle


@pytest.fixture
async def store(tmp_db: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_db)
    await store.open()
    with closing(sqlite3.connect(tmp_db)) as conn:
        conn.execute("CREATE TABLE words (word TEXT UNIQUE)")
    yield store
    await store.close()


def words(file: Path) -> list[str]:
    """Return what has been written, in order."""
    with closing(sqlite3.connect(file)) as conn:
        return [word for (word,) in conn.execute("SELECT word FROM words ORDER BY word")]


def add(conn: sqlite3.Connection, word: str) -> None:
    conn.execute("INSERT INTO words VALUES (?)", (word,))


def raise_after(conn: sqlite3.Connection, word: str) -> None:
    add(conn, word)
    raise RuntimeError(word)


def undo_all(conn: sqlite3.Connection, word: str) -> None:
    """Roll back the transaction of the round, and raise."""
    add(conn, word)
    conn.execute("INSERT OR ROLLBACK INTO words VALUES (?)", (word,))


def undo_all_and_go_on(conn: sqlite3.Connection, word: str) -> None:
    """Do so without raising."""
    with suppress(sqlite3.IntegrityError):
        undo_all(conn, word)


@pytest.mark.parametrize("fail", [raise_after, undo_all, undo_all_and_go_on])
@pytest.mark.parametrize("failing", [{0}, {5}, {2, 3, 7}, set(range(8))], ids=str)
async def test_writes_that_fail_are_refused_and_the_others_are_there_once(
    store: SqliteStore,
    tmp_db: Path,
    fail: Callable[[sqlite3.Connection, str], None],
    failing: set[int],
) -> None:
    await enqueue(store, *(new() for _ in range(8)))
    claimed = await claim(store)
    called: Counter[int] = Counter()

    def success(number: int, job: Claimed) -> Succeeded:
        def write(conn: sqlite3.Connection) -> None:
            called[number] += 1
            (fail if number in failing else add)(conn, f"word {number}")

        return Succeeded(job, ended("succeeded"), None, None, [Write(write, (), copy_context())])

    written = await settle(store, *(success(n, job) for n, job in enumerate(claimed)))

    good = set(range(8)) - failing
    assert words(tmp_db) == [f"word {number}" for number in sorted(good)]
    assert {one.job.seq for one, _ in written.refused} == {claimed[n].seq for n in failing}
    assert written.stale == []
    for number, job in enumerate(claimed):
        row = await store.jobs.get(job.id)
        assert row is not None
        assert row.state == ("succeeded" if number in good else "running")
        (attempt,) = await store.jobs.attempts(row.seq)
        assert attempt.outcome == ("succeeded" if number in good else None)
    assert all(called[number] == 1 for number in failing), "one that has failed has failed"
    if fail is raise_after:
        assert all(called[number] <= 2 for number in good)


async def test_writes_of_a_success_that_the_fence_refuses_are_never_called(
    store: SqliteStore, tmp_db: Path
) -> None:
    """Nor are the jobs stored that its task has added."""
    await enqueue(store, new(), new())
    lost, held = await claim(store)
    await settle(store, released(lost))
    called: list[str] = []

    def success(job: Claimed, word: str) -> Succeeded:
        def write(conn: sqlite3.Connection) -> None:
            called.append(word)
            add(conn, word)

        writes = [Write(write, (), copy_context())]
        return Succeeded(job, ended("succeeded"), None, None, writes, [added[word]])

    added = {"lost": new(), "held": new()}
    stale = success(lost, "lost")
    written = await settle(store, stale, success(held, "held"))
    assert written.stale == [stale]
    assert called == words(tmp_db) == ["held"]
    assert await store.jobs.get(added["lost"].id) is None
    assert await store.jobs.get(added["held"].id) is not None
