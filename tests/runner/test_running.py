"""Opening a runner: once per file and process, on whatever loop, for all of its queues or some."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from jobrunner import (
    AlreadyRunning,
    AmbiguousRunner,
    Job,
    JobRunner,
    NotRunning,
    StoreUnavailable,
    TaskRouter,
    UnknownQueue,
    UnknownTask,
)
from jobrunner.queue.queue import enqueuer_of
from tests.support.engine import Gate, next_round, worker_of


def a_runner(file: Path) -> JobRunner:
    jobs = JobRunner(file)

    @jobs.task
    async def name_of_file() -> str:
        return file.name

    return jobs


# -- how often -------------------------------------------------------------------------------------------


async def test_opens_twice_is_refused_and_the_first_goes_on(tmp_db: Path) -> None:
    jobs = a_runner(tmp_db)
    async with jobs.running():
        with pytest.raises(AlreadyRunning, match="this runner is open already"):
            async with jobs.running():
                pass
        with pytest.raises(AlreadyRunning):
            async with jobs.running(store=tmp_db.with_name("other.db")):
                pass
        job = await jobs.enqueue(jobs.tasks["name_of_file"])
        assert await job.result(timeout=15) == "jobs.db"


async def test_D13_second_runner_on_one_file_is_refused_and_the_first_goes_on(
    tmp_db: Path,
) -> None:
    jobs, second = a_runner(tmp_db), a_runner(tmp_db)
    async with jobs.running():
        for work in (True, False):
            with pytest.raises(AlreadyRunning, match="is open already in this process"):
                async with second.running(work=work):
                    pass
        job = await jobs.enqueue(jobs.tasks["name_of_file"])
        assert await job.result(timeout=15) == "jobs.db"
        # Its lock is still held: nobody takes it for dead.
        await worker_of(jobs).maintenance.recovery.recover(thorough=True)
        assert len((await jobs.health()).workers) == 1
    async with second.running():
        pass


async def test_runs_two_runners_on_two_files_each_for_itself(tmp_path: Path) -> None:
    one, two = a_runner(tmp_path / "one.db"), a_runner(tmp_path / "two.db")
    async with one.running(), two.running():
        first = await one.enqueue(one.tasks["name_of_file"])
        second = await two.enqueue(two.tasks["name_of_file"])
        assert await first.result(timeout=15) == "one.db"
        assert await second.result(timeout=15) == "two.db"
        assert [job.id for job in (await one.list()).items] == [first.id]


async def test_runs_two_processes_worth_of_tasks_of_one_router(tmp_path: Path) -> None:
    router = TaskRouter(prefix="mail.")

    @router.task
    async def send(number: int) -> int:
        return number

    runners = [JobRunner(tmp_path / f"{n}.db") for n in range(2)]
    for jobs in runners:
        jobs.include(router)
    async with runners[0].running(), runners[1].running():
        for number, jobs in enumerate(runners):
            job = await jobs.enqueue(send, number)
            assert job.task == "mail.send"
            assert await job.result(timeout=15) == number


def test_opens_again_on_another_loop(tmp_db: Path) -> None:
    jobs = a_runner(tmp_db)

    async def once() -> str:
        async with jobs.running():
            job = await jobs.enqueue(jobs.tasks["name_of_file"])
            return str(await job.result(timeout=15))

    assert [asyncio.run(once()) for _ in range(3)] == ["jobs.db"] * 3


async def test_opens_again_after_its_opening_failed(tmp_path: Path) -> None:
    jobs = a_runner(tmp_path / "missing" / "jobs.db")
    with pytest.raises(StoreUnavailable, match="is not a directory; make it first"):
        async with jobs.running():
            pass
    (tmp_path / "missing").mkdir()
    async with jobs.running():
        assert (await jobs.health()).status == "ok"


async def test_D14_block_that_raises_closes_the_runner(tmp_db: Path) -> None:
    jobs = a_runner(tmp_db)
    with pytest.raises(LookupError, match="in the block"):
        async with jobs.running():
            raise LookupError("in the block")
    async with jobs.running():
        assert (await jobs.health()).status == "ok"


async def test_opens_another_store_than_its_own(tmp_path: Path) -> None:
    jobs = a_runner(tmp_path / "one.db")
    async with jobs.running(store=f"sqlite:///{tmp_path}/two.db"):
        await (await jobs.enqueue(jobs.tasks["name_of_file"])).result(timeout=15)
    assert not (tmp_path / "one.db").exists()
    assert (tmp_path / "two.db").exists()


# -- how much of it -----------------------------------------------------------------------------------------


async def test_opens_without_work_stores_and_runs_nothing(tmp_db: Path) -> None:
    jobs = a_runner(tmp_db)
    async with jobs.running(work=False):
        job = await jobs.enqueue(jobs.tasks["name_of_file"])
        await next_round(jobs)
        assert (await job.refresh()).state == "queued"
        assert (await jobs.health()).working is False
    settled = JobRunner(tmp_db, work=False)
    settled.include(jobs)
    async with settled.running():
        assert (await settled.get(job.id)).state == "queued"
    async with settled.running(work=True):
        assert await (await settled.get(job.id)).result(timeout=15) == "jobs.db"


async def test_opens_with_some_queues_serves_these(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db, queues={"default": 1, "mail": 2, "slow": 3})

    @jobs.task
    async def work(queue: str) -> str:
        return queue

    async with jobs.running(queues=["mail", "slow"]):
        assert (await jobs.health()).workers[0].queues == {"mail": 2, "slow": 3}
        for queue in ("mail", "slow"):
            job = await jobs.enqueue(work.options(queue=queue), queue)
            assert await job.result(timeout=15) == queue
        waiting = await jobs.enqueue(work, "default")
        await next_round(jobs)
        assert (await waiting.refresh()).state == "queued"


async def test_opens_with_a_queue_that_it_lacks_is_refused_with_the_line_to_paste(
    new_db: Path,
) -> None:
    jobs = JobRunner(new_db, queues={"default": 1})
    with pytest.raises(UnknownQueue) as refused:
        async with jobs.running(queues=["default", "mail"]):
            pass
    assert 'write JobRunner(..., queues={"default": ..., "mail": 10})' in str(refused.value)
    assert not new_db.exists()


async def test_opens_with_a_task_in_a_queue_that_it_lacks_is_refused_with_the_line_to_paste(
    new_db: Path,
) -> None:
    jobs = JobRunner(new_db, queues={"default": 1})

    @jobs.task(queue="mail")
    async def send() -> None: ...

    with pytest.raises(UnknownQueue) as refused:
        async with jobs.running():
            pass
    said = str(refused.value)
    assert "task send (" in said
    assert f"{Path(__file__).name}:" in said
    assert 'write JobRunner(..., queues={"default": ..., "mail": 10})' in said
    assert not new_db.exists()


# -- which one a bare enqueue means ------------------------------------------------------------------------------


def greeter(file: Path) -> tuple[JobRunner, Any]:
    jobs = JobRunner(file)

    @jobs.task
    async def greet(name: str = "you") -> str:
        return f"hello {name}"

    return jobs, greet


async def test_enqueues_bare_alone_means_the_only_open_runner(tmp_db: Path) -> None:
    jobs, greet = greeter(tmp_db)
    with pytest.raises(NotRunning, match=r"greet\.enqueue\(\.\.\.\): no runner is open here"):
        await greet.enqueue()
    async with jobs.running():
        job = await greet.enqueue("ada")
        assert await job.result(timeout=15) == "hello ada"
    with pytest.raises(NotRunning, match=r"async with jobs\.running\(\):"):
        await greet.enqueue()


async def test_enqueues_bare_with_two_open_runners_is_ambiguous(tmp_path: Path) -> None:
    (one, greet), (two, _) = greeter(tmp_path / "1.db"), greeter(tmp_path / "2.db")
    async with one.running(), two.running():
        with pytest.raises(AmbiguousRunner, match="2 runners are open") as refused:
            await greet.enqueue()
        assert "name it: `await jobs.enqueue(task, ...)`" in str(refused.value)
        assert (await one.enqueue(greet)).created
    with pytest.raises(NotRunning):
        await greet.enqueue()


@pytest.mark.parametrize("kind", ["async def", "def"])
async def test_enqueues_bare_in_an_attempt_means_the_runner_of_the_attempt(
    tmp_path: Path, kind: str
) -> None:
    router = TaskRouter()
    gate = Gate()

    @router.task
    async def child(who: str) -> str:
        await gate.enter(who)
        return who

    @router.task
    async def parent() -> str:
        return (await child.enqueue("async")).id

    @router.task
    def parent_in_thread() -> str:
        return asyncio.run(bare())

    async def bare() -> str:
        from jobrunner.tasks.current_queue import resolve  # noqa: PLC0415 - what a bare enqueue asks

        queue = resolve("child.enqueue(...)")
        return str(id(queue))

    one, two = JobRunner(tmp_path / "1.db"), JobRunner(tmp_path / "2.db")
    one.include(router)
    two.include(router)
    async with one.running(), two.running():
        for jobs in (one, two):
            if kind == "async def":
                id_ = await (await jobs.enqueue(parent)).result(timeout=15)
                assert await gate.arrival() == "async"
                assert (await jobs.get(id_)).task == "child"
                gate.let()
            else:
                job = await jobs.enqueue(parent_in_thread)
                assert await job.result(timeout=15) == str(id(enqueuer_of(await jobs.queue())))


def test_enqueues_bare_in_a_request_means_the_app_s_runner(tmp_path: Path) -> None:
    router = TaskRouter()

    @router.task
    async def greet(name: str) -> str:
        return f"hello {name}"

    def site(file: Path) -> tuple[JobRunner, FastAPI]:
        jobs = JobRunner(file)
        jobs.include(router)
        app = FastAPI(lifespan=jobs.lifespan)

        @app.post("/greet")
        async def enqueue(name: str) -> Job[str]:
            return await greet.enqueue(name)

        @app.get("/jobs")
        async def ids() -> list[str]:
            return [job.id for job in (await jobs.list()).items]

        return jobs, app

    (_, one), (_, two) = site(tmp_path / "1.db"), site(tmp_path / "2.db")
    with TestClient(one) as first, TestClient(two) as second:
        made = first.post("/greet", params={"name": "ada"}).json()["id"]
        other = second.post("/greet", params={"name": "bob"}).json()["id"]
        assert first.get("/jobs").json() == [made]
        assert second.get("/jobs").json() == [other]


async def test_enqueues_a_task_of_another_runner_is_refused_with_the_line_to_write(
    tmp_path: Path,
) -> None:
    (one, greet), (two, _) = greeter(tmp_path / "1.db"), greeter(tmp_path / "2.db")
    async with two.running():
        with pytest.raises(UnknownTask, match=r"write jobs\.include\(router\) before it is opened"):
            await two.enqueue(greet)
        # A bare enqueue finds the only open runner, which does not have it either.
        with pytest.raises(UnknownTask):
            await greet.enqueue()
        assert (await two.list()).items == []
    assert one.tasks["greet"] is greet


async def test_uses_unopened_runner_is_told_which_line_opens_it(new_db: Path) -> None:
    jobs, greet = greeter(new_db)
    uses: list[Any] = [
        lambda: jobs.enqueue(greet),
        lambda: jobs.enqueue_many([greet.call()]),
        lambda: jobs.enqueue_chain([greet.call()]),
        lambda: jobs.get("x"),
        jobs.list,
        lambda: jobs.cancel("x"),
        lambda: jobs.queues.list(),  # noqa: PLW0108 - `jobs.queues` is what raises
        lambda: jobs.queues.pause("default"),
        jobs.health,
        jobs.queue,
        lambda: jobs.dead_letters.get("x"),
        lambda: asyncio.to_thread(jobs.sync.get, "x"),
    ]

    async def tried(use: Callable[[], Awaitable[object]]) -> None:
        await use()

    for use in uses:
        with pytest.raises(NotRunning) as refused:
            await tried(use)
        said = str(refused.value)
        assert "the runner is not open" in said
        assert "FastAPI(lifespan=jobs.lifespan)" in said
        assert "`with TestClient(app) as client:`" in said
        assert "`async with jobs.running():`" in said
    assert not new_db.exists()


async def test_signal_handlers_are_put_back(tmp_db: Path) -> None:
    import signal  # noqa: PLC0415 - of this test alone

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    jobs, _ = greeter(tmp_db)
    async with jobs.running():
        assert signal.getsignal(signal.SIGINT) is not before[signal.SIGINT]
    assert {number: signal.getsignal(number) for number in before} == before


async def test_file_and_folder_are_for_their_owner_alone(tmp_db: Path) -> None:
    jobs, _ = greeter(tmp_db)
    async with jobs.running():
        folder = tmp_db.with_name(f"{tmp_db.name}-jobrunner")
        assert folder.stat().st_mode & 0o077 == 0
        for file in folder.iterdir():
            assert file.stat().st_mode & 0o077 == 0, file
    assert os.listdir(folder)  # noqa: PTH208 - it stays, with the turnstile in it
