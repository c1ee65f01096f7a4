"""Arguments and result of a job: for those who may see them, and nowhere else."""

import copy
import dataclasses
import json
import pickle
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder
from fastapi.testclient import TestClient
from pydantic import BaseModel

from jobrunner import InvalidArguments, Job, JobRunner, JobRunnerError, NotRunning
from jobrunner.cli import command_group
from jobrunner.fastapi import Queue, bearer

CANARY = "canary-7f3a"
READ, SEE = "read-token-of-the-test", "see-token-of-the-test"


class Order(BaseModel):
    id: int
    due: date
    note: str = CANARY


def shop(path: Path, **guards: Any) -> tuple[JobRunner, FastAPI]:
    jobs = JobRunner(path)

    @jobs.task
    async def pack(order: Order, when: datetime, copies: int = 1) -> Order:
        return order

    app = FastAPI(lifespan=jobs.lifespan)
    app.include_router(jobs.router(**guards), prefix="/jobs")

    @app.post("/typed")
    async def typed(queue: Queue) -> Job[Order]:
        return await queue.enqueue(pack, ORDER, WHEN)

    @app.get("/typed/{id}")
    async def looked_up(id: str, queue: Queue) -> Job[Any]:
        return await queue.get(id)

    @app.get("/bare/{id}")
    async def bare(id: str, queue: Queue):  # type: ignore[no-untyped-def]
        return await queue.get(id)

    return jobs, app


ORDER = Order(id=7, due=date(2026, 12, 24))
WHEN = datetime(2026, 12, 24, 8, tzinfo=UTC)


async def test_arguments_of_a_job_that_was_got_are_typed_as_given(tmp_db: Path) -> None:
    jobs, _ = shop(tmp_db, insecure=True)
    pack = jobs.tasks["pack"]
    async with jobs.running():
        stored = await jobs.enqueue(pack, ORDER, when=WHEN)
        await stored.result(timeout=15)
        for job in (await jobs.get(stored.id), await stored.refresh()):
            assert job.args == {"order": ORDER, "when": WHEN}
            assert isinstance(job.args["order"], Order)
        (listed,) = (await jobs.list()).items
        for job in (stored, listed):
            with pytest.raises(JobRunnerError, match=r"write `\(await job.refresh\(\)\).args`"):
                _ = job.args
        plain = await jobs._opened("a test").payload(stored.id)
        assert plain.args["order"] == {"id": 7, "due": "2026-12-24"} | {
            name: value for name, value in plain.args["order"].items() if name == "note"
        }
        assert plain.result["id"] == 7


async def test_arguments_of_a_task_that_is_not_there_are_plain_values(tmp_db: Path) -> None:
    jobs, _ = shop(tmp_db, insecure=True)
    async with jobs.running(work=False):
        stored = await jobs.enqueue(jobs.tasks["pack"], ORDER, WHEN)
    async with JobRunner(tmp_db).running(work=False) as other:
        assert (await other.get(stored.id)).args["when"] == "2026-12-24T08:00:00Z"


async def test_arguments_that_no_longer_fit_are_told(tmp_db: Path) -> None:
    jobs, _ = shop(tmp_db, insecure=True)
    async with jobs.running(work=False):
        stored = await jobs.enqueue(jobs.tasks["pack"], ORDER, WHEN)
        with closing(sqlite3.connect(tmp_db)) as conn, conn:
            conn.execute("""UPDATE jobrunner_jobs SET args = '{"gone": 1}'""")
        job = await jobs.get(stored.id)
        with pytest.raises(InvalidArguments, match="pack"):
            _ = job.args


async def test_arguments_show_in_no_other_form_of_a_job(tmp_db: Path) -> None:
    jobs, _ = shop(tmp_db, insecure=True)
    async with jobs.running():
        order = Order(id=7, due=date(2026, 12, 24), note=f"{CANARY}!")
        stored = await jobs.enqueue(jobs.tasks["pack"], order, WHEN)
        await stored.result(timeout=15)
        job = await jobs.get(stored.id)
        assert job.args["order"].note == f"{CANARY}!"
        for shown in (
            repr(job),
            repr(dataclasses.asdict(job)),
            json.dumps(jsonable_encoder(job)),
            str(pickle.dumps(job)),
            repr(vars(copy.copy(job))),
        ):
            assert CANARY not in shown
        with pytest.raises(JobRunnerError):
            _ = copy.deepcopy(job).args
    with pytest.raises((JobRunnerError, NotRunning)):
        _ = pickle.loads(pickle.dumps(job)).args  # noqa: S301 - of our own making


