"""An app on a runner whose queue joins the session of each request."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from jobrunner import JobRunner, TaskRouter
from tests.support.engine import PATIENCE_S
from tests.support.sessions import async_engine, make_table

tasks = TaskRouter()

ADD = text("INSERT INTO orders (item) VALUES ('tea')")
"""Adds a row to the app's own table."""


@tasks.task
async def ship(order: int) -> int:
    """Return the order."""
    return order


@tasks.task
async def bill(order: int) -> None:
    """Do nothing."""


class Shop:
    """An app on a runner with the shipped form of a session: commit after the route, before the answer."""

    def __init__(self, database: Path) -> None:
        self.path = database
        self.engine: AsyncEngine = async_engine(database)
        self.sessions: list[AsyncSession] = []
        self.jobs = JobRunner(database, session=Depends(self.get_session, scope="function"))
        self.jobs.include(tasks)
        self.app = FastAPI(lifespan=self.jobs.lifespan)
        self.client = TestClient(self.app, raise_server_exceptions=False)

    async def get_session(self) -> AsyncIterator[AsyncSession]:
        """Yield the session of a request, and commit it."""
        async with AsyncSession(self.engine) as session, session.begin():
            self.sessions.append(session)
            yield session

    def ids(self) -> list[str]:
        """Return the ids of all jobs, as a stranger sees them."""
        conn = sqlite3.connect(self.path)
        try:
            return [id for (id,) in conn.execute("SELECT id FROM jobrunner_jobs ORDER BY seq")]
        finally:
            conn.close()

    @contextmanager
    def open(self) -> Iterator[TestClient]:
        """Open the app and make its own table."""
        with self.client as client:
            make_table(self.path)
            yield client
            assert client.portal is not None
            client.portal.call(self.engine.dispose)

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run an async function on the loop of the app."""
        assert self.client.portal is not None
        return self.client.portal.call(function, *args)


async def result_of(jobs: JobRunner, id: str) -> object:
    """Wait for the result of a job."""
    return await (await jobs.get(id)).result(PATIENCE_S)
