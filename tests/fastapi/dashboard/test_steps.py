"""Tests what the pages show of the steps and waits of a job, and the boxes of the steps to do again."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path

import httpx2
import pytest

from jobrunner import JobContext, JobDead, WaitTimedOut
from tests.fastapi.dashboard.conftest import PATIENCE_S, Board, tags_of, text_of
from tests.support.engine import next_round


class Shop(Board):
    """A board with a job that has each kind of memo, parks, and dies."""

    def __init__(self, database: Path) -> None:
        super().__init__(database)
        self.done: list[str] = []

        async def charge(name: str) -> str:
            self.done.append(name)
            return f"paid by {name}"

        @self.jobs.task(max_attempts=1)
        async def order(job: JobContext, name: str) -> None:
            await job.step("charge", charge, name)
            try:
                await job.wait_for("never", timeout=timedelta(microseconds=1))
            except WaitTimedOut:
                await job.wait_for("approved", timeout=timedelta(days=2))
            await job.step("book", charge, "book")
            raise ValueError("no room")

        @self.jobs.task
        async def nap(job: JobContext) -> None:
            await job.sleep(timedelta(days=3))

        self.order, self.nap = order, nap

    def parked(self, *, nap: bool = False) -> str:
        """Return the id of a job that waits, for a signal or for a time."""

        async def park() -> str:
            job = await (
                self.jobs.enqueue(self.nap) if nap else self.jobs.enqueue(self.order, "ada")
            )
            waits = ("sleeps", "signal approved")
            async with asyncio.timeout(PATIENCE_S):
                while not ((await job.refresh()).waits or "").startswith(waits):
                    await next_round(self.jobs)
            return job.id

        return self.call(park)

    def letter(self) -> str:
        """Return the id of a dead letter that has finished its two steps."""
        id = self.parked()

        async def die() -> None:
            await self.jobs.signal(id, "approved")
            with pytest.raises(JobDead):
                await (await self.jobs.get(id)).result(PATIENCE_S)

        self.call(die)
        return id


@cache
def common_shop() -> Shop:
    """Return the shop that these tests share, since it takes long to make."""
    return Shop(Path("never-opened.db"))


@pytest.fixture
def shop(tmp_db: Path) -> Iterator[Shop]:
    shop = common_shop().on(tmp_db)
    shop.done.clear()
    with shop.client:
        yield shop


def boxes(answer: httpx2.Response) -> dict[str | None, bool]:
    """Return the steps that the form offers to do again, and which are chosen."""
    return {
        attributes["value"]: "checked" in attributes
        for tag, attributes in tags_of(answer)
        if tag == "input" and attributes.get("name") == "forget"
    }


def test_page_of_a_parked_job_lists_its_steps_and_what_it_waits_for(shop: Shop) -> None:
    id = shop.parked()
    page = shop.get(f"jobs/{id}")
    text = text_of(page)
    assert "stepcharge ·" in text
    assert "signalnever · timed out" in text
    assert "Waits: signal approved until" in text
    assert "Waits forsignal approved until" in text
    assert "scheduled" in text
    assert f'action="../jobs/{id}/run"' not in page.text
    assert f'href="../jobs/{id}/cancel"' in page.text


def test_sleeping_job_says_until_when_and_is_not_run_now(shop: Shop) -> None:
    id = shop.parked(nap=True)
    page = shop.get(f"jobs/{id}")
    text = text_of(page)
    assert "Sleeps until" in text
    assert "sleepsleep ·" in text
    assert f"jobs/{id}/run" not in page.text
    assert "sleeps until" in text_of(shop.get("jobs?state=scheduled"))
    assert id not in shop.get("jobs?state=retrying").text


def test_job_without_steps_has_no_list_of_them(shop: Shop) -> None:
    assert "what it has stored" not in text_of(shop.get(f"jobs/{shop.finished()}"))
    assert "what it has stored" in text_of(shop.get(f"jobs/{shop.parked()}"))


def test_letter_is_replayed_with_the_chosen_steps_done_again(shop: Shop) -> None:
    id = shop.letter()
    assert shop.done == ["ada", "book"]
    form = shop.get(f"jobs/{id}/edit")
    assert "Do again" in text_of(form)
    assert boxes(form) == dict.fromkeys(("charge", "never", "approved", "book"), False)
    answer = shop.post(f"jobs/{id}/edit", {"arg.name": "ada", "forget": "charge"})
    assert answer.headers["location"] == f"../../jobs/{id}?said=replayed"

    async def end() -> None:
        with pytest.raises(JobDead):
            await (await shop.jobs.get(id)).result(PATIENCE_S)

    shop.call(end)
    assert shop.done == ["ada", "book", "ada"]
    assert shop.audited()[-1][1:3] == ("dead_letters.replay", id)


def test_other_arguments_and_steps_to_forget_are_refused_and_stay_chosen(shop: Shop) -> None:
    id = shop.letter()
    answer = shop.post(f"jobs/{id}/edit", {"arg.name": "bob", "forget": "book"})
    assert answer.status_code == 422
    assert "which has no steps to forget" in text_of(answer)
    assert boxes(answer)["book"]
    assert not boxes(answer)["charge"]
    assert shop.state(id) == "dead"


def test_letter_without_steps_offers_no_boxes(shop: Shop) -> None:
    form = shop.get(f"jobs/{shop.dead()}/edit")
    assert "Do again" not in text_of(form)
    assert boxes(form) == {}
