"""An application with the dashboard, real jobs, and a client that sends forms as a browser does."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from jobrunner import Bury, Job, JobContext, JobDead, JobRunner, Retry
from jobrunner.fastapi import bearer
from jobrunner.store.sqlite import readers

T = TypeVar("T")

ROOT = "/jobs/ui"
READ_TOKEN = "look-only"  # noqa: S105 - of these tests alone
ACT_TOKEN = "may-change-things"  # noqa: S105 - as above
SEE_TOKEN = "may-see-arguments"  # noqa: S105 - as above
NOBODY = "01936d2c-7a40-7c3e-9d55-6f0c1d2e3f4a"
CANARY = "canary-7f3a"
MARKUP = "<script>alert('x')</script>&\"'"
SAME = {"Sec-Fetch-Site": "same-origin"}
PATIENCE_S = 30


class Board:
    """An app with a runner and its dashboard, open while the client is."""

    def __init__(self, database: Path, **guards: Any) -> None:
        self.jobs = jobs = JobRunner(
            f"sqlite:///{database}",
            queues={"default": 5, "mail": 5},
            redact={"card", "password"},
            revision=7,
        )

        @jobs.task
        async def greet(name: str) -> str:
            return f"hello {name}"

        @jobs.task(queue="mail")
        async def write_letter(
            email: str,
            copies: int = 1,
            style: Literal["plain", "html"] = "plain",
            extra: dict[str, int] | None = None,
        ) -> None:
            if "@" not in email:
                raise Bury(f"{email} is no address")

        @jobs.task(max_attempts=3)
        async def try_again(text: str) -> None:
            raise Retry(delay=3600)

        @jobs.task
        async def charge(card: str, login: dict[str, str]) -> None:
            raise Bury("no money")

        self.released = asyncio.Event()

        @jobs.task
        async def hold() -> None:
            await self.released.wait()

        @jobs.task
        async def render(job: JobContext, message: str) -> None:
            job.progress(1240, 5000, message)
            if self.rendered is not None:
                await self.rendered.wait()

        self.rendered: asyncio.Event | None = None
        self.charge, self.hold, self.render = charge, hold, render
        self.greet, self.write_letter, self.try_again = greet, write_letter, try_again
        self.database = database
        self.app = FastAPI(lifespan=self._running)
        self.app.include_router(jobs.dashboard(**(guards or {"insecure": True})), prefix=ROOT)
        self.client = self._new_client()

    def on(self, database: Path) -> Self:
        """Change to another file and a new client; for the boards that tests share."""
        self.database = database
        self.client = self._new_client()
        return self

    @asynccontextmanager
    async def _running(self, app: FastAPI) -> AsyncIterator[None]:
        async with self.jobs.running(app, store=self.database):
            yield

    def _new_client(self) -> TestClient:
        return TestClient(self.app, headers=SAME, follow_redirects=False)

    def call(self, function: Callable[..., Coroutine[Any, Any, T]], *args: object) -> T:
        """Run a coroutine function on the app's loop."""
        assert self.client.portal is not None
        answer: T = self.client.portal.call(function, *args)
        return answer

    def enqueue(self, task: Any, *args: object) -> Job[Any]:
        """Store a job."""

        async def enqueue() -> Job[Any]:
            return await self.jobs.enqueue(task, *args)

        return self.call(enqueue)

    def waiting(self, name: str = "ada", **options: Any) -> str:
        """Return the id of a job that is scheduled for later."""
        return self.enqueue(self.greet.options(delay=3600, **options), name).id

    def finished(self, name: str = "ada") -> str:
        """Return the id of a job that has succeeded."""

        async def greet() -> str:
            job = await self.jobs.enqueue(self.greet, name)
            await job.result(PATIENCE_S)
            return job.id

        return self.call(greet)

    def dead(self, email: str = "nobody", **options: Any) -> str:
        """Return the id of a dead letter."""

        async def write() -> str:
            job = await self.jobs.enqueue(self.write_letter.options(**options), email)
            with pytest.raises(JobDead):
                await job.result(PATIENCE_S)
            return job.id

        return self.call(write)

    def audited(self) -> list[tuple[str, str, str | None, int | None]]:
        """Return actor, action, target and count of each entry of the audit log, oldest first."""

        async def listed() -> list[tuple[str, str, str | None, int | None]]:
            found = (await self.jobs.audit.list()).items
            return [(one.actor, one.action, one.target, one.count) for one in reversed(found)]

        return self.call(listed)

    def state(self, id: str) -> str:
        """Return the state of a job."""

        async def get() -> str:
            return (await self.jobs.get(id)).state

        return self.call(get)

    def get(self, path: str, **more: Any) -> httpx2.Response:
        """Get a page below the root."""
        return self.client.get(f"{ROOT}/{path}", **more)

    def post(self, path: str, fields: Any = (), **more: Any) -> httpx2.Response:
        """Send a form below the root."""
        return self.client.post(f"{ROOT}/{path}", data=dict(fields) if fields else None, **more)

    def sign_in(self, token: str) -> httpx2.Response:
        """Sign in with a token."""
        return self.post("login", {"token": token})


def text_of(answer: httpx2.Response) -> str:
    """Return the text that a page shows, without markup."""

    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.found: list[str] = []

        def handle_data(self, data: str) -> None:
            self.found.append(data)

    reader = Reader()
    reader.feed(answer.text)
    return re.sub(r"\s+", " ", "".join(reader.found))


def tags_of(answer: httpx2.Response) -> list[tuple[str, dict[str, str | None]]]:
    """Return the tags of a page with their attributes."""

    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.found: list[tuple[str, dict[str, str | None]]] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.found.append((tag, dict(attrs)))

    reader = Reader()
    reader.feed(answer.text)
    return reader.found


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let lists and groups take their time: on a busy machine they would stop after 100 ms with a part."""
    monkeypatch.setattr(readers, "PAGE_S", PATIENCE_S)


# Shared by the tests of a process, since a board takes long to make. A test that changes the application or the runner
# makes a board of its own.


@cache
def open_board() -> Board:
    """Return the board without guards."""
    return Board(Path("never-opened.db"))


@cache
def locked_board() -> Board:
    """Return the board with a token for each right."""
    return Board(
        Path("never-opened.db"),
        read=bearer(READ_TOKEN),
        act=bearer(ACT_TOKEN),
        arguments=bearer(SEE_TOKEN),
    )


@pytest.fixture
def board(tmp_db: Path) -> Iterator[Board]:
    """Open a dashboard without guards."""
    board = open_board().on(tmp_db)
    with board.client:
        yield board


@pytest.fixture
def locked(tmp_db: Path) -> Iterator[Board]:
    """Open a dashboard with a token for each right."""
    board = locked_board().on(tmp_db)
    with board.client:
        yield board
