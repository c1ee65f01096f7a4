"""Signals over HTTP: their own guard, what a job's page says of its steps, and a replay that forgets one."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel

from jobrunner import JobContext, JobDead, JobRunner
from jobrunner.fastapi import bearer

SIGNAL, ADMIN = "signal-token-of-the-shop", "admin-token-of-the-shop"


class Approval(BaseModel):
    by: str
    ok: bool = True


def charge() -> str:
    return "a secret receipt"


@pytest.fixture
def jobs(tmp_db: Path) -> JobRunner:
    runner = JobRunner(tmp_db)

    @runner.task(max_attempts=1)
    async def order(job: JobContext) -> str:
        await job.step("charge", charge)
        approval = await job.wait_for("approved", Approval)
        if not approval.ok:
            raise ValueError("not approved")
        return approval.by

    return runner


@pytest.fixture
def app(jobs: JobRunner) -> FastAPI:
    app = FastAPI(lifespan=jobs.lifespan)
    router = jobs.router(read=bearer(ADMIN), signal=bearer(SIGNAL), arguments=bearer(ADMIN))
    app.include_router(router, prefix="/jobs")
    return app


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def enqueued(jobs: JobRunner) -> Any:
    order = next(iter(jobs._resolved_tasks().values()))
    return jobs.sync.enqueue(order)


def test_signal_has_a_guard_of_its_own_and_reaches_the_job(jobs: JobRunner, app: FastAPI) -> None:
    with TestClient(app) as client:
        job = enqueued(jobs)
        path = f"/jobs/{job.id}/signals/approved"
        assert client.post(path, json={"by": "ann"}).status_code == 401
        assert client.post(path, json={"by": "ann"}, headers=bearing(ADMIN)).status_code == 401
        assert client.get(f"/jobs/{job.id}", headers=bearing(SIGNAL)).status_code == 401
        answer = client.post(path, json={"by": "ann"}, headers=bearing(SIGNAL))
        assert (answer.status_code, answer.json()) == (200, {"kept": True})
        assert jobs.sync.result(job, 30) == "ann"
        late = client.post(path, json={"by": "bob"}, headers=bearing(SIGNAL))
        assert (late.status_code, late.json()["code"]) == (409, "finished")
        wrong = client.post(f"/jobs/{job.id}/signals/a%20b", headers=bearing(SIGNAL))
        assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid-options")
        shown = client.get(f"/jobs/{job.id}", headers=bearing(ADMIN))
        steps = sorted((step["kind"], step["name"]) for step in shown.json()["steps"])
        assert steps == [("signal", "approved"), ("step", "charge")]
        # Values are for those who may see arguments.
        assert "secret" not in shown.text
        values = client.get(f"/jobs/{job.id}/arguments", headers=bearing(ADMIN)).json()["steps"]
        assert values["step charge"] == "a secret receipt"
        (entry, *_) = client.get("/jobs/audit?action=signal", headers=bearing(ADMIN)).json()[
            "items"
        ]
        assert (entry["action"], entry["target"]) == ("signal", job.id)


def test_replay_over_http_forgets_a_signal_and_no_other_name(jobs: JobRunner, app: FastAPI) -> None:
    with TestClient(app) as client:
        job = enqueued(jobs)
        path = f"/jobs/{job.id}/signals/approved"
        client.post(path, json={"by": "ann", "ok": False}, headers=bearing(SIGNAL))
        with pytest.raises(JobDead):
            jobs.sync.result(job, 30)
        replay = f"/jobs/dead-letters/{job.id}/replay"
        refused = client.post(replay, json={"forget": ["nothing"]}, headers=bearing(ADMIN))
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid-options")
        assert "it has approved, charge" in refused.json()["detail"]
        done = client.post(replay, json={"forget": ["approved"]}, headers=bearing(ADMIN))
        assert done.status_code == 202
        assert client.post(path, json={"by": "bob"}, headers=bearing(SIGNAL)).json()["kept"]
        assert jobs.sync.result(jobs.sync.get(job.id), 30) == "bob"
