"""Live and ready: ready only while what is promised can be kept."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from jobrunner import JobRunner
from jobrunner.core.errors import StoreError, StoreFull
from jobrunner.fastapi import probes
from jobrunner.store.round import Round, Written
from jobrunner.store.sqlite import SqliteStore
from tests.support.engine import next_round, worker_of


def app_of(runner: JobRunner) -> FastAPI:
    app = FastAPI(lifespan=runner.lifespan)
    app.include_router(probes(), prefix="/health")
    return app


def wait_for_a_round(client: TestClient, jobs: JobRunner) -> None:
    """Before its first round has reached the disk, a runner is not ready."""
    assert client.portal is not None
    client.portal.call(next_round, jobs)


def test_probes_of_a_running_app_are_open_and_say_one_word(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)
    with TestClient(app_of(jobs)) as client:
        wait_for_a_round(client, jobs)
        live, ready = client.get("/health/live"), client.get("/health/ready")
    assert (live.status_code, live.json()) == (200, {"status": "alive"})
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
    assert ready.headers["cache-control"] == "no-store"


def test_probes_of_an_app_whose_runner_has_a_session_open_none(tmp_db: Path) -> None:
    opened: list[str] = []

    async def get_session() -> AsyncIterator[str]:
        opened.append("session")
        yield "session"

    jobs = JobRunner(tmp_db, session=get_session)
    with TestClient(app_of(jobs)) as client:
        wait_for_a_round(client, jobs)
        assert client.get("/health/ready").json() == {"status": "ready"}
    assert opened == []


def test_app_whose_runner_is_not_open_is_alive_and_not_ready(tmp_db: Path) -> None:
    client = TestClient(app_of(JobRunner(tmp_db)))
    assert client.get("/health/live").status_code == 200
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"status": "not ready"})


async def test_I6_worker_that_stops_is_not_ready(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)
    async with jobs.running():
        await next_round(jobs)
        assert (await jobs.health()).ready is True
        worker_of(jobs).begin_stop()
        assert (await jobs.health()).ready is False


@pytest.mark.parametrize("error", [StoreFull, StoreError], ids=["A9 disk full", "any other"])
async def test_I6_worker_whose_rounds_do_not_reach_the_disk_is_not_ready(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, error: type[StoreError]
) -> None:
    jobs = JobRunner(tmp_db)
    write = SqliteStore.write

    failed = asyncio.Event()

    async def fail(self: SqliteStore, request: Round) -> Written:
        failed.set()
        raise error("no")

    async with jobs.running():
        await next_round(jobs)
        worker = worker_of(jobs)
        monkeypatch.setattr(SqliteStore, "write", fail)
        worker.wake()
        await failed.wait()
        await asyncio.sleep(0)  # noqa: TID251 - one turn, in which the committer hears of it
        assert (await jobs.health()).ready is False
        monkeypatch.setattr(SqliteStore, "write", write)
        await next_round(jobs)
        assert (await jobs.health()).ready is True


async def test_I6_supervisor_that_makes_no_progress_is_not_ready(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)
    async with jobs.running():
        await next_round(jobs)
        worker = worker_of(jobs)
        assert worker.is_ready()
        # The loop turns and answers, but no round has been written for longer than one may take.
        assert worker._committer.written_at_s is not None
        worker._committer.written_at_s -= 3
        assert not worker.is_ready()


async def test_I6_worker_whose_file_was_replaced_is_not_ready(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)
    async with jobs.running():
        await next_round(jobs)
        tmp_db.rename(tmp_db.with_suffix(".moved"))
        await worker_of(jobs).do_chores()
        assert (await jobs.health()).ready is False
        tmp_db.with_suffix(".moved").rename(tmp_db)


async def test_process_that_only_enqueues_is_ready_without_a_supervisor(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)
    async with jobs.running(work=False):
        assert (await jobs.health()).ready is True
