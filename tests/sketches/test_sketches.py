"""The sketches type-check, and do what their readers expect."""

import asyncio
import contextlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from jobrunner import Batch, Job, JobRunner
from tests.sketches import (
    u01_solo,
    u03_services,
    u05_aiosqlite,
    u06_tests,
    u08_several,
    u09_workflows,
)
from tests.sketches.shop.main import Settings, create_app
from tests.support.processes import CHECKOUT


@pytest.fixture(autouse=True)
def in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sketches name their files relative to where they run, or, an engine's, to where they are imported."""
    monkeypatch.chdir(tmp_path)
    for name in ("u02_tutorial", "u04_team"):
        monkeypatch.delitem(sys.modules, f"tests.sketches.{name}", raising=False)
        monkeypatch.delattr(f"tests.sketches.{name}", raising=False)


def result_of(client: TestClient, id: str) -> object:
    async def wait() -> object:
        job: Job[object] = await client.app.state.jobrunner.get(id)  # type: ignore[attr-defined]
        return await job.result(timeout=15)

    assert client.portal is not None
    return client.portal.call(wait)


def test_solo_registers_and_sends() -> None:
    with TestClient(u01_solo.app) as client:
        answer = client.post("/register", json={"username": "ada", "email": "ada@example.com"})
        assert answer.status_code == 202
        assert answer.json()["task"] == "send_welcome_email"
        assert result_of(client, answer.json()["id"]) is None


def test_repository_and_queue_share_one_transaction() -> None:
    from tests.sketches import u02_tutorial as tutorial  # noqa: PLC0415
    from tests.sketches import u04_team as team  # noqa: PLC0415

    async def prepare() -> None:
        async with tutorial.engine.begin() as connection:
            await connection.run_sync(tutorial.Base.metadata.create_all)

    async def actions() -> list[str]:
        async with tutorial.Session() as session:
            return list(await session.scalars(select(tutorial.AuditLog.action)))

    async def close() -> None:
        await tutorial.engine.dispose()

    app = FastAPI(lifespan=tutorial.jobs.lifespan)
    app.include_router(team.r)
    with TestClient(app, raise_server_exceptions=False) as client:
        portal = client.portal
        assert portal is not None
        portal.call(prepare)
        assert client.post("/o", params={"fails": True}).status_code == 500
        assert portal.call(tutorial.jobs.list).items == []
        assert portal.call(actions) == []
        assert result_of(client, client.post("/o").json()) == 1
        assert portal.call(actions) == ["ORDER", "SHIP"]
        portal.call(close)


def test_bare_connection_is_one_transaction_in_the_route_and_in_the_task() -> None:
    with contextlib.closing(sqlite3.connect("shop.db")) as db:
        db.execute("create table t (n integer)")
        with TestClient(u05_aiosqlite.app) as client:
            assert result_of(client, client.post("/").json()) == 2
        assert db.execute("select n from t order by n").fetchall() == [(1,), (2,)]


def test_tutorial_does_what_each_route_says() -> None:
    from tests.sketches import u02_tutorial as tutorial  # noqa: PLC0415

    async def prepare() -> None:
        async with tutorial.engine.begin() as connection:
            await connection.run_sync(tutorial.Base.metadata.create_all)

    with TestClient(tutorial.app) as client:
        portal = client.portal
        assert portal is not None
        portal.call(prepare)

        def runs() -> list[str]:
            """Let what the last request has added run; return the names in the order of the chain."""
            jobs = [job for job in portal.call(tutorial.jobs.list).items if job.id not in seen]
            seen.update(job.id for job in jobs)
            for job in jobs:
                result_of(client, job.id)
            assert len({job.chain for job in jobs}) == 1
            return [job.task.rpartition(".")[2] for job in reversed(jobs)]

        seen: set[str] = set()
        user = {"username": "ada", "email": "ada@example.com"}
        assert client.post("/register", json=user).status_code == 201
        assert runs() == ["send_welcome_email"]
        assert client.delete("/invoices/7").json() == {"deleted": 7}
        assert runs() == ["write_audit_log"]
        assert client.delete("/users/3").json() == {"deleted": 3}
        assert runs() == ["log_to_db", "log_to_db_default_form"]
        assert client.post("/orders", json={"email": "ada@example.com"}).json() == 99
        assert runs() == ["confirm", "write_audit_log", "notify_warehouse"]
        lines = [json.loads(line) for line in Path("audit.log").read_text().splitlines()]
        assert [line["resource"] for line in lines] == ["invoice:7", "order:99"]

        # Clean-up, which commits, comes after the success.
        async def until_logged() -> list[int]:
            while True:
                async with tutorial.Session() as session:
                    logged = (await session.scalars(select(tutorial.AuditLog.user_id))).all()
                if len(logged) == 2:
                    return list(logged)

        assert portal.call(until_logged) == [1, 1]
        first = client.post("/subscribe", params={"email": "ada@example.com"}).json()
        second = client.post("/subscribe", params={"email": "ada@example.com"}).json()
        assert (first["created"], second["created"]) == (True, False)
        assert second["scheduled_for"] == first["scheduled_for"]
        assert client.get("/jobs", params={"state": "scheduled"}).json()["items"] != []
        portal.call(tutorial.replay_everything)
        portal.call(tutorial.engine.dispose)


