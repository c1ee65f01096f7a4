"""Sessions that the PostgreSQL store refuses, each with its reason."""

from collections.abc import AsyncIterator

import asyncpg
import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session as AlchemySession

from jobrunner.core.errors import InvalidSession
from jobrunner.store.postgres.store import PostgresStore
from tests.support.factories import NOW, new
from tests.support.postgres_sessions import (
    Kind,
    async_session,
    count_jobs,
    count_rows,
    every_kind,
    make_table,
    with_driver,
)


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(postgres_url)
    await store.open()
    make_table(postgres_url)
    yield store
    await store.close()


async def refused(store: PostgresStore, source: object, match: str) -> None:
    with pytest.raises(InvalidSession, match=match):
        await store.session(source).insert([new()], now=NOW)


@every_kind
async def test_session_on_another_database_is_refused_and_its_transaction_goes_on(
    store: PostgresStore, bare_postgres_url: str, kind: Kind
) -> None:
    make_table(bare_postgres_url)
    async with kind.hold(bare_postgres_url) as held:
        await held.execute("INSERT INTO orders (item) VALUES ('tea')")
        await refused(store, held.source, "one transaction cannot span both")
        await held.commit()
    assert count_rows(bare_postgres_url) == 1


async def test_session_on_sqlite_is_refused(store: PostgresStore) -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    async with AsyncSession(engine) as session:
        await refused(store, session, r"sqlite\+aiosqlite .*one transaction cannot span both")
    await engine.dispose()


async def test_session_in_autocommit_mode_is_refused(
    store: PostgresStore, postgres_url: str
) -> None:
    for driver in ("asyncpg", "psycopg"):
        async with async_session(driver)(postgres_url, isolation_level="AUTOCOMMIT") as held:
            await refused(store, held.source, "autocommit mode")
    connection = await asyncpg.connect(postgres_url)
    await refused(store, connection, r"async with connection.transaction\(\)")
    await connection.close()
    with psycopg.connect(postgres_url, autocommit=True) as blocking:
        await refused(store, blocking, "autocommit mode")
    assert count_jobs(postgres_url) == 0


async def test_closed_sessions_are_refused(store: PostgresStore, postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.close()
    await refused(store, connection, "connection is closed")
    async with asyncpg.create_pool(postgres_url, min_size=1, max_size=1) as pool:
        async with pool.acquire() as lent:
            pass
        await refused(store, lent, "connection is closed")
    blocking = psycopg.connect(postgres_url)
    blocking.close()
    await refused(store, blocking, "connection is closed")
    async with async_session("asyncpg")(postgres_url) as held:
        async with held.source.bind.connect() as from_engine:
            pass
        await refused(store, from_engine, "gives no connection")


async def test_session_on_an_async_engine_is_refused_with_the_line(
    store: PostgresStore, postgres_url: str
) -> None:
    engine = create_async_engine(with_driver(postgres_url, "asyncpg"))
    with AlchemySession(engine.sync_engine) as session:
        await refused(store, session, "hand in the AsyncSession")
    await engine.dispose()


async def test_something_else_is_refused_by_kind(store: PostgresStore) -> None:
    with pytest.raises(InvalidSession, match="hand in an AsyncSession"):
        store.session("session")


async def test_read_only_transaction_is_refused(store: PostgresStore, postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    async with connection.transaction(readonly=True):
        await refused(store, connection, "read-only")
    await connection.close()
