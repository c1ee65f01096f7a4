"""A site with real jobs, and a client that checks every answer of the jobs router by its OpenAPI page."""

import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from jobrunner import Bury, Concurrency, Job, JobContext, JobDead, JobRunner, Retry
from jobrunner.fastapi import bearer
from jobrunner.fastapi.api.problems import MEDIA_TYPE
from tests.support.engine import next_round

T = TypeVar("T")

TOKEN = "correct-horse"  # noqa: S105 - of these tests alone
NOBODY = "01936d2c-7a40-7c3e-9d55-6f0c1d2e3f4a"
"""A good id that no job has."""

LIKE_AN_ID = r"(?=[a-fA-F-]*[0-9])[0-9a-fA-F-]+"
"""A path segment that the jobs router accepts as a job id; other segments are left to other routers."""

PATIENCE_S = 30


class Site:
    """An app with a runner, open while its client is."""

    def __init__(self, database: Path) -> None:
        self.jobs = JobRunner(f"sqlite:///{database}", queues={"default": 5, "mail": 5})
        jobs = self.jobs

        @jobs.task
        async def greet(name: str) -> str:
            return f"hello {name}"

        @jobs.task(queue="mail")
        async def write_letter(email: str, copies: int = 1) -> None:
            if "@" not in email:
                raise Bury(f"{email} is no address")

        @jobs.task(max_attempts=3)
        async def try_again() -> None:
            raise Retry(delay=3600)

        @jobs.task
        async def render(job: JobContext) -> None:
            job.progress(1240, 5000, "rendering")

        @jobs.task(concurrency=[Concurrency(9), Concurrency(2, by="account_id")])
        async def sync(account_id: int | str) -> None: ...

        self.render = render
        self.greet = greet
        self.write_letter = write_letter
        self.try_again = try_again
        self.database = database
        self.app = FastAPI(lifespan=self._running)
        self.app.include_router(jobs.router(read=bearer(TOKEN)), prefix="/jobs")
        self.client = self._new_client()

    def on(self, database: Path) -> Self:
        """Change to another file and a new client; for the site that tests share."""
        self.database = database
        self.client = self._new_client()
        return self

    @asynccontextmanager
    async def _running(self, app: FastAPI) -> AsyncIterator[None]:
        async with self.jobs.running(app, store=self.database):
            yield

    def _new_client(self) -> TestClient:
        client = TestClient(self.app, headers={"Authorization": f"Bearer {TOKEN}"})
        client.event_hooks = {"response": [Documented(paths_of_sites())]}
        return client

    def call(self, function: Callable[..., Coroutine[Any, Any, T]], *args: object) -> T:
        """Run a coroutine function on the app's loop."""
        assert self.client.portal is not None
        answer: T = self.client.portal.call(function, *args)
        return answer

    def finished(self) -> Job[str]:
        """Return a job that has succeeded."""

        async def greet() -> Job[str]:
            job = await self.jobs.enqueue(self.greet, "ada")
            await job.result(PATIENCE_S)
            return job

        return self.call(greet)

    def waiting(
        self, name: str = "ada", *, key: str | None = None, tag: str | None = None
    ) -> Job[str]:
        """Return a job that is scheduled for later."""

        async def greet() -> Job[str]:
            return await self.jobs.enqueue(self.greet.options(delay=3600, key=key, tag=tag), name)

        return self.call(greet)

    def retrying(self) -> Job[None]:
        """Return a job that waits for another attempt."""

        async def fail() -> Job[None]:
            job = await self.jobs.enqueue(self.try_again)
            while (await job.refresh()).state != "scheduled":
                await next_round(self.jobs)
            return job

        return self.call(fail)

    def chain(self) -> list[Job[str]]:
        """Return a chain of three whose first job is scheduled for later."""

        async def greet() -> list[Job[str]]:
            first = self.greet.options(delay=3600)
            return await self.jobs.enqueue_chain(
                [first.call("ada"), self.greet.call("bob"), self.greet.call("eve")]
            )

        return self.call(greet)

    def dead(self, email: str = "ada", *, key: str | None = None, tag: str | None = None) -> str:
        """Return the id of a dead letter."""

        async def write() -> str:
            job = await self.jobs.enqueue(self.write_letter.options(key=key, tag=tag), email)
            with pytest.raises(JobDead):
                await job.result(PATIENCE_S)
            return job.id

        return self.call(write)


@cache
def common_site() -> Site:
    """Return the site that the tests of a process share, since it takes long to make.

    A test that changes the application or the runner makes another one.
    """
    return Site(Path("never-opened.db"))


@cache
def paths_of_sites() -> dict[str, dict[str, Any]]:
    """Return the operations that each site has on its OpenAPI page, which takes half a second to make."""
    app = FastAPI()
    app.include_router(JobRunner("never-opened.db").router(read=bearer(TOKEN)), prefix="/jobs")
    paths: dict[str, dict[str, Any]] = app.openapi()["paths"]
    return paths


class Documented:
    """Checks that an answer is one that an OpenAPI page promises for its operation."""

    def __init__(self, paths: dict[str, dict[str, Any]]) -> None:
        self._paths = paths

    def __call__(self, response: httpx2.Response) -> None:
        method = response.request.method.lower()
        operation = self._operation(method, response.request.url.path)
        if operation is None:
            return
        name = f"{operation['operationId']} answered {response.status_code}"
        assert str(response.status_code) in operation["responses"], (
            f"{name}, which is not documented"
        )
        promised = operation["responses"][str(response.status_code)].get("content")
        if promised is None:
            return
        media_type = response.headers["content-type"]
        assert media_type in promised, f"{name} as another media type"
        if media_type == MEDIA_TYPE:
            response.read()
            code = response.json()["code"]
            assert code in promised[media_type]["examples"], (
                f"{name} {code}, which is not documented"
            )

    def _operation(self, method: str, path: str) -> dict[str, Any] | None:
        # Paths without parameters first, as the router has them.
        for template in sorted(self._paths, key=lambda one: "{" in one):
            pattern = template.replace("/jobs/{id}", f"/jobs/{LIKE_AN_ID}")
            pattern = re.sub(r"\{\w+\}", "[^/]+", pattern)
            if re.fullmatch(pattern, path) and method in self._paths[template]:
                operation: dict[str, Any] = self._paths[template][method]
                return operation
        return None


@pytest.fixture
def site(tmp_db: Path) -> Iterator[Site]:
    """Open a site on a new database."""
    site = common_site().on(tmp_db)
    with site.client:
        yield site


@pytest.fixture
def client(site: Site) -> TestClient:
    """Return the site's client, which has the token."""
    return site.client


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Open a site for the tests of a module that do not mind the jobs of others, such as those of refusals."""
    site = Site(tmp_path_factory.mktemp("shared") / "jobs.db")
    with site.client:
        yield site


@pytest.fixture(scope="module")
def letter(shared: Site) -> str:
    """Return the id of a dead letter of the shared site."""
    return shared.dead()