def test_services_bill_in_a_route_and_in_a_task(tmp_path: Path) -> None:
    sent: list[tuple[str, str]] = []

    class Outbox(u03_services.Mailer):
        async def send(self, to: str, message_id: str) -> None:
            sent.append((to, message_id))

    jobs = JobRunner(tmp_path / "jobs.db", queues={"mail": 5})
    jobs.include(u03_services.tasks)
    app = FastAPI(lifespan=jobs.lifespan)
    app.include_router(u03_services.routes)
    with TestClient(app) as client:
        id = client.post("/bill/1").json()
        assert result_of(client, id) is None
        # The override that routes are tested with holds in tasks.
        app.dependency_overrides[u03_services.get_mailer] = Outbox
        second = client.post("/bill/2").json()
        assert result_of(client, second) is None
        assert sent == [("x", second)]
        assert client.portal is not None
        rebilled = client.portal.call(u03_services.rebill.enqueue, 3)
        assert result_of(client, rebilled.id) is None
        third = client.portal.call(jobs.list).items[0].id
        assert result_of(client, third) is None
        assert sent == [("x", second), ("x", third)]


@pytest.mark.parametrize(
    "sketch", [u06_tests.test_the_shop, u06_tests.test_a_route_inline, u06_tests.test_a_task_alone]
)
async def test_users_test_their_application(
    sketch: Callable[[Path], Awaitable[None]], tmp_path: Path
) -> None:
    await sketch(tmp_path / "shop.db")


def test_several_runners_serve_one_app() -> None:
    with TestClient(u08_several.app) as client:
        id = client.post("/train").json()
        assert result_of(client, id) == 0.9
        assert client.delete(f"/train/{id}").json() is False
        assert client.post("/elsewhere").json() == 0.9
        assert client.portal is not None
        assert client.portal.call(u08_several.fan_out, ["a", "b"]) == [200, 200]


def test_several_runners_serve_a_script_and_a_thread() -> None:
    assert asyncio.run(u08_several.script()) == 0.9
    with u08_several.main.sync.running():
        assert len(u08_several.from_thread()) == 36


def test_shop_of_many_files_bills_by_either_route(tmp_path: Path) -> None:
    with TestClient(create_app(Settings(database=f"sqlite:///{tmp_path}/shop.db"))) as client:
        for path in ("/bill", "/bill-sync"):
            assert result_of(client, client.post(path).json()) == "attempt 1 to a@b.c"


def test_workflows_hand_results_on_and_wait_for_an_approval() -> None:
    jobs = u09_workflows.jobs
    with TestClient(u09_workflows.app) as client:
        portal = client.portal
        assert portal is not None

        async def ended(id: str) -> Batch[Any]:
            return await (await jobs.batches.get(id)).wait(timeout=15)

        started = client.post("/documents/7", params={"pages": 3}).json()
        assert (started["name"], started["total"]) == ("doc 7", 3)
        batch = portal.call(ended, started["id"])
        assert batch.then is not None
        assert result_of(client, batch.then.id) == ["0.png", "1.png", "2.png"]

        book = portal.call(ended, client.post("/books").json())
        *_, told = portal.call(book.results)
        assert told == "0.png+1.png+2.png is there!"

        id = client.post("/orders/5").json()
        body = {"by": "ann", "ok": True}
        assert client.post(f"/orders/{id}/approve", json=body).json() is True
        assert result_of(client, id) == "receipt 5, approved by ann"
        assert u09_workflows.charged == [f"{id}/charge"]


@pytest.mark.slow
@pytest.mark.rest
def test_sketches_type_check() -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "-p", "tests.sketches"]
    answer = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout
