"""A newcomer's file: routes, a delayed job, a cron, a retry and a dead letter, tested in 40 lines."""

from datetime import timedelta

from fastapi import FastAPI
from fastapi.testclient import TestClient

from jobrunner import Job, JobRunner
from jobrunner.fastapi import Queue
from jobrunner.testing import SyncJobTester

jobs = JobRunner("sqlite:///shop.db")
app = FastAPI(lifespan=jobs.lifespan)
outbox: list[str] = []
broken: list[bool] = []


@jobs.task(max_attempts=2)
async def send(text: str) -> None:
    if broken:
        raise ConnectionError("the mail server is down")
    outbox.append(text)


@jobs.cron("0 8 * * 1")
async def digest() -> None:
    outbox.append("digest")


@app.post("/register", status_code=202)
async def register(email: str, queue: Queue) -> Job[None]:
    await queue.enqueue(send.options(delay=timedelta(hours=24)), f"{email}, are you there?")
    return await queue.enqueue(send, f"Welcome, {email}!")


# -- the tests ------------------------------------------------------------------------


def test_registration() -> None:
    outbox.clear()
    with SyncJobTester(app) as t, TestClient(app) as client:
        client.post("/register?email=ann")
        t.assert_enqueued(send, "Welcome, ann!", times=1)
        t.run_until_idle()
        assert outbox == ["Welcome, ann!"]
        t.travel(hours=24)
        assert "ann, are you there?" in outbox


def test_digest_on_mondays_at_eight() -> None:
    with SyncJobTester(app) as t, TestClient(app):
        t.travel(weeks=4)
        at = [run.scheduled_for for run in t.runs(digest)]
        assert len(at) == 4
        following = t.schedules.next(digest)
        assert following is not None
        assert following.cron == "0 8 * * 1"


def test_retry_dead_letter_and_replay() -> None:
    with SyncJobTester(app, strict=True) as t, TestClient(app):
        broken.append(True)
        dead = t.perform(send, "hello", until="dead")
        assert dead.outcomes == ["failed", "failed"]
        assert dead.waits[0] >= 1
        broken.clear()
        assert t.replay(dead).state == "succeeded"
