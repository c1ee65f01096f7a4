"""Jobs and outcomes are written in the transaction of every kind of session."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session as AlchemySession

from jobrunner.core.errors import InvalidSession, StoreUnavailable
from jobrunner.core.model import Filter
from jobrunner.store.sqlite import SqliteStore
from tests.support.engine import soon
from tests.support.factories import (
    NOW,
    SECOND,
    WORKER,
    claim_one,
    enqueue,
    new,
    retry,
    succeeded,
    worker_row,
)
from tests.support.sessions import (
    KINDS,
    Ears,
    Kind,
    async_session,
    count_jobs,
    count_rows,
    every_kind,
    make_table,
    sync_engine,
)


@pytest.fixture
async def store(tmp_db: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_db)
    await store.open()
    make_table(tmp_db)
    yield store
    await store.close()


# -- enqueue ----------------------------------------------------------------------------------------


@every_kind
async def test_enqueue_is_committed_with_the_sessions_rows(
    store: SqliteStore, tmp_db: Path, kind: Kind
) -> None:
    async with kind.hold(tmp_db) as held:
        session = store.session(held.source)
        assert session.source is held.source
        assert session.blocking is kind.is_blocking
        await held.execute("INSERT INTO orders (item) VALUES ('tea')")
        (stored,) = await session.insert([new()], now=NOW)
        assert stored.created
        assert (count_jobs(tmp_db), count_rows(tmp_db)) == (0, 0)
        await held.commit()
        assert (count_jobs(tmp_db), count_rows(tmp_db)) == (1, 1)


@every_kind
async def test_enqueue_first_begins_the_transaction_of_the_rows_that_follow(
    store: SqliteStore, tmp_db: Path, kind: Kind
) -> None:
    async with kind.hold(tmp_db) as held:
        await store.session(held.source).insert([new(), new()], now=NOW)
        await held.execute("INSERT INTO orders (item) VALUES ('tea')")
        assert count_jobs(tmp_db) == 0
        await held.rollback()
        assert (count_jobs(tmp_db), count_rows(tmp_db)) == (0, 0)
        await store.session(held.source).insert([new(), new()], now=NOW)
        await held.commit()
        assert count_jobs(tmp_db) == 2


@every_kind
async def test_enqueue_of_many_with_one_bad_row_leaves_none_and_the_rows_before(
    store: SqliteStore, tmp_db: Path, kind: Kind
) -> None:
    async with kind.hold(tmp_db) as held:
        await held.execute("INSERT INTO orders (item) VALUES ('tea')")
        bad = new(key="k", queue="\ud800")
        with pytest.raises(StoreUnavailable):
            await store.session(held.source).insert([new(), bad], now=NOW)
        await held.commit()
        assert (count_jobs(tmp_db), count_rows(tmp_db)) == (0, 1)


@every_kind
async def test_enqueue_with_a_taken_key_returns_the_unfinished_job(
    store: SqliteStore, tmp_db: Path, kind: Kind
) -> None:
    (first,) = await enqueue(store, new(key="k"))
    async with kind.hold(tmp_db) as held:
        session = store.session(held.source)
        (again,) = await session.insert([new(key="k")], now=NOW)
        assert (again.id, again.created) == (first.id, False)
        a, b = await session.insert([new(key="other"), new(key="other")], now=NOW)
        assert (b.id, b.created) == (a.id, False)
        await held.commit()
    assert count_jobs(tmp_db) == 2


@every_kind
async def test_enqueue_in_many_transactions_of_one_session(
    store: SqliteStore, tmp_db: Path, kind: Kind
) -> None:
    async with kind.hold(tmp_db) as held:
        for number in range(1, 4):
            await store.session(held.source).insert([new()], now=NOW)
            await held.commit()
            assert count_jobs(tmp_db) == number


# -- begin, commit, rollback, has_changes --------------------------------------------------------------


@every_kind
async def test_begin_holds_the_write_lock_until_the_commit(
    store: SqliteStore, tmp_db: Path, kind: Kind
) -> None:
    async with kind.hold(tmp_db) as held:
        session = store.session(held.source)
        assert not await session.has_changes()
        await session.begin()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            write_at_once(tmp_db)
        with pytest.raises(InvalidSession, match="in a transaction already"):
            await session.begin()
        await held.execute("INSERT INTO orders (item) VALUES ('tea')")
        assert await session.has_changes()
        await session.commit()
        assert count_rows(tmp_db) == 1
        write_at_once(tmp_db)
        assert not await session.has_changes()
        await session.begin()
        await held.execute("INSERT INTO orders (item) VALUES ('milk')")
        await session.rollback()
        assert count_rows(tmp_db) == 1
        write_at_once(tmp_db)


def write_at_once(path: Path) -> None:
    conn = sqlite3.connect(path, timeout=0)
    try:
        conn.execute("BEGIN IMMEDIATE")
    finally:
        conn.rollback()
        conn.close()


async def test_commit_that_is_cancelled_has_happened(store: SqliteStore, tmp_db: Path) -> None:
    async with async_session(tmp_db) as held:
        session = store.session(held.source)
        await session.insert([new()], now=NOW)
        began, go_on = threading.Event(), threading.Event()

        def hold_up() -> None:
            began.set()
            go_on.wait()

        driver = (await (await held.source.connection()).get_raw_connection()).driver_connection
        blocked = asyncio.ensure_future(driver._execute(hold_up))
        await asyncio.to_thread(began.wait)
        committing = asyncio.ensure_future(session.commit())
        for _ in range(5):
            await asyncio.sleep(0)  # noqa: TID251 - turns of the loop: the commit waits for the thread now
        committing.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await soon(committing)
        await blocked
        assert count_jobs(tmp_db) == 1
        assert not held.source.in_transaction()


async def test_commit_that_fails_says_so_and_leaves_no_job(
    store: SqliteStore, tmp_db: Path
) -> None:
    async with async_session(tmp_db) as held:
        await held.execute("PRAGMA foreign_keys = ON")
        await held.execute(
            "CREATE TABLE parts (of INTEGER REFERENCES orders DEFERRABLE INITIALLY DEFERRED)"
        )
        await held.commit()
        session = store.session(held.source)
        ears = Ears(tmp_db)
        await session.insert([new()], now=NOW)
        session.watch(ears.tell, ears.lost)
        await held.execute("INSERT INTO parts VALUES (7)")
        with pytest.raises(IntegrityError):
            await session.commit()
        await held.rollback()
    assert count_jobs(tmp_db) == 0
    assert ears.seen.empty()
    assert ears.lost_count == 0


# -- settle ------------------------------------------------------------------------------------------


@every_kind
async def test_settle_rides_in_the_sessions_transaction(
    store: SqliteStore, tmp_db: Path, kind: Kind
) -> None:
    await store.workers.join(worker_row(), lambda: None)
    job = await claim_one(store, new())
    async with kind.hold(tmp_db) as held:
        session = store.session(held.source)
        await session.begin()
        assert await session.settle(succeeded(job), now=NOW + SECOND)
        await held.rollback()
        assert await state_of(store, job.id) == "running"
        await session.begin()
        assert await session.settle(succeeded(job), now=NOW + SECOND)
        await held.commit()
        assert await state_of(store, job.id) == "succeeded"
        (attempt,) = await store.jobs.attempts(job.seq)
        assert attempt.outcome == "succeeded"


@every_kind
async def test_settle_of_an_attempt_that_is_no_longer_the_workers_is_refused(
    store: SqliteStore, tmp_db: Path, kind: Kind
) -> None:
    await store.workers.join(worker_row(), lambda: None)
    job = await claim_one(store, new())
    await store.workers.leave(WORKER, now=NOW)
    async with kind.hold(tmp_db) as held:
        session = store.session(held.source)
        await session.begin()
        assert not await session.settle(succeeded(job), now=NOW + SECOND)
        await held.commit()
    assert await state_of(store, job.id) == "queued"


async def state_of(store: SqliteStore, id: str) -> str:
    row = await store.jobs.get(id)
    assert row is not None
    return row.state


async def test_retry_is_settled_with_its_time(store: SqliteStore, tmp_db: Path) -> None:
    await store.workers.join(worker_row(), lambda: None)
    job = await claim_one(store, new())
    conn = sqlite3.connect(tmp_db)
    assert await store.session(conn).settle(retry(job, NOW + 5 * SECOND), now=NOW + SECOND)
    conn.commit()
    conn.close()
    row = await store.jobs.get(job.id)
    assert row is not None
    assert (row.state, row.run_at) == ("scheduled", NOW + 5 * SECOND)


# -- the end of the transaction ----------------------------------------------------------------------


@every_kind
async def test_watch_tells_once_others_see_the_job(
    store: SqliteStore, tmp_db: Path, kind: Kind
) -> None:
    ears = Ears(tmp_db)
    async with kind.hold(tmp_db) as held:
        session = store.session(held.source)
        for number in range(1, 4):
            await session.insert([new()], now=NOW)
            session.watch(ears.tell, ears.lost)
            assert ears.seen.empty()
            await held.commit()
            assert await ears.told() == number
        await session.insert([new()], now=NOW)
        session.watch(ears.tell, ears.lost)
        await held.commit()
    assert await ears.told() == 4
    assert ears.seen.empty()
    assert ears.lost_count == 0


@every_kind
async def test_watch_tells_nothing_after_a_rollback(
    store: SqliteStore, tmp_db: Path, kind: Kind
) -> None:
    ears = Ears(tmp_db)
    async with kind.hold(tmp_db) as held:
        session = store.session(held.source)
        await session.insert([new()], now=NOW)
        session.watch(ears.tell, ears.lost)
        await held.rollback()
        await nothing_is_watched(store)
    assert ears.seen.empty()
    assert ears.lost_count == 0


@every_kind
async def test_watch_finds_jobs_lost_where_the_session_only_closes(
    store: SqliteStore, tmp_db: Path, kind: Kind
) -> None:
    ears = Ears(tmp_db)
    async with kind.hold(tmp_db) as held:
        await held.execute("INSERT INTO orders (item) VALUES ('tea')")
        await held.commit()
        session = store.session(held.source)
        await session.insert([new()], now=NOW)
        session.watch(ears.tell, ears.lost)
    await nothing_is_watched(store)
    assert count_jobs(tmp_db) == 0
    assert ears.seen.empty()
    assert ears.lost_count == 1


async def nothing_is_watched(store: SqliteStore) -> None:
    """Wait until each transaction that was watched has ended."""
    await asyncio.sleep(0)  # noqa: TID251 - what was handed to the loop begins
    assert store._sessions is not None
    # A list: by the time that the wait begins they may have ended, and left the set.
    if tasks := list(store._sessions.watch._tasks):
        await soon(asyncio.wait(tasks))


async def test_rollback_to_a_savepoint_takes_the_job_along(
    store: SqliteStore, tmp_db: Path
) -> None:
    ears = Ears(tmp_db)
    async with async_session(tmp_db, recipe=True) as held:
        session = store.session(held.source)
        await held.execute("INSERT INTO orders (item) VALUES ('tea')")
        nested = await held.source.begin_nested()
        await session.insert([new()], now=NOW)
        session.watch(ears.tell, ears.lost)
        await nested.rollback()
        async with held.source.begin_nested():
            await session.insert([new(task="kept")], now=NOW)
            session.watch(ears.tell, ears.lost)
        assert ears.seen.empty()
        await held.commit()
        assert await ears.told() == 1
        nested = await held.source.begin_nested()
        await session.insert([new()], now=NOW)
        session.watch(ears.tell, ears.lost)
        await nested.rollback()
    assert ears.lost_count == 0
    (row,) = (await store.jobs.list(Filter(), before=None, limit=10)).rows
    assert row.task == "kept"


async def test_session_inside_somebody_elses_transaction_tells_after_that_ones_commit(
    store: SqliteStore, tmp_db: Path
) -> None:
    ears = Ears(tmp_db)
    engine = sync_engine(tmp_db)
    with engine.connect() as connection:
        outer = connection.begin()
        connection.execute(text("INSERT INTO orders (item) VALUES ('tea')"))
        with AlchemySession(connection) as inner:
            session = store.session(inner)
            await session.insert([new()], now=NOW)
            session.watch(ears.tell, ears.lost)
            inner.commit()
        assert ears.seen.empty()
        outer.commit()
        assert await ears.told() == 1
    engine.dispose()


# -- cancellation ----------------------------------------------------------------------------------


async def test_C4_enqueue_that_is_cancelled_anywhere_is_in_the_transaction_whole_or_not_at_all(
    store: SqliteStore, tmp_db: Path
) -> None:
    for kind in (one for one in KINDS if not one.is_blocking):
        for turns in range(12):
            async with kind.hold(tmp_db) as held:
                await held.execute("UPDATE orders SET item = 'tea'")
                jobs = [new(task=f"{kind.name} {turns}"), new(task=f"{kind.name} {turns}")]
                storing = asyncio.ensure_future(store.session(held.source).insert(jobs, now=NOW))
                for _ in range(turns):
                    await asyncio.sleep(0)  # noqa: TID251 - turns of the loop
                storing.cancel()
                await asyncio.wait([storing])
                await held.commit()
            page = await store.jobs.list(Filter(task=f"{kind.name} {turns}"), before=None, limit=10)
            assert len(page.rows) in (0, 2)
