"""Blocking tests kill a worker at each commit: the tester opens the application itself."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import anyio
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from jobrunner import AlreadyRunning, JobContext, JobRunner, Task
from jobrunner.testing import SyncJobTester

POINTS = [
    "before the commit of the claim",
    "after the commit of the claim",
    "before the commit of the end of the attempt",
    "after the commit of the end of the attempt",
]


def add(conn: sqlite3.Connection, amount: int) -> None:
    conn.execute("INSERT INTO charges VALUES (?)", (amount,))


def create(conn: sqlite3.Connection) -> None:
    conn.execute("CREATE TABLE IF NOT EXISTS charges (amount)")


@pytest.fixture
def charge(jobs: JobRunner) -> Task[[int], None]:
    """Return a task that books a charge once."""

    @jobs.task
    async def charge(job: JobContext, amount: int) -> None:
        job.write(create)
        job.write(add, amount)

    return charge


@pytest.fixture
def app(jobs: JobRunner) -> FastAPI:
    """Return an application with a lifespan that only the task which has opened it can close."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group(), jobs.running(app):
            yield

    return FastAPI(lifespan=lifespan)


def count(t: SyncJobTester) -> int:
    with closing(sqlite3.connect(t.store)) as conn:
        (found,) = conn.execute("SELECT count(*) FROM charges").fetchone()
    return int(found)


def test_application_is_opened_for_each_point(
    app: FastAPI, jobs: JobRunner, charge: Task[[int], None]
) -> None:
    calls: list[int] = []
    with SyncJobTester(app) as t:
        found = []
        for crash in t.crash_points(charge, 7, setup=lambda: calls.append(1)):
            assert count(t) == 1, crash
            t.run_until_idle()
            (run,) = t.runs(charge)
            assert run.state == "succeeded"
            assert jobs.sync.enqueue(charge.options(delay=60), 8).state == "scheduled"
            found.append(crash.at)
        assert found == POINTS
        assert len(calls) == 5  # four points, and the run that meets none
        with TestClient(app):
            assert t.perform(charge, 9).state == "succeeded"


def test_runner_is_opened_again_after_the_points(
    jobs: JobRunner, charge: Task[[int], None]
) -> None:
    with SyncJobTester(jobs) as t:
        assert t.perform(charge, 6).state == "succeeded"
        for crash in t.crash_points(charge, 7):
            assert count(t) == 2, crash
        assert t.perform(charge, 8).state == "succeeded"
        assert count(t) == 3


def test_loop_that_is_left_early_closes_the_application(
    app: FastAPI, charge: Task[[int], None]
) -> None:
    with SyncJobTester(app) as t:
        for _ in t.crash_points(charge, 7):
            break
        with TestClient(app):
            assert t.perform(charge, 8).state == "succeeded"


def test_error_of_the_task_s_run_is_raised_in_the_test(
    app: FastAPI, charge: Task[[int], None]
) -> None:
    def setup() -> None:
        raise ZeroDivisionError

    with SyncJobTester(app) as t, pytest.raises(ZeroDivisionError):
        list(t.crash_points(charge, 7, setup=setup))


def test_open_application_is_refused_with_the_line_to_write(
    app: FastAPI, charge: Task[[int], None]
) -> None:
    with SyncJobTester(app) as t, TestClient(app):
        with pytest.raises(AlreadyRunning, match=r"without `with TestClient\(app\)`"):
            list(t.crash_points(charge, 7))
        assert t.perform(charge, 8).state == "succeeded"
