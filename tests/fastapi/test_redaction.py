"""Sensitive arguments and results over HTTP: hidden in every answer, kept in the store, not replaced by a replay."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from jobrunner import Bury, JobDead, JobRunner
from jobrunner.core.redaction import REDACTED
from jobrunner.fastapi import bearer
from tests.fastapi.conftest import PATIENCE_S, TOKEN

SECRET = "s3cr3t-4242"  # noqa: S105 - of these tests alone
CARD = {"card": {"CardNumber": SECRET, "holder": "ada"}, "password": SECRET, "amount": 5}
SHOWN = {"card": {"CardNumber": REDACTED, "holder": "ada"}, "password": REDACTED, "amount": 5}


class Shop:
    """An app that hides card numbers and passwords."""

    def __init__(self, database: Path, **options: Any) -> None:
        self.jobs = jobs = JobRunner(database, **options)

        @jobs.task
        async def charge(card: dict[str, str], password: str, amount: int) -> list[dict[str, str]]:
            if amount > 0:
                raise Bury("the card is declined")
            return [card | {"password": password}]

        self.charge = charge
        app = FastAPI(lifespan=jobs.lifespan)
        read = bearer(TOKEN)
        app.include_router(jobs.router(read=read, arguments=read), prefix="/jobs")
        self.client = TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"})

    def call(self, function: Any, *args: Any) -> Any:
        """Run a coroutine function on the app's loop."""
        assert self.client.portal is not None
        return self.client.portal.call(function, *args)

    def ended(self, amount: int) -> str:
        """Return the id of a job that has ended: a dead letter if there is an amount."""

        async def run() -> str:
            job = await self.jobs.enqueue(self.charge, CARD["card"], SECRET, amount)  # type: ignore[arg-type]
            if amount:
                with pytest.raises(JobDead):
                    await job.result(PATIENCE_S)
            else:
                await job.result(PATIENCE_S)
            return job.id

        id: str = self.call(run)
        return id

    def stored(self, id: str) -> dict[str, Any]:
        """Return the stored arguments of a job."""

        async def read() -> dict[str, Any]:
            return (await self.jobs.payload(id)).args

        args: dict[str, Any] = self.call(read)
        return args


@pytest.fixture
def shop(tmp_db: Path) -> Iterator[Shop]:
    """Open the shop."""
    shop = Shop(tmp_db, redact={"card_number", "password"})
    with shop.client:
        yield shop


def test_no_answer_has_a_sensitive_value(shop: Shop) -> None:
    client, dead, done = shop.client, shop.ended(5), shop.ended(0)
    schedule = {"task": shop.charge.name, "every": 3600, "args": CARD}
    answers = [
        client.put("/jobs/schedules/s", json=schedule),
        client.post("/jobs/schedules/s/pause"),
        client.post("/jobs/schedules/s/resume"),
        *(
            client.get(f"/jobs{path}")
            for path in (
                "",
                "/dead-letters",
                f"/dead-letters/{dead}",
                "/schedules",
                "/schedules/s",
                "/audit",
                f"/{dead}",
                f"/{done}",
                f"/{dead}/arguments",
                f"/{done}/arguments",
            )
        ),
        client.post(f"/jobs/dead-letters/{dead}/replay", json={"args": {"password": SECRET}}),
    ]
    assert all(one.is_success for one in answers)
    assert [one.url for one in answers if SECRET in one.text] == []
    bodies = [one.json() for one in answers]
    assert [body["args"] for body in bodies[:3]] == [SHOWN] * 3
    assert (bodies[4]["items"][0]["args"], bodies[5]["args"]) == (SHOWN, SHOWN)
    assert bodies[12] == {
        "id": done,
        "task": shop.charge.name,
        "args": SHOWN | {"amount": 0},
        "result": [{"CardNumber": REDACTED, "holder": "ada", "password": REDACTED}],
        "result_omitted": None,
        "steps": {},
    }
    assert shop.stored(dead) == CARD


def test_a_replay_with_what_was_shown_keeps_the_stored_values(shop: Shop) -> None:
    dead = shop.ended(5)
    at = f"/jobs/dead-letters/{dead}"
    args = shop.client.get(at).json()["args"]
    args["amount"] = 0
    args["card"]["holder"] = "eve"
    job = shop.client.post(f"{at}/replay", json={"args": args}).json()["id"]
    assert job != dead
    assert shop.stored(job) == {
        "card": {"CardNumber": SECRET, "holder": "eve"},
        "password": SECRET,
        "amount": 0,
    }


def test_a_replay_with_the_word_where_nothing_is_stored_is_refused(shop: Shop) -> None:
    dead = shop.ended(5)
    args = {"card": {"card-number": REDACTED}}
    answer = shop.client.post(f"/jobs/dead-letters/{dead}/replay", json={"args": args})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-arguments")
    assert answer.json()["detail"].startswith("card.card-number is '[redacted]'")
    entry = shop.client.get("/jobs/audit").json()["items"][0]
    assert (entry["action"], entry["count"]) == ("dead_letters.replay_edited", 0)


def test_a_schedule_that_is_stored_as_it_was_shown_keeps_its_values(shop: Shop) -> None:
    at, body = "/jobs/schedules/s", {"task": shop.charge.name, "every": 3600, "args": CARD}
    shop.client.put(at, json=body)
    shown = shop.client.get(at).json()["args"]
    answer = shop.client.put(at, json=body | {"every": 60, "args": shown | {"amount": 7}})
    assert (answer.status_code, answer.json()["every"]) == (200, 60)

    async def read() -> Any:
        return (await shop.jobs.schedules.get("s")).args

    assert shop.call(read) == CARD | {"amount": 7}


def test_a_new_schedule_with_the_word_is_refused(shop: Shop) -> None:
    body = {"task": shop.charge.name, "every": 3600, "args": SHOWN}
    answer = shop.client.put("/jobs/schedules/s", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-arguments")
    assert shop.client.get("/jobs/schedules/s").status_code == 404


def test_names_are_hidden_by_default_and_shown_if_there_are_none(tmp_db: Path) -> None:
    default = Shop(tmp_db)
    with default.client:
        dead = default.ended(5)
        args = default.client.get(f"/jobs/dead-letters/{dead}").json()["args"]
        assert args == CARD | {"password": REDACTED}
    everything = Shop(tmp_db, redact=())
    with everything.client:
        assert everything.client.get(f"/jobs/dead-letters/{dead}").json()["args"] == CARD


def test_tracebacks_and_errors_are_shown_as_they_are(tmp_db: Path) -> None:
    """They are text, and hold no names: the guide says so."""
    shop = Shop(tmp_db)

    @shop.jobs.task(max_attempts=1)
    async def fail(password: str) -> None:
        raise RuntimeError(f"no to {password}")

    with shop.client:

        async def run() -> str:
            job = await shop.jobs.enqueue(fail, SECRET)
            with pytest.raises(JobDead):
                await job.result(PATIENCE_S)
            return job.id

        letter = shop.client.get(f"/jobs/dead-letters/{shop.call(run)}").json()
        assert letter["args"] == {"password": REDACTED}
        assert SECRET in letter["error"]
