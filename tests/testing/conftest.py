"""The fixtures of the kit's tests: the small application, its mail, its client."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

from jobrunner import JobRunner
from jobrunner.testing import JobTester
from tests.testing import site
from tests.testing.booking import Shop, opened


@pytest.fixture
def app() -> FastAPI:
    """Return the application."""
    site.ticks.clear()
    return site.make_app()


@pytest.fixture
def outbox(app: FastAPI) -> site.Outbox:
    """Let the application's tasks send into a list."""
    outbox = site.Outbox()
    app.dependency_overrides[site.get_mailer] = lambda: outbox
    return outbox


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """Return a client that runs no lifespan."""
    async for client in site.client_of(app):
        yield client


@pytest.fixture
async def shop(jobs: JobRunner, tmp_path: Path) -> AsyncIterator[Shop]:
    """Return the shop; its engines are open all the time, as those of a module."""
    shop = Shop(jobs, tmp_path / "shop.db")
    opened.append(shop)
    yield shop
    opened.clear()
    await shop.engine.dispose()
    shop.blocking.dispose()


@pytest.fixture
async def tester(
    jobs: JobRunner, shop: Shop, request: pytest.FixtureRequest
) -> AsyncIterator[JobTester]:
    """Return a tester of the module's ``tasks``, with their table in its store."""
    jobs.include(request.module.tasks)
    async with JobTester(jobs, store=shop.path) as t:
        with contextlib.closing(sqlite3.connect(shop.path)) as conn:
            conn.execute("CREATE TABLE steps (job, step, UNIQUE (job, step))")
        yield t
