"""Makes the screenshots of the guides: ``python -m tests.docs.screenshots`` writes them into ``docs/assets``.

It serves the dashboard of a shop that has worked for an hour, whose mails fail since some minutes, and needs Chromium.
"""

import asyncio
import contextlib
import sqlite3
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, sync_playwright

from jobrunner import Bury, JobDead, JobRunner, Retry
from jobrunner.core.clock import now_us
from jobrunner.core.histogram import Histogram
from jobrunner.store.open import open_store
from jobrunner.store.round import Round
from jobrunner.store.statistics import StatisticsRow
from tests.browser.conftest import ARGUMENTS, Theme, find_browser
from tests.docs.png import with_palette
from tests.docs.tables import DOCS

MINUTE_US: Final = 60_000_000
FAILS_SINCE: Final = 9
"""Minutes since the mails fail."""
DEAD: Final = 240
PATIENCE_S: Final = 60
PORT: Final = 8799
ROOT: Final = f"http://127.0.0.1:{PORT}/jobs/ui"
DESK: Final = (1200, 820)
PHONE: Final = (390, 780)

_SPREAD: Final = """
UPDATE jobrunner_dead_letters
SET died_at = died_at - :span * ((SELECT max(letter) FROM jobrunner_dead_letters) - letter) / :number,
    traceback = replace(traceback, :here, '/srv/shop/mails.py')"""
"""The letters have died over some minutes, in a file of the shop."""


class Demo:
    """A shop whose mails fail, and its dashboard."""

    def __init__(self, file: Path) -> None:
        self.jobs = jobs = JobRunner(file, queues={"default": 20, "mail": 8}, revision=142)
        self.group = ""
        self.ready = threading.Event()

        @jobs.task(queue="mail", max_attempts=1, timeout=30)
        async def send_receipt(order: int) -> None:
            raise ConnectionError(f"mail.internal:587 refused the connection for order {order}")

        @jobs.task
        async def charge_card(order: int) -> None:
            raise Bury("the card is expired") if order % 2 else Retry(delay=900)

        @jobs.task(timeout=600)
        async def build_export(customer: str) -> None:
            await asyncio.Event().wait()

        @jobs.cron("0 8 * * *", timezone="Europe/Berlin")
        @jobs.task
        async def send_daily_report() -> None:
            """Send the report."""

        @jobs.every(300)
        @jobs.task
        async def sync_stock() -> None:
            """Read the stock."""

        self.file, self.tasks = file, (send_receipt, charge_card)

        async def ada() -> str:
            return "ada"

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            async with jobs.running(app):
                for customer in ("acme", "globex"):
                    await jobs.enqueue(build_export, customer)
                self.ready.set()
                yield

        self.app = FastAPI(lifespan=lifespan)
        self.app.include_router(jobs.dashboard(insecure=True, actor=ada), prefix="/jobs/ui")

    async def fill(self) -> None:
        """Make the past: an hour of statistics, and dead letters of the last minutes."""
        send_receipt, charge_card = self.tasks
        store = await open_store(f"sqlite:///{self.file}", durability="full")
        await store.write(Round(now_us(), statistics=_past_hour()))
        await store.close()
        dead = [send_receipt.call(4000 + number) for number in range(DEAD)]
        dead += [charge_card.call(number) for number in (1, 2, 3, 4)]
        async with self.jobs.running():
            for job in (await self.jobs.enqueue_many(dead))[:DEAD]:
                with contextlib.suppress(JobDead):
                    await job.result(PATIENCE_S)
            groups = (await self.jobs.dead_letters.groups()).items
        self.group = max(groups, key=lambda one: one.count).fingerprint
        with contextlib.closing(sqlite3.connect(self.file)) as conn:
            values = {
                "here": __file__,
                "number": len(dead),
                "span": FAILS_SINCE * MINUTE_US - MINUTE_US // 2,
            }
            conn.execute(_SPREAD, values)
            conn.commit()


def _past_hour() -> list[StatisticsRow]:
    """Return what ended in each minute of the last hour: the mails fail at its end."""
    this_minute = now_us() // MINUTE_US * MINUTE_US
    rows = []
    for ago in range(1, 60):
        start, done = this_minute - ago * MINUTE_US, 90 + (ago * 37) % 41
        failed = 34 + ago % 9 if ago <= FAILS_SINCE else ago % 17 == 0
        wait, run = Histogram([8_000 + ago * 90] * 50), Histogram([140_000 + ago * 800] * 50)
        rows.append(StatisticsRow(start, "default", "sync_stock", done, 0, 0, wait, run))
        mails = 0 if ago <= FAILS_SINCE else 40
        rows.append(StatisticsRow(start, "mail", "send_receipt", mails, int(failed), 0, wait, run))
    return rows


def _take(
    browser: Browser, path: str, name: str, size: tuple[int, int], theme: Theme = "light"
) -> None:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=theme
    )
    page = context.new_page()
    page.goto(f"{ROOT}/{path}")
    page.wait_for_load_state("networkidle")
    file = DOCS / "assets" / f"{name}.png"
    file.write_bytes(with_palette(page.screenshot()))
    sys.stdout.write(f"{file.relative_to(DOCS.parent)}: {file.stat().st_size:,} bytes\n")
    context.close()


def main() -> None:
    """Take the screenshots."""
    path = find_browser()
    if path is None:
        sys.exit("no browser is here: apt-get install chromium fonts-dejavu-core")
    with tempfile.TemporaryDirectory() as folder:
        demo = Demo(Path(folder, "shop.db"))
        server = uvicorn.Server(uvicorn.Config(demo.app, port=PORT, log_level="error"))
        asyncio.run(demo.fill())
        thread = threading.Thread(target=server.run)
        thread.start()
        assert demo.ready.wait(PATIENCE_S)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
            _take(browser, "", "overview", DESK)
            _take(browser, f"dead?group={demo.group}", "group", DESK)
            _take(browser, "", "overview-phone", PHONE, "dark")
            browser.close()
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main()
