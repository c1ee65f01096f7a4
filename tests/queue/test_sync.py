"""The blocking face: threads, ``def`` tasks and routes, scripts without a loop."""

import asyncio
import gc
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from jobrunner import (
    AuditLog,
    Bury,
    DeadLetters,
    InvalidArguments,
    InvalidSession,
    Job,
    JobDead,
    JobNotFound,
    JobQueue,
    JobRunner,
    NotRunning,
    Queues,
    ReplayCounts,
    ResultTimeout,
    ScheduleNotFound,
    Schedules,
    StoreError,
    WrongThread,
)
from jobrunner import SyncQueue as PublicSyncQueue
from jobrunner.fastapi import SyncQueue
from jobrunner.queue.sync import SyncAuditLog, SyncDeadLetters, SyncQueues, SyncSchedules
from tests.support.engine import soon


def a_runner(file: Path) -> JobRunner:
    jobs = JobRunner(file)

    @jobs.task
    async def double(number: int) -> int:
        return 2 * number

    @jobs.task(max_attempts=1)
    def fan_out(numbers: list[int]) -> list[int]:
        many = jobs.sync.enqueue_many(jobs.tasks["double"].call(n) for n in numbers)
        return [jobs.sync.result(job, timeout=15) for job in many]

    return jobs


async def test_enqueues_from_threads(tmp_db: Path) -> None:
    jobs = a_runner(tmp_db)
    double = jobs.tasks["double"]

    def in_thread(number: int) -> int:
        job = jobs.sync.enqueue(double, number)
        assert jobs.sync.get(job.id, double).id == job.id
        return int(jobs.sync.result(job, timeout=15))

    async with jobs.running():
        answers = await asyncio.gather(*(asyncio.to_thread(in_thread, n) for n in range(20)))
    assert answers == [2 * n for n in range(20)]


async def test_enqueues_from_a_def_task(tmp_db: Path) -> None:
    jobs = a_runner(tmp_db)
    async with jobs.running():
        job = await jobs.enqueue(jobs.tasks["fan_out"], [1, 2, 3])
        assert await job.result(timeout=15) == [2, 4, 6]


def test_enqueues_from_a_def_route(tmp_db: Path) -> None:
    jobs = a_runner(tmp_db)
    app = FastAPI(lifespan=jobs.lifespan)

    @app.post("/double")
    def double(number: int, queue: SyncQueue) -> int:
        assert isinstance(queue, PublicSyncQueue)
        job: Job[int] = queue.enqueue(jobs.tasks["double"], number)
        return queue.result(job, timeout=15)

    with TestClient(app) as client:
        assert client.post("/double", params={"number": 4}).json() == 8


def test_runs_in_a_script_without_a_loop(tmp_db: Path) -> None:
    jobs = a_runner(tmp_db)
    double = jobs.tasks["double"]
    for _ in range(2):
        with jobs.sync.running() as opened:
            assert opened is jobs
            job = jobs.sync.enqueue(double, 21)
            assert jobs.sync.result(job, timeout=15) == 42
            assert jobs.sync.health().status == "ok"
            later = jobs.sync.enqueue(double.options(delay=60), 1)
            assert jobs.sync.cancel(later.id) == "cancelled"
        with pytest.raises(NotRunning):
            jobs.sync.enqueue(double, 1)
    with jobs.sync.running(work=False):
        assert jobs.sync.enqueue(double, 1).state == "queued"


def test_runs_in_a_script_from_many_threads(tmp_db: Path) -> None:
    jobs = a_runner(tmp_db)
    double = jobs.tasks["double"]
    with jobs.sync.running(), ThreadPoolExecutor(4) as pool:
        many = list(pool.map(lambda n: jobs.sync.enqueue(double, n).id, range(40)))
        assert len(set(many)) == 40


def test_runs_in_a_script_that_raises_closes_and_raises(tmp_db: Path) -> None:
    jobs = a_runner(tmp_db)
    with pytest.raises(LookupError, match="in the script"), jobs.sync.running():
        raise LookupError("in the script")
    with jobs.sync.running():
        pass


def test_runs_in_a_script_on_a_file_that_cannot_be_opened_raises(tmp_path: Path) -> None:
    jobs = a_runner(tmp_path / "missing" / "jobs.db")
    with pytest.raises(StoreError, match="make it first"), jobs.sync.running():
        pass


