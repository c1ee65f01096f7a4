"""Creates the shop: ``uvicorn app.main:create_app --factory``, or ``python -m app serve``."""

import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from tenacity import wait_exponential, wait_random

from app import logs
from app.dependencies import Services, get_services, in_session
from app.pages import everybody, report_routes
from app.problems import add_exception_handlers
from app.routes import router
from app.settings import Settings
from app.tasks import audit, mail, orders, reports, tokens
from jobrunner import JobRunner
from jobrunner.fastapi import bearer, probes

log = logging.getLogger("app")


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return a new application; several can run in one process.

    Args:
        settings: read from the environment if left out.
    """
    settings = settings or Settings()
    logs.configure(settings.log_format, settings.log_level)
    services = Services.of(settings)
    jobs = create_runner(settings)
    token = settings.admin_token.get_secret_value() if settings.admin_token else None
    admin_token = token or secrets.token_urlsafe(24)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if token is None:
            log.warning("SHOP_ADMIN_TOKEN is not set; for this run it is: %s", admin_token)
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        if not settings.is_postgres:
            settings.database_path.parent.mkdir(parents=True, exist_ok=True)
        # The runner opens the database first, since it checks it, and closes it before the sessions are closed, since
        # the last jobs still use them.
        try:
            async with jobs.running(app):
                await services.database.create_tables()
                yield
        finally:
            await services.database.close()

    async def services_of_this_app() -> Services:
        return services

    app = FastAPI(title="Shop", summary="A small shop on jobrunner.", lifespan=lifespan)
    app.state.services = services
    app.dependency_overrides[get_services] = services_of_this_app
    add_exception_handlers(app)
    app.include_router(router)
    app.include_router(report_routes(jobs))
    app.include_router(
        jobs.status_router(everybody, public=[reports.make_sales_report]), prefix="/status"
    )
    app.include_router(probes(), prefix="/health")
    app.include_router(jobs.metrics(read=bearer(admin_token)), prefix="/metrics")
    # Before the JSON routes, one of which takes any word after /jobs for the id of a job.
    app.include_router(jobs.dashboard(read=bearer(admin_token)), prefix="/jobs/ui")
    app.include_router(jobs.router(read=bearer(admin_token)), prefix="/jobs")
    return app


def create_runner(settings: Settings) -> JobRunner:
    """Return the runner of the shop's tasks."""
    jobs = JobRunner(
        settings.store,
        session=in_session,
        queues={"default": 20, "mail": settings.mail_slots},
        timezone=settings.timezone,
    )
    jobs.include(audit.tasks)
    jobs.include(
        *(mail.tasks, orders.tasks, reports.tasks, tokens.tasks),
        max_attempts=settings.mail_attempts,
        # The random part spreads the retries of mails that failed together.
        wait=wait_exponential(multiplier=settings.mail_wait, exp_base=4, max=settings.mail_wait_max)
        + wait_random(0, settings.mail_wait / 2),
        # The mail server has its own timeout for one answer; this one is for many slow answers.
        timeout=3 * settings.smtp_timeout,
    )
    return jobs
