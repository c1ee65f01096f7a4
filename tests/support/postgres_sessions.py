"""The kinds of sessions that an application may hold on PostgreSQL: how each is opened and spoken to."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

import asyncpg
import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from tests.support.engine import PATIENCE_S
from tests.support.sessions import Held

Hold = Callable[..., AbstractAsyncContextManager[Held]]
"""Opens a session on the database of a URL; some take options of SQLAlchemy's engines too."""


def with_driver(url: str, driver: str) -> str:
    """Return a URL for SQLAlchemy."""
    return url.replace("postgresql://", f"postgresql+{driver}://")


def async_session(driver: str) -> Hold:
    """Return what opens an ``AsyncSession``."""

    @asynccontextmanager
    async def hold(url: str, **options: Any) -> AsyncIterator[Held]:
        engine = create_async_engine(with_driver(url, driver), **options)
        try:
            async with AsyncSession(engine) as session:

                async def execute(sql: str) -> None:
                    await session.execute(text(sql))

                yield Held(session, execute, session.commit, session.rollback)
        finally:
            await engine.dispose()

    return hold


def async_connection(driver: str) -> Hold:
    """Return what opens an ``AsyncConnection``."""

    @asynccontextmanager
    async def hold(url: str, **options: Any) -> AsyncIterator[Held]:
        engine = create_async_engine(with_driver(url, driver), **options)
        try:
            async with engine.connect() as connection:

                async def execute(sql: str) -> None:
                    await connection.execute(text(sql))

                yield Held(connection, execute, connection.commit, connection.rollback)
        finally:
            await engine.dispose()

    return hold


@asynccontextmanager
async def session(url: str, **options: Any) -> AsyncIterator[Held]:
    engine = create_engine(with_driver(url, "psycopg"), **options)
    try:
        with Session(engine) as held:

            async def execute(sql: str) -> None:
                held.execute(text(sql))

            async def commit() -> None:
                held.commit()

            async def rollback() -> None:
                held.rollback()

            yield Held(held, execute, commit, rollback)
    finally:
        engine.dispose()


@asynccontextmanager
async def asyncpg_connection(url: str) -> AsyncIterator[Held]:
    """Open a connection; the first statement of each transaction is a BEGIN of the application."""
    connection = await asyncpg.connect(url)
    try:
        yield _of_asyncpg(connection)
    finally:
        await connection.close()


@asynccontextmanager
async def pooled_asyncpg_connection(url: str) -> AsyncIterator[Held]:
    """Borrow a connection from a pool."""
    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool, pool.acquire() as lent:
        yield _of_asyncpg(lent)


def _of_asyncpg(connection: Any) -> Held:
    begun: list[Any] = []

    async def begin() -> None:
        if not connection.is_in_transaction():
            begun[:] = [connection.transaction()]
            await begun[0].start()

    async def execute(sql: str) -> None:
        await begin()
        await connection.execute(sql)

    async def commit() -> None:
        if begun:
            await begun.pop().commit()

    async def rollback() -> None:
        if begun:
            await begun.pop().rollback()

    return Held(connection, execute, commit, rollback, begin)


@asynccontextmanager
async def psycopg_connection(url: str) -> AsyncIterator[Held]:
    async with await psycopg.AsyncConnection.connect(url, row_factory=dict_row) as connection:

        async def execute(sql: str) -> None:
            await connection.execute(sql.encode())

        try:
            yield Held(connection, execute, connection.commit, connection.rollback)
        finally:
            await connection.close()  # otherwise the block would commit


@asynccontextmanager
async def blocking_psycopg_connection(url: str) -> AsyncIterator[Held]:
    with psycopg.connect(url, row_factory=dict_row) as connection:

        async def execute(sql: str) -> None:
            connection.execute(sql.encode())

        async def commit() -> None:
            connection.commit()

        async def rollback() -> None:
            connection.rollback()

        try:
            yield Held(connection, execute, commit, rollback)
        finally:
            connection.close()


class Kind:
    """One kind: ``hold`` opens a session on a database."""

    def __init__(self, name: str, hold: Hold, *, is_blocking: bool = False) -> None:
        self.name = name
        self.hold = hold
        self.is_blocking = is_blocking


KINDS: Final = (
    Kind("AsyncSession-asyncpg", async_session("asyncpg")),
    Kind("AsyncSession-psycopg", async_session("psycopg")),
    Kind("AsyncConnection-asyncpg", async_connection("asyncpg")),
    Kind("AsyncConnection-psycopg", async_connection("psycopg")),
    Kind("Session-psycopg", session, is_blocking=True),
    Kind("asyncpg", asyncpg_connection),
    Kind("asyncpg-pool", pooled_asyncpg_connection),
    Kind("psycopg-async", psycopg_connection),
    Kind("psycopg", blocking_psycopg_connection, is_blocking=True),
)

every_kind = pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
"""Runs a test on each kind."""


class Ears:
    """Records the calls of ``watch``, and the rows that another connection saw at that moment."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._loop = asyncio.get_running_loop()
        self.seen: asyncio.Queue[int] = asyncio.Queue()
        self.lost_count = 0

    def tell(self) -> None:
        count = count_jobs(self._url)
        self._loop.call_soon_threadsafe(self.seen.put_nowait, count)

    def lost(self) -> None:
        self.lost_count += 1

    async def told(self) -> int:
        """Wait for a call; return how many jobs others saw at that moment."""
        return await asyncio.wait_for(self.seen.get(), PATIENCE_S)


def count_jobs(url: str) -> int:
    """Count the jobs as a stranger sees them."""
    return int(ask(url, "SELECT count(*) FROM jobrunner.jobs"))


def count_rows(url: str) -> int:
    """Count the rows of the application's table as a stranger sees them."""
    return int(ask(url, "SELECT count(*) FROM public.orders"))


def ask(url: str, sql: str) -> Any:
    """Return the first value of a statement of a stranger."""
    with psycopg.connect(url, autocommit=True) as stranger:
        row = stranger.execute(sql.encode()).fetchone()
        return None if row is None else row[0]


def make_table(url: str) -> None:
    """Make the application's own table, empty."""
    with psycopg.connect(url, autocommit=True) as stranger:
        stranger.execute(
            "CREATE TABLE IF NOT EXISTS public.orders"
            " (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, item text UNIQUE)"
        )
        stranger.execute("TRUNCATE public.orders")


async def begun(held: Held) -> None:
    """Begin a transaction where the driver would not: with asyncpg each statement commits by itself."""
    if held.begin is not None:
        await held.begin()
