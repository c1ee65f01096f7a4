"""The shop as its tests use it: over HTTP, waiting for jobs by their results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from jobrunner import Job

TOKEN = "test-token"  # noqa: S105 - of a shop that lives for one test
PATIENCE_S = 60.0


def make_settings(data_dir: Path, **fields: object) -> Settings:
    """Return settings for a test: short waits, everything in one directory."""
    given = {"data_dir": data_dir, "admin_token": TOKEN, "mail_wait": 0.02, "mail_wait_max": 0.1}
    return Settings.model_validate(given | fields)


class ShopClient(TestClient):
    """A client with the admin token; as a context manager it runs the shop."""

    def __init__(self, settings: Settings, *, raise_server_exceptions: bool = True) -> None:
        self.shop: FastAPI = create_app(settings)
        super().__init__(
            self.shop,
            headers={"Authorization": f"Bearer {TOKEN}"},
            raise_server_exceptions=raise_server_exceptions,
        )

    def post_job(self, path: str, body: dict[str, Any]) -> str:
        """Send a request that enqueues a job; return the job's id."""
        answer = self.post(path, json=body)
        assert answer.is_success, answer.text
        return str(answer.json()["job_id"])

    def register(self, name: str) -> str:
        """Register somebody; return the id of the welcome mail's job."""
        return self.post_job("/register", {"username": name, "email": f"{name}@example.com"})

    def finish(self, job_id: str) -> None:
        """Wait until the job has succeeded; raise as ``job.result`` does."""

        async def wait() -> None:
            job: Job[object] = await self.shop.state.jobrunner.get(job_id)
            await job.result(timeout=PATIENCE_S)

        assert self.portal is not None, "the client runs the shop only as a context manager"
        self.portal.call(wait)

    def job(self, job_id: str) -> dict[str, Any]:
        """Return a job with its history, from the HTTP API."""
        answer = self.get(f"/jobs/{job_id}")
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def jobs(self, task: str) -> list[dict[str, Any]]:
        """Return the jobs of a task, oldest first."""
        items: list[dict[str, Any]] = self.get("/jobs", params={"task": task}).json()["items"]
        return items[::-1]

    def dead_letter(self, job_id: str) -> dict[str, Any]:
        """Return a dead letter with its history, from the HTTP API."""
        answer = self.get(f"/jobs/dead-letters/{job_id}")
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def outbox(self) -> list[dict[str, Any]]:
        """Return the mails in the outbox, newest first."""
        mails: list[dict[str, Any]] = self.get("/outbox").json()
        return mails


def eventually(holds: Callable[[], object], what: str) -> None:
    """Ask again and again, over HTTP, until it holds; for what has no result to wait for."""
    for _ in range(5_000):
        if holds():
            return
    raise AssertionError(f"never: {what}")
