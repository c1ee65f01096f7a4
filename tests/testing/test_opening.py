"""A tester opens applications, runners and factories on its own store, which it alone works on."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from jobrunner import AlreadyRunning, ConfigurationError, JobRunner, NotRunning
from jobrunner.testing import JobTester, SyncJobTester
from tests.testing import site
from tests.testing.site import Outbox, send_welcome


async def test_stores_what_a_request_enqueues_and_runs_nothing(
    app: FastAPI, client: httpx2.AsyncClient, outbox: Outbox
) -> None:
    async with JobTester(app) as t:
        answer = await client.post("/subscribers?email=ada")

        assert answer.json()["state"] == "queued"
        assert [job.task for job in t.list()] == ["remind", "send_welcome"]
        assert [job.state for job in t.list()] == ["scheduled", "queued"]
        assert t.list(send_welcome)[0].args == {"email": "ada"}
    assert outbox.sent == []


async def test_store_is_temporary_and_removed(
    app: FastAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with JobTester(app) as t:
        store = t.store
        assert store.exists()
    assert not store.exists()
    assert list(tmp_path.iterdir()) == []  # nor does sqlite:///never.db exist


async def test_each_tester_has_a_new_store(app: FastAPI) -> None:
    for _ in range(2):
        async with JobTester(app) as t:
            assert t.list() == []
            await send_welcome.enqueue("ada")


async def test_named_store_is_used_and_kept_with_its_jobs(app: FastAPI, tmp_path: Path) -> None:
    for before in range(2):
        async with JobTester(app, store=tmp_path / "shop.db") as t:
            assert len(t.list()) == before
            await send_welcome.enqueue("ada")


async def test_runner_opens_without_an_application(jobs: JobRunner) -> None:
    @jobs.task
    async def double(number: int) -> int:
        return 2 * number

    async with JobTester(jobs) as t:
        assert (await t.perform(double, 4)).result == 8


async def test_function_that_makes_an_application_is_called() -> None:
    async with JobTester(site.make_app) as t:
        assert isinstance(t.app, FastAPI)
        await send_welcome.enqueue("ada")
        t.assert_enqueued(send_welcome, "ada")


async def test_lifespan_of_the_application_runs_around_the_test() -> None:
    steps: list[str] = []
    jobs = JobRunner("sqlite:///never.db")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        steps.append("begin")
        async with jobs.running(app):
            yield
        steps.append("end")

    async with JobTester(FastAPI(lifespan=lifespan)):
        assert steps == ["begin"]
    assert steps == ["begin", "end"]


async def test_every_runner_of_the_application_is_under_test() -> None:
    first, second = JobRunner("sqlite:///one.db"), JobRunner("sqlite:///two.db")
    done: list[str] = []

    @first.task
    async def begin() -> None:
        await second.enqueue(go_on)

    @second.task
    async def go_on() -> None:
        done.append("went on")
        if len(done) < 3:
            await first.enqueue(begin)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with first.running(app), second.running():
            yield

    async with JobTester(FastAPI(lifespan=lifespan)) as t:
        await first.enqueue(begin)
        await t.run_until_idle()

        assert done == ["went on"] * 3
        t.assert_enqueued(begin, times=3)
        t.assert_enqueued(go_on, times=3)


async def test_two_runners_do_not_fit_into_one_named_store(tmp_path: Path) -> None:
    first, second = JobRunner("sqlite:///one.db"), JobRunner("sqlite:///two.db")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with first.running(app), second.running():
            yield

    with pytest.raises(ConfigurationError, match="one store for two runners"):
        async with JobTester(FastAPI(lifespan=lifespan), store=tmp_path / "jobs.db"):
            pass


async def test_second_tester_is_refused_and_the_first_goes_on(app: FastAPI) -> None:
    async with JobTester(app) as t:
        with pytest.raises(AlreadyRunning, match="one per test"):
            async with JobTester(site.make_app):
                pass
        await send_welcome.enqueue("ada")
        t.assert_enqueued(send_welcome, "ada")


async def test_application_without_a_runner_is_refused_and_leaves_nothing_behind() -> None:
    with pytest.raises(NotRunning, match="no runner is open"):
        async with JobTester(FastAPI()):
            pass
    async with JobTester(site.make_app):
        pass


@pytest.mark.parametrize("subject", ["shop.main:app", 7, None])
async def test_what_is_no_application_is_refused(subject: object) -> None:
    with pytest.raises(ConfigurationError, match="takes an application, a JobRunner"):
        JobTester(subject)


async def test_an_error_of_the_test_passes_through(app: FastAPI) -> None:
    with pytest.raises(ZeroDivisionError):
        async with JobTester(app, strict=True):
            raise ZeroDivisionError
    async with JobTester(app):
        pass


async def test_runner_opens_as_before_after_the_tester(jobs: JobRunner) -> None:
    @jobs.task
    async def double(number: int) -> int:
        return 2 * number

    async with JobTester(jobs):
        pass
    async with jobs.running():
        assert await (await jobs.enqueue(double, 4)).result(timeout=10) == 8


def test_blocking_tester_takes_over_the_runner_that_a_test_client_opens(
    app: FastAPI, outbox: Outbox
) -> None:
    with SyncJobTester(app) as t, TestClient(app) as client:
        client.post("/subscribers?email=ada")
        t.assert_enqueued(send_welcome, "ada", queue="mail")
        assert outbox.sent == []

        t.run_until_idle()
        assert outbox.sent == [("ada", "Welcome!")]
        t.travel(hours=24)
        assert outbox.sent[1:] == [("ada", "Are you still there?")]
        assert t.perform(send_welcome, "bob").result == "sent to bob"


def test_blocking_tester_opens_a_runner_itself(jobs: JobRunner) -> None:
    threads: list[str] = []

    @jobs.task
    async def where() -> None:
        threads.append(threading.current_thread().name)

    with SyncJobTester(jobs) as t:
        jobs.sync.enqueue(where)
        t.run_until_idle()
        dead = t.perform(where, until="succeeded")
        assert dead.state == "succeeded"
        t.travel_to("2030-01-01 08:00", zone="Europe/Berlin")
        assert t.now.isoformat() == "2030-01-01T07:00:00+00:00"
    assert set(threads) == {"jobrunner-loop"}


def test_blocking_tester_without_a_client_names_the_line(app: FastAPI) -> None:
    with (
        SyncJobTester(app) as t,
        pytest.raises(NotRunning, match=r"with SyncJobTester\(app\) as t, TestClient\(app\)"),
    ):
        t.run_until_idle()


def test_blocking_tester_raises_what_keeps_a_runner_from_opening(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").mkdir()
    with (
        pytest.raises(Exception, match=r"jobs\.db"),
        SyncJobTester(JobRunner("sqlite:///never.db"), store=tmp_path / "jobs.db"),
    ):
        pass


async def test_runner_on_postgresql_is_tested_on_a_file_without_a_server() -> None:
    jobs = JobRunner("postgresql://ann:secret@127.0.0.1:1/shop")

    @jobs.task
    async def work() -> int:
        return 7

    async with JobTester(jobs) as t:
        assert (await t.perform(work)).result == 7


async def test_lifespan_takes_a_store_and_work(jobs: JobRunner, tmp_path: Path) -> None:
    @jobs.task
    async def never() -> None:
        raise AssertionError

    async with jobs.lifespan(FastAPI(), store=tmp_path / "other.db", work=False):
        job = await jobs.enqueue(never)
        assert (await job.refresh()).state == "queued"
    assert (tmp_path / "other.db").exists()