async def test_created_is_told_by_an_enqueue_alone(tmp_db: Path) -> None:
    jobs, _ = shop(tmp_db, insecure=True)
    pack = jobs.tasks["pack"]
    async with jobs.running(work=False):
        first = await jobs.enqueue(pack.options(key="k"), ORDER, WHEN)
        again = await jobs.enqueue(pack.options(key="k"), ORDER, WHEN)
        assert (first.created, again.created) == (True, False)
        (listed,) = (await jobs.list()).items
        for job in (await jobs.get(first.id), await again.refresh(), listed):
            assert job.created is None


# -- over HTTP ------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_db: Path) -> Iterator[TestClient]:
    """Have a site whose arguments are behind a lock of their own."""
    _, app = shop(tmp_db, read=bearer(READ), arguments=bearer(SEE))
    with TestClient(app) as client:
        yield client


def as_(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_arguments_over_http_are_for_those_whom_their_guard_lets_pass(site: TestClient) -> None:
    id = site.post("/typed").json()["id"]
    path = f"/jobs/{id}/arguments"
    assert site.get(path).status_code == 401
    assert site.get(path, headers=as_(READ)).status_code in {401, 403}
    seen = site.get(path, headers=as_(SEE))
    assert seen.status_code == 200
    assert seen.headers["cache-control"] == "no-store"
    body = seen.json()
    assert (body["id"], body["task"], body["result_omitted"]) == (id, "pack", None)
    assert body["args"]["order"]["id"] == 7
    missing = site.get("/jobs/01936d2c-7a40-7c3e-9d55-6f0c1d2e3f4a/arguments", headers=as_(SEE))
    assert (missing.status_code, missing.json()["code"]) == (404, "not-found")
    # Who may see them may not look at the rest for that.
    assert site.get("/jobs", headers=as_(SEE)).status_code in {401, 403}
    assert "args" not in site.get(f"/jobs/{id}", headers=as_(READ)).text
    operation = site.get("/openapi.json").json()["paths"]["/jobs/{id}/arguments"]["get"]
    assert {"200", "401", "403", "404"} <= operation["responses"].keys()


@pytest.mark.parametrize(
    "guards", [{"insecure": True}, {"read": bearer(READ)}], ids=["insecure", "read"]
)
def test_without_their_guard_nobody_sees_arguments(tmp_db: Path, guards: dict[str, Any]) -> None:
    _, app = shop(tmp_db, **guards)
    with TestClient(app, headers=as_(READ)) as client:
        id = client.post("/typed").json()["id"]
        assert client.get(f"/jobs/{id}/arguments").status_code == 404
        assert "/jobs/{id}/arguments" not in client.get("/openapi.json").json()["paths"]


def test_created_over_http_is_in_the_answer_to_an_enqueue_alone(tmp_db: Path) -> None:
    _, app = shop(tmp_db, insecure=True)
    with TestClient(app) as client:
        stored = client.post("/typed").json()
        assert stored["created"] is True
        id = stored["id"]
        assert "created" not in client.get(f"/typed/{id}").json()
        assert "created" not in client.get(f"/jobs/{id}").json()
        assert "created" not in client.get("/jobs").json()["items"][0]
        for path in (f"/typed/{id}", f"/bare/{id}", f"/jobs/{id}", "/jobs"):
            assert '"args"' not in client.get(path).text
        schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert schemas["JobBody"]["properties"]["created"]["type"] == "boolean"
    assert "created" not in schemas["JobBody"]["required"]
    for name in ("JobSummaryBody", "JobDetailBody"):
        assert "created" not in schemas[name]["properties"]


# -- from a shell -----------------------------------------------------------------------------------------


@pytest.fixture
async def done(tmp_db: Path) -> str:
    """Return the id of a job that has succeeded."""
    jobs, _ = shop(tmp_db, insecure=True)
    async with jobs.running():
        stored = await jobs.enqueue(jobs.tasks["pack"], ORDER, WHEN)
        await stored.result(timeout=15)
    return stored.id


def test_show_gives_arguments_and_result_when_asked(tmp_db: Path, done: str) -> None:
    def shown(*more: str) -> str:
        words = ["jobs", "show", done, *more, "--store", str(tmp_db)]
        answer = CliRunner().invoke(command_group(), words)
        assert answer.exit_code == 0, answer.output
        return answer.stdout

    assert "2026-12-24" not in shown()
    assert "2026-12-24" not in shown("--json")
    assert '"due": "2026-12-24"' in shown("--args")
    seen = json.loads(shown("--args", "--json"))
    assert seen["args"]["order"]["due"] == seen["result"]["due"] == "2026-12-24"
    assert seen["result_omitted"] is None
    assert "created" not in seen
