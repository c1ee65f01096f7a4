"""The shop as its tests use it: over HTTP, with a tester that runs its jobs on demand."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from jobrunner.testing import Run, SyncJobTester

TOKEN = "test-token"  # noqa: S105 - of a shop that lives for one test


def make_settings(data_dir: Path, **fields: object) -> Settings:
    """Return settings for a test: everything in one directory."""
    given = {"data_dir": data_dir, "admin_token": TOKEN}
    return Settings.model_validate(given | fields)


class ShopClient(TestClient):
    """A client with the admin token; as a context manager it runs the shop under a tester, ``t``."""

    def __init__(
        self, settings: Settings, *, raise_server_exceptions: bool = True, tested: bool = True
    ) -> None:
        self.shop: FastAPI = create_app(settings)
        self.t = SyncJobTester(self.shop, store=settings.database_path)
        self._tested = tested
        self._stack = ExitStack()
        super().__init__(
            self.shop,
            headers={"Authorization": f"Bearer {TOKEN}"},
            raise_server_exceptions=raise_server_exceptions,
        )

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self._tested:
                stack.enter_context(self.t)
            super().__enter__()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        with self._stack:
            super().__exit__(kind, error, trace)

    def post_job(self, path: str, body: dict[str, Any]) -> str:
        """Send a request that enqueues a job; return the job's id."""
        answer = self.post(path, json=body)
        assert answer.is_success, answer.text
        return str(answer.json()["job_id"])

    def register(self, name: str) -> str:
        """Register somebody; return the id of the welcome mail's job."""
        return self.post_job("/register", {"username": name, "email": f"{name}@example.com"})

    def finish(self, job_id: str) -> Run[Any]:
        """Run a job to its end, which must be a success."""
        return self.t.finish(job_id, until="succeeded")

    def pause_report(self) -> None:
        """Send no daily report: the clock of a test that begins before 8:00 would come past it."""
        self.post("/jobs/schedules/send_daily_report/pause").raise_for_status()

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
