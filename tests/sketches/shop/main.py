"""The factory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic_settings import BaseSettings

from fastapi import FastAPI
from jobrunner import JobRunner
from tests.sketches.shop.billing import routes
from tests.sketches.shop.mail.tasks import tasks as mail_tasks


class Settings(BaseSettings):
    database: str = "sqlite:///shop.db"


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or Settings()
    jobs = JobRunner(settings.database, queues={"default": 20, "mail": 50})
    jobs.include(mail_tasks)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with jobs.running(app):
            yield

    app = FastAPI(lifespan=lifespan)
    app.include_router(routes.router)
    return app
