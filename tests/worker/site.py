"""A runner with a session of any kind, for the tests of what is committed with a job's end."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiosqlite
import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from tenacity import wait_none

from jobrunner import (
    Job,
    JobDead,
    JobRunner,
    TaskRouter,
)
from jobrunner.sqlalchemy import attach
from tests.support import postgres
from tests.support.engine import supervisor_of

ON_SQLITE = ("AsyncSession", "begun AsyncSession", "aiosqlite")
"""The second as the README has it: ``async with session.begin(): yield session``."""
KINDS = [*ON_SQLITE]
BLOCKING = ["Session", "sqlite3"]

PREFIX = "postgres "
"""Of the kinds of sessions on PostgreSQL."""
if postgres.is_wanted():
    kinds = ["begun AsyncSession", "begun asyncpg"]
    if postgres.is_wanted_everywhere():
        kinds += ["AsyncSession", "psycopg AsyncSession", "psycopg"]
        BLOCKING.append(f"{PREFIX}blocking psycopg")
    KINDS += [f"{PREFIX}{kind}" for kind in kinds]
    BLOCKING.append(f"{PREFIX}Session")


class Site:
    """A runner with a session, and the table that its tasks write to."""

    def __init__(self, where: Path | str, kind: str) -> None:
        self.where = where
        self.kind = kind
        self.closed = 0
        self.is_postgres = kind.startswith(PREFIX)
        url = str(where) if self.is_postgres else f"sqlite:///{where}"
        get_session = self._on_postgres(url) if self.is_postgres else self._on_sqlite(url)
        self.get_session = get_session[kind.removeprefix(PREFIX)]
        self._make_table()
        self.jobs = JobRunner(url, queues={"default": 8}, session=self.get_session)
        self.tasks = TaskRouter(max_attempts=2, wait=wait_none())

    def _on_sqlite(self, url: str) -> dict[str, Any]:
        self.engine = create_async_engine(url.replace("sqlite:", "sqlite+aiosqlite:"))
        self.sync_engine = create_engine(url)
        attach(self.engine)
        attach(self.sync_engine)
        return {
            "AsyncSession": self._async_session,
            "begun AsyncSession": self._begun_session,
            "aiosqlite": self._aiosqlite,
            "Session": self._session,
            "sqlite3": self._sqlite,
        }

    def _on_postgres(self, url: str) -> dict[str, Any]:
        driver = "psycopg" if "psycopg" in self.kind else "asyncpg"
        self.engine = create_async_engine(url.replace("postgresql:", f"postgresql+{driver}:"))
        self.sync_engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        return {
            "AsyncSession": self._async_session,
            "begun AsyncSession": self._begun_session,
            "psycopg AsyncSession": self._async_session,
            "begun asyncpg": self._begun_asyncpg,
            "psycopg": self._psycopg,
            "Session": self._session,
            "blocking psycopg": self._blocking_psycopg,
        }

    async def _async_session(self) -> AsyncIterator[AsyncSession]:
        async with AsyncSession(self.engine) as session:
            yield session
        self.closed += 1

    async def _begun_session(self) -> AsyncIterator[AsyncSession]:
        async with AsyncSession(self.engine) as session, session.begin():
            yield session
        self.closed += 1

    async def _aiosqlite(self) -> AsyncIterator[aiosqlite.Connection]:
        async with aiosqlite.connect(self.where) as connection:
            yield connection
        self.closed += 1

    def _session(self) -> Iterator[Session]:
        with Session(self.sync_engine) as session:
            yield session
        self.closed += 1

    def _sqlite(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.where, check_same_thread=False)
        with contextlib.closing(connection):
            yield connection
        self.closed += 1

    async def _begun_asyncpg(self) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(self.where)
        try:
            async with connection.transaction():
                yield connection
        finally:
            await connection.close()
        self.closed += 1

    async def _psycopg(self) -> AsyncIterator[Any]:
        async with await psycopg.AsyncConnection.connect(str(self.where)) as connection:
            yield connection
        self.closed += 1

    def _blocking_psycopg(self) -> Iterator[Any]:
        with psycopg.connect(str(self.where)) as connection:
            yield connection
        self.closed += 1

    async def add(self, tx: Any, word: str) -> None:
        await self.run(tx, "INSERT INTO words VALUES (?)", word)

    async def run(self, tx: Any, sql: str, *values: object) -> Any:
        """Run a statement with ``?`` for its values; return what the session returns."""
        sql, given = self._spoken(sql, values)
        return await tx.execute(sql, *given)

    def add_now(self, tx: Any, word: str) -> None:
        sql, given = self._spoken("INSERT INTO words VALUES (?)", (word,))
        tx.execute(sql, *given)

    def _spoken(self, sql: str, values: Sequence[object]) -> tuple[Any, Sequence[Any]]:
        """Return a statement and its values as the driver takes them."""
        parts = sql.split("?")
        if self.kind.endswith("Session"):
            names = [f":p{number}" for number in range(len(values))]
            return text(_joined(parts, names)), [
                dict(zip((n[1:] for n in names), values, strict=True))
            ]
        if self.kind.endswith("asyncpg"):
            return _joined(parts, [f"${number}" for number in range(1, len(values) + 1)]), values
        return _joined(parts, ["%s" if self.is_postgres else "?"] * len(values)), [values]

    async def commit(self, tx: Any) -> None:
        """Commit as the application does."""
        await (tx.execute("COMMIT") if self.kind.endswith("asyncpg") else tx.commit())

    def outside(self, sql: str) -> None:
        """Run a statement on another connection, which names tables of jobrunner as the store does."""
        if self.is_postgres:
            with psycopg.connect(str(self.where), autocommit=True) as connection:
                connection.execute(sql.replace("jobrunner_", "jobrunner."))
        else:
            with contextlib.closing(sqlite3.connect(self.where)) as db, db:
                db.execute(sql)

    def words(self) -> list[str]:
        sql = "SELECT word FROM words ORDER BY word"
        if self.is_postgres:
            with psycopg.connect(str(self.where), autocommit=True) as connection:
                return [word for (word,) in connection.execute(sql)]
        with contextlib.closing(sqlite3.connect(self.where)) as db:
            return [word for (word,) in db.execute(sql)]

    def _make_table(self) -> None:
        if self.is_postgres:
            with psycopg.connect(str(self.where), autocommit=True) as connection:
                connection.execute("DROP TABLE IF EXISTS words")
                connection.execute("CREATE TABLE words (word text NOT NULL UNIQUE)")
        else:
            with contextlib.closing(sqlite3.connect(self.where)) as db:
                db.execute("CREATE TABLE words (word TEXT NOT NULL UNIQUE)")

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[JobRunner]:
        self.jobs.include(self.tasks)
        try:
            async with self.jobs.running():
                yield self.jobs
        finally:
            await self.engine.dispose()
            self.sync_engine.dispose()


def _joined(parts: Sequence[str], names: Sequence[str]) -> str:
    """Return a statement with these names for its values."""
    return "".join(part + name for part, name in zip(parts, [*names, ""], strict=True))


async def ended(job: Job[Any]) -> Job[Any]:
    with contextlib.suppress(JobDead):
        await job.result(timeout=15)
    return await job.refresh()


async def until_logged(caplog: pytest.LogCaptureFixture, words: str) -> None:
    while not any(words in record.getMessage() for record in caplog.records):  # noqa: ASYNC110
        await asyncio.sleep(0.01)  # noqa: TID251 - a log is not told


async def until_idle(jobs: JobRunner) -> None:
    while any(supervisor_of(jobs)._busy.values()):  # noqa: ASYNC110
        await asyncio.sleep(0.01)  # noqa: TID251 - nobody tells of a stale end
