"""A runner with a session of any kind, for the tests of what is committed with a job's end."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiosqlite
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
from tests.support.engine import supervisor_of

KINDS = ["AsyncSession", "begun AsyncSession", "aiosqlite"]
"""The second as the README has it: ``async with session.begin(): yield session``."""


class Site:
    """A runner with a session, and the table that its tasks write to."""

    def __init__(self, file: Path, kind: str) -> None:
        self.file = file
        self.kind = kind
        with contextlib.closing(sqlite3.connect(file)) as db:
            db.execute("CREATE TABLE words (word TEXT NOT NULL UNIQUE)")
        self.engine = create_async_engine(f"sqlite+aiosqlite:///{file}")
        attach(self.engine)
        self.sync_engine = create_engine(f"sqlite:///{file}")
        attach(self.sync_engine)
        self.closed = 0
        self.get_session = {
            "AsyncSession": self._async_session,
            "begun AsyncSession": self._begun_session,
            "aiosqlite": self._aiosqlite,
            "Session": self._session,
            "sqlite3": self._sqlite,
        }[kind]
        self.jobs = JobRunner(file, queues={"default": 8}, session=self.get_session)
        self.tasks = TaskRouter(max_attempts=2, wait=wait_none())

    async def _async_session(self) -> AsyncIterator[AsyncSession]:
        async with AsyncSession(self.engine) as session:
            yield session
        self.closed += 1

    async def _begun_session(self) -> AsyncIterator[AsyncSession]:
        async with AsyncSession(self.engine) as session, session.begin():
            yield session
        self.closed += 1

    async def _aiosqlite(self) -> AsyncIterator[aiosqlite.Connection]:
        async with aiosqlite.connect(self.file) as connection:
            yield connection
        self.closed += 1

    def _session(self) -> Iterator[Session]:
        with Session(self.sync_engine) as session:
            yield session
        self.closed += 1

    def _sqlite(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self.file, check_same_thread=False)) as connection:
            yield connection
        self.closed += 1

    async def add(self, tx: Any, word: str) -> None:
        if self.kind.endswith("AsyncSession"):
            await tx.execute(text("INSERT INTO words VALUES (:word)"), {"word": word})
        else:
            await tx.execute("INSERT INTO words VALUES (?)", (word,))

    def add_now(self, tx: Any, word: str) -> None:
        if self.kind == "Session":
            tx.execute(text("INSERT INTO words VALUES (:word)"), {"word": word})
        else:
            tx.execute("INSERT INTO words VALUES (?)", (word,))

    def words(self) -> list[str]:
        with contextlib.closing(sqlite3.connect(self.file)) as db:
            return [word for (word,) in db.execute("SELECT word FROM words ORDER BY word")]

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[JobRunner]:
        self.jobs.include(self.tasks)
        try:
            async with self.jobs.running():
                yield self.jobs
        finally:
            await self.engine.dispose()
            self.sync_engine.dispose()


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
