"""A real browser on a real server: the dashboard of an application with jobs in every state."""

import asyncio
import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from jobrunner import Bury, Job, JobDead, JobRunner, Retry
from jobrunner.fastapi import bearer

T = TypeVar("T")

TOKEN: Final = "correct-horse"  # noqa: S105 - of these tests alone
NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSTALL: Final = (
    ("apt-get", "update", "-qq"),
    ("apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium", "fonts-dejavu-core"),
)
ARGUMENTS: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
INSTALL_S: Final = 600
LONG: Final = "n" * 200
PATIENCE_S: Final = 30

Theme = Literal["light", "dark"]
SIZES: Final = {"desk": (1280, 900), "phone": (390, 844)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder: they need a browser, which is a process."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")
            item.add_marker("process")
            # The first one may have to install the browser.
            item.add_marker(pytest.mark.timeout(INSTALL_S))


def find_browser() -> str | None:
    """Return the path of a browser, which is installed if that is possible."""

    def there() -> str | None:
        return next((path for name in NAMES if (path := shutil.which(name))), None)

    if there() is None and os.geteuid() == 0 and shutil.which("apt-get"):
        with (Path(tempfile.gettempdir()) / "jobrunner-tests-browser.lock").open("w") as lock:
            # Another process of pytest-xdist may be installing it.
            fcntl.flock(lock, fcntl.LOCK_EX)
            for command in INSTALL if there() is None else ():
                subprocess.run(command, check=False, capture_output=True, timeout=INSTALL_S)
    return there()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start a browser for the tests of a module.

    Until it is closed, Playwright's loop runs in this thread, so that tests of other modules could run none.
    """
    path = find_browser()
    if path is None:
        problem = "no browser is here: apt-get install chromium fonts-dejavu-core"
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=path, headless=True, args=list(ARGUMENTS)
        )
        yield started
        started.close()


class Shop:
    """An application with jobs in every state, served on a port."""

    def __init__(self, directory: Path) -> None:
        self.jobs = jobs = JobRunner(
            directory / "shop.db", queues={"default": 20, "mail": 5, LONG: 1}
        )
        self.release: asyncio.Event | None = None

        @jobs.task
        async def greet(name: str) -> dict[str, object]:
            return {"hello": name, "list": [1, 2]}

        @jobs.task(queue="mail")
        async def write_letter(email: str, copies: int = 1) -> None:
            raise Bury(f"{email} is no address")

        @jobs.task
        async def try_again(text: str) -> None:
            raise Retry(delay=3600)

        @jobs.task
        async def wait() -> None:
            assert self.release is not None
            await self.release.wait()

        @jobs.task(name=LONG, queue=LONG)
        async def long_one(text: str) -> None:
            raise Bury(text)

        @jobs.cron("0 8 * * *", timezone="Europe/Berlin")
        @jobs.task
        async def daily_report() -> None: ...

        self.greet, self.write_letter, self.try_again = greet, write_letter, try_again
        self.wait, self.long_one = wait, long_one

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            async with jobs.running(app):
                await self._fill()
                self._ready.set()
                yield

        app = FastAPI(lifespan=lifespan)
        app.include_router(jobs.dashboard(insecure=True), prefix="/open")
        app.include_router(jobs.dashboard(read=bearer(TOKEN)), prefix="/locked/ui")
        # It listens from here on, so that no request comes too early.
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        self._thread = threading.Thread(target=self._serve, name="server", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self.letter = self.waiting = self.running = self.retrying = self.long = ""

    @property
    def root(self) -> str:
        """The address of the dashboard without a guard."""
        return f"http://127.0.0.1:{self.port}/open"

    @property
    def locked(self) -> str:
        """The address of the dashboard with a token."""
        return f"http://127.0.0.1:{self.port}/locked/ui"

    def _serve(self) -> None:
        async def serve() -> None:
            self._loop, self.release = asyncio.get_running_loop(), asyncio.Event()
            await self._server.serve(sockets=[self._socket])

        asyncio.run(serve())

    def start(self) -> None:
        """Serve, and wait until the jobs are stored."""
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)

    def stop(self) -> None:
        """Stop serving; the jobs that wait are let go."""
        assert self._loop is not None
        assert self.release is not None
        self._loop.call_soon_threadsafe(self.release.set)
        self._server.should_exit = True
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def call(self, function: Callable[..., Coroutine[Any, Any, T]], *args: object) -> T:
        """Run a coroutine function on the server's loop."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(function(*args), self._loop).result(PATIENCE_S)

    def enqueue(self, task: Any, *args: object) -> Job[Any]:
        """Store a job."""

        async def enqueue() -> Job[Any]:
            return await self.jobs.enqueue(task, *args)

        return self.call(enqueue)

    def dead(self, task: Any, *args: object) -> str:
        """Return the id of a dead letter."""

        async def die() -> str:
            job = await self.jobs.enqueue(task, *args)
            with pytest.raises(JobDead):
                await job.result(PATIENCE_S)
            return job.id

        return self.call(die)

    async def _fill(self) -> None:
        jobs = self.jobs
        for name in ("ada", "bob"):
            await (await jobs.enqueue(self.greet, name)).result(PATIENCE_S)
        first = await jobs.enqueue(self.write_letter.options(tag="sign-up"), "<b>nobody</b>")
        second = await jobs.enqueue(self.long_one.options(tag="t" * 200, key="k" * 200), "v" * 500)
        for job in (first, second):
            with pytest.raises(JobDead):
                await job.result(PATIENCE_S)
        self.letter, self.long = first.id, second.id
        self.running = (await jobs.enqueue(self.wait)).id
        self.retrying = (await jobs.enqueue(self.try_again, "x")).id
        later = [self.greet.options(delay=7200, tag="later").call(f"n{i}") for i in range(3)]
        self.waiting = (await jobs.enqueue_many(later))[0].id
        await jobs.enqueue_chain([self.greet.options(delay=60).call("a"), self.greet.call("b")])
        await jobs.schedules.upsert("s" * 200, self.greet, every=3600, args=["x"])
        await jobs.queues.pause(LONG)

    def pages(self) -> dict[str, str]:
        """Return the paths of all pages, by a name."""
        return {
            "overview": "/",
            "jobs": "/jobs",
            "retrying": "/jobs?state=retrying",
            "dead jobs": "/jobs?state=dead",
            "filtered": f"/jobs?task={LONG}&tag={'t' * 200}",
            "nothing": f"/jobs?q={'z' * 200}",
            "job": f"/jobs/{self.waiting}",
            "running": f"/jobs/{self.running}",
            "letter": f"/jobs/{self.letter}",
            "long": f"/jobs/{self.long}",
            "shown": f"/jobs/{self.long}/arguments",
            "edit": f"/jobs/{self.long}/edit",
            "confirm": f"/jobs/{self.long}/delete",
            "dead": "/dead",
            "schedules": "/schedules",
            "schedule": f"/schedules/{'s' * 200}",
            "queues": "/queues",
            "zone": "/zone",
        }


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Serve one application for the tests of a module; they leave its jobs as they are."""
    shop = Shop(tmp_path_factory.mktemp("shop"))
    shop.start()
    yield shop
    shop.stop()


class Watched:
    """A page that notes what its browser complains of and where it sends requests."""

    def __init__(self, context: BrowserContext) -> None:
        self.page: Page = context.new_page()
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))


Open = Callable[..., Watched]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Return a function that opens a page in a new context: a new user, without cookies."""
    contexts: list[BrowserContext] = []

    def open_page(
        address: str, *, size: str = "desk", theme: Theme = "light", javascript: bool = True
    ) -> Watched:
        width, height = SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=theme,
            java_script_enabled=javascript,
            timezone_id="Europe/Berlin",
        )
        contexts.append(context)
        watched = Watched(context)
        watched.page.goto(address)
        return watched

    yield open_page
    for context in contexts:
        context.close()
