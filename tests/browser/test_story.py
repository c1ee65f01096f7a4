"""Follows an operator through an incident: from a red overview to a green one, by what the pages offer."""

import contextlib
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from jobrunner import JobDead, JobRunner
from tests.browser.conftest import Open
from tests.browser.served import PATIENCE_S, Served
from tests.browser.test_looks import AUDIT
from tests.support.pace import pace

LETTERS = 24
SECOND = timedelta(seconds=1)


class Mailer(Served):
    """An application whose only task fails while ``broken`` is set."""

    def __init__(self, directory: Path) -> None:
        jobs = JobRunner(directory / "mail.db")
        self.broken = threading.Event()

        @jobs.task(max_attempts=1)
        async def send_mail(to: str) -> None:
            if self.broken.is_set():
                raise OSError(f"no route to {to}")

        self.send_mail = send_mail
        super().__init__(jobs)

    def send(self, number: int, **options: Any) -> list[str]:
        """Enqueue jobs, and wait until all have ended; return their ids."""

        async def send() -> list[str]:
            sent = [
                await self.jobs.enqueue(self.send_mail.options(**options), f"mail-{n}@example.org")
                for n in range(number)
            ]
            for job in sent:
                with contextlib.suppress(JobDead):
                    await job.result(PATIENCE_S)
            return [job.id for job in sent]

        return self.call(send)


@pytest.fixture
def mailer(tmp_path: Path) -> Iterator[Mailer]:
    """Serve the mailer."""
    mailer = Mailer(tmp_path)
    mailer.start()
    yield mailer
    mailer.stop()


def headline(page: Page) -> Any:
    """Return the headline of the overview, to expect something of it."""
    return expect(page.locator("h1#verdict"))


def test_operator_finds_the_fault_tests_the_repair_and_replays_the_rest(  # noqa: PLR0915 - one story
    open_page: Open, mailer: Mailer
) -> None:
    mailer.send(10)
    watched = open_page(f"{mailer.root}/")
    page = watched.page
    headline(page).to_have_text("All is well")
    page.evaluate("window.same = true")

    mailer.broken.set()
    held, *letters = mailer.send(1, key="held") + mailer.send(LETTERS)
    headline(page).to_contain_text("send_mail has been failing for", timeout=5_000 * pace())
    assert page.evaluate("window.same") is True
    expect(page.locator(".verdict.is-bad .sub")).to_contain_text("Began")
    assert "send_mail has been failing" in page.title()
    assert page.evaluate(AUDIT) == []

    page.locator(".trouble a").first.click()
    expect(page.locator("h1")).to_have_text(f"{LETTERS + 1} dead letters in 1 group")
    waiting = mailer.enqueue(mailer.send_mail.options(key="held", delay=3600), "held@example.org")
    mailer.broken.clear()
    sums = page.locator(".sums dd")
    minus_one = "\N{MINUS SIGN} 1"
    expect(sums).to_have_text([f"{LETTERS + 1}", minus_one, f"{LETTERS}"], timeout=5_000 * pace())

    page.get_by_role("button", name="Test with one").click()
    expect(page.locator(".canary")).to_contain_text("Test passed", timeout=10_000 * pace())
    (tested,) = [id for id in letters if mailer.state(id) == "succeeded"]
    letters.remove(tested)
    expect(sums).to_have_text([f"{LETTERS}", minus_one, f"{LETTERS - 1}"], timeout=5_000 * pace())

    page.get_by_role("radio", name="300").check()
    page.get_by_role("button", name=f"Replay {LETTERS - 1}").click()
    expect(page.locator(".notice").first).to_contain_text(f"{LETTERS - 1} dead letters replayed")

    async def due() -> list[Any]:
        found = [await mailer.jobs.get(id) for id in letters]
        return sorted(job.run_at for job in found)

    times = mailer.call(due)
    late = [abs(at - times[0] - n * SECOND / 5) for n, at in enumerate(times)]
    assert max(late) <= SECOND

    page.goto(f"{mailer.root}/")
    headline(page).to_have_text("All is well", timeout=15_000 * pace())
    assert mailer.state(held) == "dead"
    assert mailer.state(waiting.id) == "scheduled"

    async def ended() -> None:
        for id in letters:
            await (await mailer.jobs.get(id)).result(PATIENCE_S)

    mailer.call(ended)
    page.reload()
    headline(page).to_have_text("All is well")
    assert page.evaluate(AUDIT) == []
    assert watched.messages == []


def test_second_click_of_a_double_click_replays_nothing(open_page: Open, mailer: Mailer) -> None:
    mailer.broken.set()
    letters = mailer.send(3)
    mailer.broken.clear()
    watched = open_page(f"{mailer.root}/dead")
    page = watched.page
    page.locator(".group a").click()
    replay = page.get_by_role("button", name="Replay 3")
    # As if the answer were slow: the page is still there for the second click.
    page.evaluate("""() => {
        window.sent = [];
        document.addEventListener("submit", (event) => {
            window.sent.push(!event.defaultPrevented);
            event.preventDefault();
        });
    }""")
    replay.dblclick()
    assert page.evaluate("window.sent") == [True, False]
    page.reload()
    replay.dblclick()
    expect(page.locator(".notice").first).to_contain_text("3 dead letters replayed")
    assert len([url for url in watched.requests if url.endswith("/replay")]) == 1

    async def attempts() -> list[int]:
        found = [await mailer.jobs.get(id) for id in letters]
        return [len(job.history) for job in found]

    mailer.send(1)
    assert max(mailer.call(attempts)) <= 2

    async def acts() -> list[int | None]:
        return [one.count for one in (await mailer.jobs.audit.list()).items]

    assert mailer.call(acts) == [3]


def test_replay_covers_all_that_the_button_counts_on_a_page_that_stays_open(
    open_page: Open, mailer: Mailer
) -> None:
    mailer.broken.set()
    mailer.send(2)
    page = open_page(f"{mailer.root}/dead").page
    page.locator(".group a").click()
    page.get_by_label("Why, for the audit log").fill("the network is back")
    mailer.send(2)
    replay = page.get_by_role("button", name="Replay 4")
    expect(replay).to_be_visible(timeout=10_000 * pace())
    mailer.broken.clear()
    replay.click()
    expect(page.locator(".notice").first).to_contain_text("4 dead letters replayed")

    async def why() -> list[str | None]:
        return [one.reason for one in (await mailer.jobs.audit.list()).items]

    assert mailer.call(why) == ["the network is back"]
