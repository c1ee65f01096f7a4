"""The five kinds of sessions that an application may hold, as a table: how each is opened and spoken to."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiosqlite
import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from jobrunner.sqlalchemy import attach
from tests.support.engine import PATIENCE_S


class Held(NamedTuple):
    """An open session, and the application's own words to it."""

    source: Any
    execute: Callable[[str], Awaitable[None]]
    commit: Callable[[], Awaitable[None]]
    rollback: Callable[[], Awaitable[None]]
    begin: Callable[[], Awaitable[None]] | None = None
    """Begins a transaction, where the driver begins none itself."""


class Kind(NamedTuple):
    """One kind: ``hold`` opens a session on a file."""

    name: str
    hold: Callable[[Path], AbstractAsyncContextManager[Held]]
    is_blocking: bool = False


def async_engine(path: Path, **options: Any) -> AsyncEngine:
    """Return an attached engine."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", **options)
    attach(engine)
    return engine


def sync_engine(path: Path, **options: Any) -> Engine:
    """Return an attached engine."""
    engine = create_engine(f"sqlite:///{path}", **options)
    attach(engine)
    return engine


def emits_begin(engine: Engine) -> None:
    """Set an engine up as SQLAlchemy's documentation says for real transactions: it says BEGIN, not the driver."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, entry: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")


@asynccontextmanager
async def async_session(path: Path, recipe: bool = False) -> AsyncIterator[Held]:
    engine = async_engine(path)
    if recipe:
        emits_begin(engine.sync_engine)
    try:
        async with AsyncSession(engine) as session:

            async def execute(sql: str) -> None:
                await session.execute(text(sql))

            yield Held(session, execute, session.commit, session.rollback)
    finally:
        await engine.dispose()


@asynccontextmanager
async def async_connection(path: Path, recipe: bool = False) -> AsyncIterator[Held]:
    engine = async_engine(path)
    if recipe:
        emits_begin(engine.sync_engine)
    try:
        async with engine.connect() as connection:

            async def execute(sql: str) -> None:
                await connection.execute(text(sql))

            yield Held(connection, execute, connection.commit, connection.rollback)
    finally:
        await engine.dispose()


@asynccontextmanager
async def session(path: Path, recipe: bool = False) -> AsyncIterator[Held]:
    engine = sync_engine(path)
    if recipe:
        emits_begin(engine)
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
async def aiosqlite_connection(path: Path) -> AsyncIterator[Held]:
    async with aiosqlite.connect(path) as connection:
        factory: Any = _as_dict
        connection.row_factory = factory

        async def execute(sql: str) -> None:
            await connection.execute(sql)

        yield Held(connection, execute, connection.commit, connection.rollback)


def _as_dict(cursor: sqlite3.Cursor, row: tuple[object, ...]) -> dict[str, object]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


@asynccontextmanager
async def sqlite_connection(path: Path) -> AsyncIterator[Held]:
    connection = sqlite3.connect(path, check_same_thread=False)
    connection.row_factory = sqlite3.Row

    async def execute(sql: str) -> None:
        connection.execute(sql)

    async def commit() -> None:
        connection.commit()

    async def rollback() -> None:
        connection.rollback()

    try:
        yield Held(connection, execute, commit, rollback)
    finally:
        connection.close()


KINDS: Final = (
    Kind("AsyncSession", async_session),
    Kind("AsyncSession-recipe", lambda path: async_session(path, recipe=True)),
    Kind("AsyncConnection", async_connection),
    Kind("AsyncConnection-recipe", lambda path: async_connection(path, recipe=True)),
    Kind("Session", session, is_blocking=True),
    Kind("Session-recipe", lambda path: session(path, recipe=True), is_blocking=True),
    Kind("aiosqlite", aiosqlite_connection),
    Kind("sqlite3", sqlite_connection, is_blocking=True),
)

every_kind = pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
"""Runs a test on each kind."""


class Ears:
    """Records the calls of ``watch``, and the rows that another connection saw at that moment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self.seen: asyncio.Queue[int] = asyncio.Queue()
        self.lost_count = 0

    def tell(self) -> None:
        count = count_jobs(self._path)
        self._loop.call_soon_threadsafe(self.seen.put_nowait, count)

    def lost(self) -> None:
        self.lost_count += 1

    async def told(self) -> int:
        """Wait for a call; return how many jobs others saw at that moment."""
        return await asyncio.wait_for(self.seen.get(), PATIENCE_S)


def count_jobs(path: Path) -> int:
    """Count the jobs as a stranger sees them."""
    return _ask(path, "SELECT count(*) FROM jobrunner_jobs")


def count_rows(path: Path) -> int:
    """Count the rows of the application's table as a stranger sees them."""
    return _ask(path, "SELECT count(*) FROM orders")


def _ask(path: Path, sql: str) -> int:
    stranger = sqlite3.connect(path)
    try:
        return int(stranger.execute(sql).fetchone()[0])
    finally:
        stranger.close()


def make_table(path: Path) -> None:
    """Make the application's own table."""
    conn = sqlite3.connect(path)
    conn.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, item TEXT UNIQUE)")
    conn.commit()
    conn.close()
