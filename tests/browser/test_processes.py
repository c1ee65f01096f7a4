"""Tests pages beside processes that die and that are stopped."""

import os
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import expect

from jobrunner import JobRunner
from tests.browser.conftest import Open
from tests.browser.served import Served, serving
from tests.support.pace import pace
from tests.support.processes import CHECKOUT

TABS = 10
STOPPED_S = 5.0


def test_open_overview_says_that_the_only_worker_was_killed(
    open_page: Open, tmp_path: Path
) -> None:
    file = tmp_path / "jobs.db"
    watcher = Served(JobRunner(file), work=False)
    watcher.start()
    worker = subprocess.Popen(
        (sys.executable, "-m", "tests.support.children", "work", str(file)),
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with worker:
        try:
            assert worker.stdout is not None
            assert b"open" in worker.stdout.readline()
            page = open_page(f"{watcher.root}/").page
            expect(page.locator("h1")).to_have_text("All is well")
        finally:
            worker.kill()
    # Another process looks for dead workers each second, and thoroughly every five.
    expect(page.locator("h1")).to_have_text("No worker runs", timeout=10_000 * pace())
    page.get_by_role("link", name="No worker runs").click()
    expect(page.locator(".empty")).to_contain_text("No worker is alive")
    expect(page.locator(".empty")).to_contain_text("jobrunner worker")
    watcher.stop()


def test_open_tabs_do_not_delay_the_shutdown(open_page: Open, tmp_path: Path) -> None:
    with serving(tmp_path / "jobs.db") as (server, root):
        pages = [open_page(f"{root}/queues").page]
        pages += [pages[0].context.new_page() for _ in range(TABS - 1)]
        for page in pages[1:]:
            page.goto(f"{root}/")
        for page in pages:
            with page.expect_response(lambda answer: answer.request.resource_type == "fetch"):
                pass
        server.terminate(STOPPED_S * pace())
        for page in pages:
            expect(page.locator("#stale")).to_contain_text("does not answer", timeout=10_000)
