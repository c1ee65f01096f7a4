"""One application with everything that it may show of its jobs, on PostgreSQL."""

import asyncio
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from jobrunner import Bury, Job, JobRunner
from jobrunner.fastapi import Queue, bearer
from tests.monitoring.parsed import parsed, series
from tests.support.engine import PATIENCE_S, next_round, producer_of

TOKEN = "correct-horse"  # noqa: S105 - of these tests alone
PAGES = ("", "jobs", "dead", "schedules", "queues", "limits", "batches", "audit")


class Site:
    """The application, its runner, and a client while it is open."""

    def __init__(self, url: str) -> None:
        self.jobs = jobs = JobRunner(url, queues={"default": 5, "mail": 2})
        self.app = FastAPI(lifespan=jobs.lifespan)
        read = bearer(TOKEN)
        self.app.include_router(jobs.dashboard(read=read), prefix="/jobs/ui")
        self.app.include_router(jobs.router(read=read, arguments=read), prefix="/jobs")
        self.app.include_router(jobs.metrics(read=read), prefix="/metrics")
        self.client = TestClient(self.app, headers={"Authorization": f"Bearer {TOKEN}"})

        @jobs.task(queue="mail")
        async def write_letter(email: str) -> str:
            if "@" not in email:
                raise Bury(f"{email} is no address")
            return f"sent to {email}"

        @jobs.cron("0 8 * * *")
        async def report() -> None: ...

        @self.app.post("/register", status_code=202)
        async def register(email: str, queue: Queue) -> Job[str]:
            return await queue.enqueue(write_letter, email)

    def end_of(self, id: str) -> str:
        """Wait for the end of a job; return its state."""

        async def wait() -> str:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    job = await self.jobs.get(id)
                    if job.state in {"succeeded", "dead"}:
                        return job.state
                    await next_round(self.jobs)

        assert self.client.portal is not None
        answer: str = self.client.portal.call(wait)
        return answer

    def count_now(self) -> None:
        """See what was counted written."""
        assert self.client.portal is not None
        producer_of(self.jobs)._statistics._period.end()
        self.client.portal.call(next_round, self.jobs)


@pytest.fixture
def site(postgres_url: str) -> Iterator[Site]:
    site = Site(postgres_url)
    with site.client:
        yield site


def test_application_on_postgresql_runs_buries_replays_and_shows_its_jobs(site: Site) -> None:
    get, post = site.client.get, site.client.post
    good = post("/register?email=ann@example.com")
    assert good.status_code == 202
    bad = post("/register?email=bob").json()["id"]
    assert site.end_of(good.json()["id"]) == "succeeded"
    assert site.end_of(bad) == "dead"

    shown = get(f"/jobs/{good.json()['id']}/arguments").json()
    assert shown["result"] == "sent to ann@example.com"
    (letter,) = get("/jobs/dead-letters").json()["items"]
    assert (letter["id"], letter["reason"]) == (bad, "buried")
    for page in PAGES:
        answer = get(f"/jobs/ui/{page}")
        assert answer.status_code == 200, page
        assert answer.text.count("<h1") == 1, page
    assert "bob is no address" in get("/jobs/ui/dead").text
    assert get(f"/jobs/ui/jobs/{bad}").status_code == 200
    assert get("/jobs/ui/schedules/report").status_code == 200

    replayed = post(f"/jobs/dead-letters/{bad}/replay", json={"args": {"email": "bob@example.com"}})
    assert replayed.status_code == 202
    assert site.end_of(replayed.json()["id"]) == "succeeded"
    assert get("/jobs/dead-letters").json()["items"] == []
    (entry,) = get("/jobs/audit").json()["items"]
    assert (entry["target"], entry["count"]) == (bad, 1)

    site.count_now()
    counted = parsed(get("/metrics").text)
    assert counted[series("jobrunner_workers")] == 1
    finished = {"queue": "mail", "task": "write_letter"}
    assert counted[series("jobrunner_jobs_total", **finished, outcome="succeeded")] == 2
    assert counted[series("jobrunner_jobs_total", **finished, outcome="dead")] == 1
    health = get("/jobs/health").json()
    assert (health["status"], health["problems"]) == ("ok", [])
