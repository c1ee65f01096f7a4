"""A real browser on a real server: the dashboard of an application with jobs in every state."""

import asyncio
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from jobrunner import Batch, Bury, JobDead, JobRunner, Rate, Retry
from jobrunner.fastapi import bearer
from jobrunner.queue.audit import audited
from tests.browser.served import PATIENCE_S, Served

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

Theme = Literal["light", "dark"]
SIZES: Final = {"desk": (1280, 900), "phone": (390, 844)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder: they need a browser, which is a process and may have to be installed."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")
            item.add_marker("process")
            item.add_marker("rest")
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


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Start a browser for the tests of this package.

    Until it is closed, Playwright's loop runs in this thread, so that tests of other packages could run none.
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


class Shop(Served):
    """An application with jobs in every state, served on a port."""

    def __init__(self, directory: Path) -> None:
        jobs = JobRunner(directory / "shop.db", queues={"default": 20, "mail": 5, LONG: 1})
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

        @jobs.task(max_attempts=1)
        async def undecided(text: str) -> None:
            raise ValueError(text)

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
        self.wait, self.long_one, self.undecided = wait, long_one, undecided
        super().__init__(jobs)
        self.app.include_router(jobs.dashboard(read=bearer(TOKEN)), prefix="/locked/ui")
        self.letter = self.waiting = self.running = self.retrying = self.long = self.group = ""
        self.graph = self.failed = self.wide = self.empty = ""

    @property
    def locked(self) -> str:
        """The address of the dashboard with a token."""
        return f"http://127.0.0.1:{self.port}/locked/ui"

    def stop(self) -> None:
        """Stop serving; the jobs that wait are let go."""
        assert self.release is not None
        self.loop.call_soon_threadsafe(self.release.set)
        super().stop()

    async def fill(self) -> None:
        """Store the jobs."""
        self.release = asyncio.Event()
        jobs = self.jobs
        for name in ("ada", "bob"):
            await (await jobs.enqueue(self.greet, name)).result(PATIENCE_S)
        first = await jobs.enqueue(self.write_letter.options(tag="sign-up"), "<b>nobody</b>")
        # Enough of them to make the overview red.
        several = [
            await jobs.enqueue(self.long_one.options(tag="t" * 200, key=f"{n}" * 200), "v" * 500)
            for n in range(5)
        ]
        for job in (first, *several):
            with pytest.raises(JobDead):
                await job.result(PATIENCE_S)
        self.letter, self.long = first.id, several[0].id
        self.group = (await jobs.dead_letters.get(self.long)).group or ""
        where = {"group": self.group, "until": "u" * 200}
        async with audited(
            jobs.audit, "a" * 200, "dead_letters.replay_all", filter=where, reason="r" * 500
        ) as act:
            act.count = 0
        async with audited(jobs.audit, "p" * 200, "queues.pause", target=LONG):
            pass
        self.running = (await jobs.enqueue(self.wait)).id
        self.retrying = (await jobs.enqueue(self.try_again, "x")).id
        later = [self.greet.options(delay=7200, tag="later").call(f"n{i}") for i in range(3)]
        self.waiting = (await jobs.enqueue_many(later))[0].id
        await jobs.enqueue_chain([self.greet.options(delay=60).call("a"), self.greet.call("b")])
        await self.fill_batches()
        await jobs.schedules.upsert("s" * 200, self.greet, every=3600, args=["x"])
        await jobs.queues.pause(LONG)
        await jobs.limits.set(queue=LONG, concurrency=1_000_000, rate_limit=Rate(100, 60, burst=9))
        await jobs.limits.set(queue="mail", max_waiting=100_000)

    async def fill_batches(self) -> None:
        """Store a graph that waits, one whose first job is dead, one that is drawn by task, and an empty one."""
        jobs = self.jobs
        soon = self.greet.options(delay=7200)
        first, second = soon.call("first"), soon.call("second")
        both = self.greet.call("both").after(first, second)
        graph = [first, second, both, self.long_one.call("v").after(both)]
        waits = await jobs.enqueue_batch(
            graph, name="b" * 200, then=self.greet.call("then"), at_end=self.long_one.call("end")
        )
        bad = self.write_letter.call("nobody")
        failed = await jobs.enqueue_batch(
            [bad, self.greet.call("behind").after(bad), self.greet.call("beside")],
            then=self.greet.call("then"),
        )
        await failed.wait(timeout=PATIENCE_S)
        wide = await jobs.enqueue_batch([soon.call(f"n{n}") for n in range(40)], name="wide")
        empty: Batch[None] = await jobs.enqueue_batch([], name="empty")
        self.graph, self.failed, self.wide, self.empty = waits.id, failed.id, wide.id, empty.id

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
            "groups": "/dead",
            "group": f"/dead?group={self.group}",
            "test": f"/dead?group={self.group}&test={self.long}",
            "no group": "/dead?group=0123456789abcdef",
            "delete group": f"/dead/{self.group}/delete",
            "letters": f"/dead?view=letters&group={self.group}",
            "batches": "/batches",
            "no batches": f"/batches?name={'z' * 200}",
            "batch": f"/batches/{self.graph}",
            "failed batch": f"/batches/{self.failed}",
            "wide batch": f"/batches/{self.wide}",
            "empty batch": f"/batches/{self.empty}",
            "audit": "/audit",
            "nobody": f"/audit?actor={'z' * 200}",
            "schedules": "/schedules",
            "schedule": f"/schedules/{'s' * 200}",
            "queues": "/queues",
            "limits": f"/limits?scope=lane&name={'x' * 200}",
            "cancel all": "/jobs/cancel-all?tag=later",
            "run all": "/jobs/run-all?tag=later",
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
