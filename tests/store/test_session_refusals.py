"""Sessions that the store refuses, and connections that it prepares."""

import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session as AlchemySession
from sqlalchemy.pool import NullPool

from jobrunner.core.errors import InvalidSession, StoreBusy
from jobrunner.sqlalchemy import attach
from jobrunner.store.sqlite import SqliteStore
from tests.support.factories import NOW, enqueue, new
from tests.support.sessions import (
    Ears,
    Kind,
    async_engine,
    async_session,
    count_jobs,
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
