"""The application's sessions, every kind on a real file.

Jobs and outcomes are written in its transaction, and the end of the transaction is noticed.
"""

import asyncio
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session as AlchemySession
from sqlalchemy.pool import NullPool

from jobrunner.core.errors import InvalidSession, StoreBusy, StoreUnavailable
from jobrunner.core.model import Filter
from jobrunner.sqlalchemy import attach
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
    async_engine,
    async_session,
    count_jobs,
    count_rows,
    make_table,
    sync_engine,
)

every_kind = pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])


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


# -- refusals ----------------------------------------------------------------------------------------


async def refused(store: SqliteStore, source: object, match: str) -> None:
    with pytest.raises(InvalidSession, match=match):
        await store.session(source).insert([new()], now=NOW)


async def test_engine_that_is_not_attached_is_refused_with_the_line(
    store: SqliteStore, tmp_db: Path
) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_db}")
    async with AsyncSession(engine) as session:
        await refused(store, session, r"not attached.*write attach\(engine\)")
        await refused(store, await session.connection(), r"write attach\(engine\)")
    await engine.dispose()
    sync = create_engine(f"sqlite:///{tmp_db}")
    with AlchemySession(sync) as blocking:
        await refused(store, blocking, r"write attach\(engine\)")
    sync.dispose()


@every_kind
async def test_session_on_another_file_is_refused(
    store: SqliteStore, tmp_db: Path, kind: Kind
) -> None:
    other = tmp_db.with_name("other.db")
    make_table(other)
    async with kind.hold(other) as held:
        await refused(store, held.source, r"writes to .*other\.db and the jobs are in .*jobs\.db")
        await held.execute("INSERT INTO orders (item) VALUES ('tea')")
        await refused(store, held.source, "one transaction cannot span both")


async def test_session_on_the_same_file_by_another_name_is_taken(
    store: SqliteStore, tmp_db: Path
) -> None:
    link = tmp_db.with_name("link.db")
    link.symlink_to(tmp_db)
    async with async_session(link) as held:
        await store.session(held.source).insert([new()], now=NOW)
        await held.commit()
    assert count_jobs(tmp_db) == 1


async def test_weaker_engine_under_a_full_runner_is_refused(
    store: SqliteStore, tmp_db: Path
) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_db}")
    attach(engine, durability="normal")
    async with AsyncSession(engine) as session:
        await refused(store, session, r"durability=\"normal\"")
    await engine.dispose()


def weak(conn: sqlite3.Connection) -> None:
    conn.execute("PRAGMA synchronous = OFF")
    conn.execute("PRAGMA mmap_size = 1000000")


def pragmas(conn: sqlite3.Connection) -> tuple[int, ...]:
    return tuple(
        conn.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("synchronous", "wal_autocheckpoint", "mmap_size")
    )


async def hop(connection: Any, function: Callable[[sqlite3.Connection], Any]) -> Any:
    return await connection._execute(function, connection._conn)


async def test_bare_connections_are_prepared_when_they_are_handed_in(
    store: SqliteStore, tmp_db: Path
) -> None:
    conn = sqlite3.connect(tmp_db)
    weak(conn)
    await store.session(conn).insert([new()], now=NOW)
    assert pragmas(conn) == (2, 0, 0)
    conn.rollback()
    weak(conn)
    conn.execute("INSERT INTO orders (item) VALUES ('tea')")
    await refused(store, conn, "PRAGMA synchronous = FULL")
    assert conn.in_transaction
    conn.close()
    async with aiosqlite.connect(tmp_db) as connection:
        await hop(connection, weak)
        await store.session(connection).insert([new()], now=NOW)
        assert await hop(connection, pragmas) == (2, 0, 0)


async def test_attached_connections_keep_the_promises_from_the_start(tmp_db: Path) -> None:
    for durability, level in (("full", 2), ("normal", 1)):
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_db}")
        attach(engine, durability=durability)  # type: ignore[arg-type]
        attach(engine, durability=durability)  # type: ignore[arg-type]
        async with engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            assert await driver._execute(pragmas, driver._conn) == (level, 0, 0)
        await engine.dispose()
        sync = create_engine(f"sqlite:///{tmp_db}", poolclass=NullPool)
        attach(sync, durability=durability)  # type: ignore[arg-type]
        with sync.connect() as blocking:
            raw: Any = blocking.connection.driver_connection
            assert pragmas(raw) == (level, 0, 0)


