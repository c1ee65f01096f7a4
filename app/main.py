"""Puts the shop together: ``uvicorn app.main:create_app --factory``, or ``python -m app serve``."""

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from fastapi import FastAPI

from app import logs
from app.problems import answer_in_place_of_500
from app.routes import router
from app.services import Services, get_services, in_session
from app.settings import Settings
from app.tasks import ShopTasks, get_tasks
from jobrunner import JobRunner
from jobrunner.fastapi import bearer, probes

T = TypeVar("T")

log = logging.getLogger("app")


@dataclass(frozen=True, slots=True)
class Shop:
    """What ``create_app`` made for one application, on ``app.state.shop``."""

    settings: Settings
    services: Services
    tasks: ShopTasks


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return a shop of its own; several may live in one process.

    Args:
        settings: taken from the environment if not given.
    """
    settings = settings or Settings()
    logs.configure(settings.log_format, settings.log_level)
    services = Services.of(settings)
    tasks = ShopTasks(services, settings)
    jobs = JobRunner(
        settings.database_path,
        session=in_session,
        queues={"default": 20, "mail": settings.mail_slots},
        timezone=settings.timezone,
    )
    jobs.include(tasks)
    token = settings.admin_token.get_secret_value() if settings.admin_token else None
    admin_token = token or secrets.token_urlsafe(24)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if token is None:
            log.warning("SHOP_ADMIN_TOKEN is not set; for this run it is: %s", admin_token)
        settings.database_path.parent.mkdir(parents=True, exist_ok=True)
        # The runner opens the file first, since it knows best what a file must be like, and closes before the sessions
        # do, since its last jobs still use them.
        try:
            async with jobs.running(app):
                await services.database.create_tables()
                yield
        finally:
            await services.database.close()

    app = FastAPI(title="Shop", summary="A small shop on jobrunner.", lifespan=lifespan)
    app.state.shop = Shop(settings, services, tasks)
    app.dependency_overrides |= {get_services: _giving(services), get_tasks: _giving(tasks)}
    answer_in_place_of_500(app)
    app.include_router(router)
    app.include_router(probes(), prefix="/health")
    app.include_router(jobs.router(read=bearer(admin_token)), prefix="/jobs")
    return app


def _giving(value: T) -> Callable[[], Awaitable[T]]:
    async def give() -> T:  # not a `def`, which FastAPI would call in a thread
        return value

    return give
