"""Tests that users see the limit that holds a job back, and the lanes by state."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from jobrunner import Concurrency, Job, JobRunner

pytestmark = pytest.mark.each_store


def runner(url: str) -> JobRunner:
    """Return a runner that starts nothing, with a task of which one job of a key may run."""
    jobs = JobRunner(url)

    @jobs.task(name="ship", concurrency=Concurrency(1, by="key", ordered=True))
    async def ship(key: int) -> None: ...

    return jobs


def test_waits_are_in_get_lists_routes_pages_and_health(store_url: str) -> None:
    jobs = runner(store_url)
    app = FastAPI(lifespan=lambda app: jobs.lifespan(app, work=False))
    app.include_router(jobs.router(insecure=True), prefix="/jobs")
    app.include_router(jobs.dashboard(insecure=True), prefix="/ui")

    async def fill() -> list[Job[None]]:
        return await jobs.enqueue_many([jobs.tasks["ship"].call(7) for _ in range(2)])

    async def read(id: str) -> tuple[str | None, str | None, list[str | None], dict[str, int]]:
        job = await jobs.get(id)
        listed = {one.id: one.waits for one in (await jobs.list()).items}
        return (
            job.waits,
            (await job.refresh()).waits,
            list(listed.values()),
            (await jobs.health()).lanes,
        )

    with TestClient(app, base_url="http://localhost") as client:
        assert client.portal is not None
        first, second = client.portal.call(fill)
        text = f"order: behind {first.id}"
        found = client.portal.call(read, second.id)
        assert found == (text, text, [text, None], {"open": 1, "full": 0, "empty": 0})
        assert client.get(f"/jobs/{second.id}").json()["waits"] == text
        assert [one["waits"] for one in client.get("/jobs").json()["items"]] == [text, None]
        assert client.get("/jobs/health").json()["lanes"]["open"] == 1
        assert text in client.get("/ui/jobs").text
        assert text in client.get(f"/ui/jobs/{second.id}").text
        assert "behind" not in client.get(f"/ui/jobs/{first.id}").text