async def test_calls_on_the_loop_are_refused_with_the_line_to_write(tmp_db: Path) -> None:
    jobs = a_runner(tmp_db)
    double = jobs.tasks["double"]
    async with jobs.running():
        with pytest.raises(WrongThread, match=r"write `await queue\.enqueue\(task, \.\.\.\)` here"):
            jobs.sync.enqueue(double, 1)
        with pytest.raises(WrongThread, match=r"await queue\.enqueue_many\("):
            jobs.sync.enqueue_many([double.call(1)])
        with pytest.raises(WrongThread, match=r"await queue\.enqueue_chain\("):
            jobs.sync.enqueue_chain([double.call(1)])
        with pytest.raises(WrongThread, match=r"await queue\.get\(id\)"):
            jobs.sync.get("x")
        with pytest.raises(WrongThread, match=r"await queue\.cancel\(id\)"):
            jobs.sync.cancel("x")
        with pytest.raises(WrongThread, match=r"write `await job\.result\(\)` here"):
            jobs.sync.result(await jobs.enqueue(double.options(delay=60), 1))
        with pytest.raises(WrongThread, match=r"write `await queue\.dead_letters\.replay\(id\)`"):
            jobs.sync.dead_letters.replay("x")
        with pytest.raises(WrongThread, match=r"write `await queue\.schedules\.list\(\.\.\.\)`"):
            jobs.sync.schedules.list()
        with pytest.raises(WrongThread):
            jobs.sync.run(jobs.health())
        assert (await jobs.list(state="queued")).items == []


async def test_calls_on_another_loop_are_refused(tmp_db: Path) -> None:
    jobs = a_runner(tmp_db)

    async def elsewhere() -> None:
        jobs.sync.enqueue(jobs.tasks["double"], 1)

    async with jobs.running():
        with pytest.raises(
            WrongThread, match=r"await asyncio\.to_thread\(jobs\.sync\.enqueue, \.\.\.\)"
        ):
            await asyncio.to_thread(asyncio.run, elsewhere())


async def test_jobs_enqueued_on_another_loop_are_refused_and_not_waited_for_for_ever(
    tmp_db: Path,
) -> None:
    """The call runs in a thread, or in an async test whose TestClient runs the application on another loop."""
    jobs = a_runner(tmp_db)
    double = jobs.tasks["double"]

    async def in_thread() -> int:
        job = await asyncio.to_thread(jobs.sync.enqueue, double, 1)
        return cast("int", await asyncio.to_thread(jobs.sync.run, job.result(timeout=15)))

    async with jobs.running():
        for ask in (
            lambda: jobs.enqueue(double, 1),
            lambda: double.enqueue(1),
            lambda: jobs.enqueue_many([double.call(1)]),
            lambda: jobs.enqueue_chain([double.call(1), double.call(2)]),
        ):
            with pytest.raises(WrongThread, match=r"to_thread\(jobs\.sync\.enqueue, task"):
                await asyncio.to_thread(asyncio.run, soon(ask()))
        assert (await jobs.list()).items == []
        assert await asyncio.to_thread(asyncio.run, soon(in_thread())) == 2


async def test_errors_reach_the_calling_thread(tmp_db: Path) -> None:
    jobs = a_runner(tmp_db)

    @jobs.task(max_attempts=1)
    async def fail() -> None:
        raise LookupError("no such order")

    def in_thread() -> None:
        with pytest.raises(InvalidArguments):
            jobs.sync.enqueue(jobs.tasks["double"], "x")
        with pytest.raises(JobNotFound):
            jobs.sync.get("01936d2c-7a40-7c3e-9d55-6f0c1d2e3f4a")
        later = jobs.sync.enqueue(fail.options(delay=60))
        with pytest.raises(ResultTimeout):
            jobs.sync.result(later, timeout=0)
        with pytest.raises(JobDead, match="no such order"):
            jobs.sync.run(jobs.sync.enqueue(fail).result(timeout=15))

    async with jobs.running():
        await asyncio.to_thread(in_thread)


async def test_refused_calls_leave_no_coroutine_that_nobody_awaits(tmp_db: Path) -> None:
    jobs = a_runner(tmp_db)
    double = jobs.tasks["double"].options(session=object())
    call = jobs.cancel("any")
    with pytest.raises(NotRunning):
        jobs.sync.run(call)
    assert inspect.getcoroutinestate(call) == inspect.CORO_CLOSED

    def in_thread() -> None:
        with pytest.raises(InvalidSession):
            jobs.sync.enqueue(double, 1)
        for several in (jobs.sync.enqueue_many, jobs.sync.enqueue_chain):
            with pytest.raises(InvalidSession):
                several([double.call(1)])

    async with jobs.running():
        await asyncio.to_thread(in_thread)
    gc.collect()  # one that nobody awaits fails the test now


