"""The application of the tests of joined jobs: one order and one job in each request's transaction."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Annotated

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from fastapi import Depends, FastAPI
from jobrunner import JobQueue, JobRunner
from jobrunner.sqlalchemy import attach


def create_app() -> FastAPI:
    """Make the app; the environment names its file, in which the table of orders is there already."""
    file = os.environ["SITE_DATABASE"]
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}")
    attach(engine)

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as session, session.begin():
            yield session
            # Time for an answer to leave too early, and for a client to go.
            await asyncio.sleep(0.01)  # noqa: TID251 - a commit takes its time

    jobs = JobRunner(file, session=Depends(get_session, scope="function"))

    @jobs.task
    async def ship(item: str) -> None: ...

    app = FastAPI(lifespan=jobs.lifespan)

    @app.post("/orders/{item}", status_code=201)
    async def order(
        item: str,
        session: Annotated[AsyncSession, Depends(get_session, scope="function")],
        queue: Annotated[JobQueue, Depends(jobs.queue)],
    ) -> str:
        await session.execute(text("INSERT INTO orders (item) VALUES (:item)"), {"item": item})
        job = await queue.enqueue(ship.options(tag=item, delay=3600), item)
        return job.id

    @app.get("/pid")
    async def pid() -> int:
        return os.getpid()

    return app
