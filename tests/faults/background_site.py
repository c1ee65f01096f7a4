"""The application of the tests of background tasks behind a real server; its jobs are stored and never run."""

import os
from collections.abc import AsyncIterator
from typing import Annotated

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from fastapi import Depends, FastAPI
from jobrunner import JobRunner
from jobrunner.fastapi import DurableBackgroundTasks
from jobrunner.sqlalchemy import attach


def create_app() -> FastAPI:
    """Make the app; the environment names its file, in which the table of orders is there already."""
    file = os.environ["SITE_DATABASE"]
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}")
    attach(engine)

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as session, session.begin():
            yield session

    jobs = JobRunner(file, work=False, session=Depends(get_session, scope="function"))
    Background = Annotated[DurableBackgroundTasks, Depends(jobs.background)]  # noqa: N806

    @jobs.task
    async def ship(item: str) -> None: ...

    @jobs.task
    async def bill(item: str) -> None: ...

    app = FastAPI(lifespan=jobs.lifespan)

    @app.post("/plain/{item}", status_code=201)
    async def plain(item: str, background: Background) -> None:
        background.add_task(ship.options(tag=item), item)
        background.add_task(bill.options(tag=item), item)

    @app.post("/joined/{item}", status_code=201)
    async def joined(
        item: str,
        session: Annotated[AsyncSession, Depends(get_session, scope="function")],
        background: Background,
    ) -> None:
        background.add_task(ship.options(tag=item), item)
        await session.execute(text("INSERT INTO orders (item) VALUES (:item)"), {"item": item})
        background.add_task(bill.options(tag=item), item)

    @app.get("/pid")
    async def pid() -> int:
        return os.getpid()

    return app