async def test_waits_while_the_runner_closes_is_told(tmp_db: Path) -> None:
    jobs = a_runner(tmp_db)
    asked = threading.Event()

    def in_thread(job: Job[int]) -> str:
        asked.set()
        try:
            jobs.sync.run(job.result())
        except (NotRunning, StoreError) as error:
            return str(error)
        return "no error"

    async with jobs.running():
        job = await jobs.enqueue(jobs.tasks["double"].options(delay=3600), 1)
        waiting = asyncio.create_task(asyncio.to_thread(in_thread, job))
        await asyncio.to_thread(asked.wait, 15)
    assert await soon(waiting) != "no error"


def names_of(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("ours", "blocking"),
    [
        (JobQueue, PublicSyncQueue),
        (Queues, SyncQueues),
        (DeadLetters, SyncDeadLetters),
        (Schedules, SyncSchedules),
        (AuditLog, SyncAuditLog),
    ],
)
def test_every_verb_is_there_blocking_and_with_its_words(ours: type, blocking: type) -> None:
    assert names_of(ours) <= names_of(blocking)
    for name in names_of(ours):
        assert getattr(blocking, name).__doc__
        verb = getattr(blocking, name)
        assert not inspect.iscoroutinefunction(verb)


def test_verbs_of_jobs_answer_a_script(tmp_db: Path) -> None:
    jobs = a_runner(tmp_db)
    double = jobs.tasks["double"]
    with jobs.sync.running():
        sync = jobs.sync
        job = sync.enqueue(double, 4)
        assert sync.result(job, timeout=15) == 8
        assert sync.list(task=double, state="succeeded", limit=5).items == [job]
        assert (sync.payload(job.id).args, sync.payload(job.id).result) == ({"number": 4}, 8)
        assert sync.cancel(job.id) is None
        assert sync.health().status == "ok"
        assert sync.get(job.id, double).state == "succeeded"

        sync.queues.pause("default")
        assert [one.paused for one in sync.queues.list().items] == [True]
        sync.queues.resume("default")
        assert [one.paused for one in sync.queues.list().items] == [False]


def test_verbs_of_dead_letters_answer_a_script(tmp_db: Path) -> None:
    jobs = a_runner(tmp_db)
    broken = True

    @jobs.task
    async def fail(number: int) -> int:
        if broken:
            raise Bury("no")
        return number

    with jobs.sync.running():
        sync, letters = jobs.sync, jobs.sync.dead_letters
        stored = sync.enqueue_many(fail.call(number) for number in range(4))
        for job in stored:
            with pytest.raises(JobDead):
                sync.result(job, timeout=15)
        assert len(letters.list(task=fail, reason="buried", limit=3).items) == 3
        assert letters.count() == 4
        (group,) = letters.groups().items
        assert (group.count, letters.count(group=group.fingerprint)) == (4, 4)
        letters.delete(stored[0].id)
        assert letters.get(stored[1].id).args == {"number": 1}
        broken = False
        assert sync.result(letters.replay(stored[1].id), timeout=15) == 1
        assert sync.result(letters.replay(stored[2].id, args={"number": 7}), timeout=15) == 7
        assert letters.replay_all(task=fail) == ReplayCounts(1, 0, 0, 1)
        assert sync.result(stored[3], timeout=15) == 3
        assert letters.delete_all() == 0


def test_verbs_of_schedules_answer_a_script(tmp_db: Path) -> None:
    jobs = a_runner(tmp_db)
    double = jobs.tasks["double"]
    with jobs.sync.running():
        sync, schedules = jobs.sync, jobs.sync.schedules
        assert schedules.upsert("often", double, every=3600, args={"number": 3}).id == "often"
        assert schedules.pause("often").paused
        assert not schedules.resume("often").paused
        assert [one.id for one in schedules.list(task=double).items] == ["often"]
        assert sync.result(schedules.run_now("often"), timeout=15) == 6
        assert list(schedules.ticks("often")) == []
        schedules.remove("often")
        with pytest.raises(ScheduleNotFound):
            schedules.get("often")


def test_verb_of_a_collection_keeps_its_signature_for_help(tmp_db: Path) -> None:
    jobs = a_runner(tmp_db)
    with jobs.sync.running():
        shown = inspect.signature(jobs.sync.dead_letters.replay)
        assert list(shown.parameters) == ["id", "args", "forget"]
        assert "Put a dead letter back" in (jobs.sync.dead_letters.replay.__doc__ or "")