async def test_connection_in_autocommit_mode_is_refused_unless_it_has_begun(
    store: SqliteStore, tmp_db: Path
) -> None:
    conn = sqlite3.connect(tmp_db, isolation_level=None)
    await refused(store, conn, 'connection.execute\\("BEGIN IMMEDIATE"\\)')
    conn.execute("BEGIN IMMEDIATE")
    await store.session(conn).insert([new()], now=NOW)
    assert count_jobs(tmp_db) == 0
    conn.execute("COMMIT")
    conn.close()
    assert count_jobs(tmp_db) == 1
    engine = async_engine(tmp_db, isolation_level="AUTOCOMMIT")
    async with AsyncSession(engine) as session:
        await refused(store, session, "autocommit mode")
    await engine.dispose()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="autocommit= came with Python 3.12")
@pytest.mark.parametrize("always", [True, False])
async def test_connection_of_python_3_12s_autocommit_attribute(
    store: SqliteStore, tmp_db: Path, always: bool
) -> None:
    options: dict[str, Any] = {"autocommit": always}
    conn = sqlite3.connect(tmp_db, **options)
    session = store.session(conn)
    await session.begin()
    await session.insert([new(), new()], now=NOW)
    ears = Ears(tmp_db)
    session.watch(ears.tell, ears.lost)
    assert count_jobs(tmp_db) == 0
    await session.commit()
    assert await ears.told() == 2
    if always:
        await refused(store, conn, "autocommit mode")
    conn.close()


async def test_closed_and_failed_sessions_are_refused(store: SqliteStore, tmp_db: Path) -> None:
    conn = sqlite3.connect(tmp_db)
    conn.close()
    await refused(store, conn, "connection is closed")
    connection = await aiosqlite.connect(tmp_db)
    await connection.close()
    await refused(store, connection, "connection is closed")
    engine = async_engine(tmp_db)
    async with engine.connect() as from_engine:
        pass
    await refused(store, from_engine, "gives no connection")
    strict = AsyncSession(engine, close_resets_only=False)
    await strict.close()
    await refused(store, strict, "gives no connection")
    await engine.dispose()


async def test_session_whose_transaction_has_failed_is_refused(
    store: SqliteStore, tmp_db: Path
) -> None:
    engine = sync_engine(tmp_db)
    with AlchemySession(engine) as session, session.begin() as transaction:
        transaction.rollback()
        await refused(store, session, "gives no connection")
    engine.dispose()


async def test_connection_of_another_thread_is_refused_with_the_line(
    store: SqliteStore, tmp_db: Path
) -> None:
    with ThreadPoolExecutor(max_workers=1) as thread:
        conn = thread.submit(sqlite3.connect, tmp_db).result()
        await refused(store, conn, "check_same_thread=False")
        thread.submit(conn.close).result()  # nobody else may


async def test_something_else_is_refused_by_kind(store: SqliteStore) -> None:
    with pytest.raises(InvalidSession, match="hand in an AsyncSession"):
        store.session("session")


async def test_busy_file_is_refused_as_busy(store: SqliteStore, tmp_db: Path) -> None:
    other = sqlite3.connect(tmp_db)
    other.execute("BEGIN IMMEDIATE")
    conn = sqlite3.connect(tmp_db, timeout=0)
    with pytest.raises(StoreBusy):
        await store.session(conn).insert([new()], now=NOW)
    other.close()
    await store.session(conn).insert([new()], now=NOW)
    conn.close()


async def test_session_that_has_read_an_older_state_is_told_so(
    store: SqliteStore, tmp_db: Path
) -> None:
    conn = sqlite3.connect(tmp_db)
    conn.execute("BEGIN")
    conn.execute("SELECT count(*) FROM orders").fetchone()
    await enqueue(store, new())
    with pytest.raises(StoreBusy, match="has read"):
        await store.session(conn).insert([new()], now=NOW)
    conn.rollback()
    await store.session(conn).insert([new()], now=NOW)
    conn.close()


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
