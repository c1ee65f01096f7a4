"""Dependencies of attempts: made before the function is called, cleaned up after it, whatever became of it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request

from jobrunner import (
    Bury,
    Injected,
    JobContext,
    JobDead,
    JobQueue,
    JobRunner,
    Retry,
    Snooze,
)
from jobrunner.fastapi import Queue, SyncQueue, get_queue
from jobrunner.testing import JobTester
from tests.support.engine import history, soon, supervisor_of

Said = list[str]


@pytest.fixture
def jobs(tmp_db: Path) -> JobRunner:
    return JobRunner(tmp_db)


async def outcome_of(jobs: JobRunner, task: Any, *args: Any) -> Any:
    """Run a job to its end; return its result, or raise as ``job.result()``."""
    async with JobTester(jobs) as t:
        return await (await t.perform(task, *args)).job.result()


# -- values -------------------------------------------------------------------------------------------------


class Repository:
    def __init__(self, table: str = "orders") -> None:
        self.table = table


class Tagger:
    def __init__(self, tag: str) -> None:
        self.tag = tag

    def __call__(self, repository: Annotated[Repository, Depends()]) -> str:
        return f"{repository.table} {self.tag}"

    async def later(self) -> str:
        return f"later {self.tag}"


async def test_hands_over_what_functions_classes_objects_and_methods_give(jobs: JobRunner) -> None:
    @jobs.task
    async def work(
        job: JobContext,
        number: int,
        repository: Annotated[Repository, Depends(Repository)] = Injected,
        called: str = Depends(Tagger("a")),
        *,
        later: Annotated[str, Depends(Tagger("b").later)] = Injected,
    ) -> list[str]:
        return [str(number), str(job.attempt), repository.table, called, later]

    assert await outcome_of(jobs, work, 3) == ["3", "1", "orders", "orders a", "later b"]


async def test_hands_over_to_positional_only_parameters(jobs: JobRunner) -> None:
    @jobs.task
    def work(number: int, called: str = Depends(Tagger("a")), /, more: int = 1) -> list[Any]:
        return [number, called, more]

    assert await outcome_of(jobs, work, 3) == [3, "orders a", 1]


async def test_def_dependencies_run_in_threads_and_async_ones_on_the_loop(jobs: JobRunner) -> None:
    here: ContextVar[str] = ContextVar("here", default="nowhere")
    where: dict[str, tuple[str, str]] = {}

    def note(name: str) -> None:
        where[name] = (threading.current_thread().name.partition("-")[0], here.get())

    async def on_loop() -> None:
        here.set("the loop's")
        note("on_loop")

    def in_thread(_: Annotated[None, Depends(on_loop)]) -> Iterator[None]:
        note("before")
        here.set("the thread's own")
        yield
        note("after")

    async def both(_: Annotated[None, Depends(in_thread)]) -> AsyncIterator[None]:
        note("both")
        yield
        note("both after")

    @jobs.task
    def work(_: Annotated[None, Depends(both)] = Injected) -> None:
        note("work")

    await outcome_of(jobs, work)
    loop = threading.current_thread().name
    assert where == {
        "on_loop": (loop, "the loop's"),
        "before": ("jobrunner", "the loop's"),
        "both": (loop, "the loop's"),
        "work": ("jobrunner", "the loop's"),
        "both after": (loop, "the loop's"),
        "after": ("jobrunner", "the loop's"),
    }


async def test_one_attempt_shares_a_value_and_the_next_gets_its_own(jobs: JobRunner) -> None:
    made: list[object] = []

    def shared() -> object:
        made.append(object())
        return made[-1]

    def user(it: Annotated[object, Depends(shared)]) -> object:
        return it

    @jobs.task
    async def work(
        one: Annotated[object, Depends(shared)] = Injected,
        same: Annotated[object, Depends(user)] = Injected,
        other: Annotated[object, Depends(shared, use_cache=False)] = Injected,
    ) -> list[bool]:
        return [one is same, one is other]

    async with JobTester(jobs) as t:
        for count in (2, 4):
            assert (await t.perform(work)).result == [True, False]
            assert len(made) == count


async def test_limit_of_a_dependency_holds_until_its_clean_up(jobs: JobRunner) -> None:
    open_now, most = 0, 0

    async def scarce() -> AsyncIterator[int]:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        yield open_now
        open_now -= 1

    Scarce = Annotated[int, Depends(scarce, max_concurrency=1)]  # noqa: N806 - an alias

    @jobs.task
    async def work(it: Scarce = Injected) -> int:
        for _ in range(3):
            await asyncio.sleep(0)  # noqa: TID251 - turns of the loop, in which others might come in
        return it

    async with jobs.running():
        enqueued = await jobs.enqueue_many([work.call() for _ in range(6)])
        for job in enqueued:
            assert await job.result(timeout=15) == 1
    assert most == 1


# -- clean-up -------------------------------------------------------------------------------------------------


def session_of(said: Said, name: str, *, on_loop: bool) -> Callable[..., Any]:
    """Make a dependency that records when it is opened and closed, and the exception it receives."""

    def closed_by(error: BaseException | None) -> str:
        return f"{name} closed" + (f" by {type(error).__name__}" if error is not None else "")

    async def opened() -> AsyncIterator[str]:
        said.append(f"{name} opened")
        told: BaseException | None = None
        try:
            yield name
        except BaseException as error:
            told = error
            raise
        finally:
            said.append(closed_by(told))

    def opened_in_thread() -> Iterator[str]:
        said.append(f"{name} opened")
        told: BaseException | None = None
        try:
            yield name
        except BaseException as error:
            told = error
            raise
        finally:
            said.append(closed_by(told))

    return opened if on_loop else opened_in_thread


@pytest.mark.parametrize("ends", ["returns", "raises", "Retry", "Snooze", "Bury", "SystemExit"])
@pytest.mark.parametrize("is_async", [True, False])
async def test_cleans_up_in_reverse_order_however_the_attempt_ends(
    jobs: JobRunner, ends: str, is_async: bool
) -> None:
    said: Said = []
    first, second = (
        session_of(said, "first", on_loop=True),
        session_of(said, "second", on_loop=False),
    )
    errors = {
        "raises": ValueError("no"),
        "Retry": Retry(60),
        "Snooze": Snooze(60),
        "Bury": Bury("no"),
        "SystemExit": SystemExit(1),
    }

    def body(job: JobContext) -> None:
        said.append("work")
        if ends in errors and "again" not in said:
            said.append("again")
            raise errors[ends]

    if is_async:

        @jobs.task(retry=lambda _: True)
        async def work(
            job: JobContext,
            a: Annotated[str, Depends(first)] = Injected,
            b: Annotated[str, Depends(second)] = Injected,
        ) -> None:
            body(job)

        task: Any = work
    else:

        @jobs.task(retry=lambda _: True)
        def work_in_thread(
            job: JobContext,
            a: Annotated[str, Depends(first)] = Injected,
            b: Annotated[str, Depends(second)] = Injected,
        ) -> None:
            body(job)

        task = work_in_thread
    async with JobTester(jobs) as t:
        await t.perform(task, until="dead" if ends == "Bury" else "succeeded")
    opened = ["first opened", "second opened", "work"]
    by = "" if ends == "returns" else f" by {type(errors[ends]).__name__}"
    once = [*opened, *(["again"] if by else []), f"second closed{by}", f"first closed{by}"]
    again = [*opened, "second closed", "first closed"] if ends not in ("returns", "Bury") else []
    assert said == once + again


async def test_function_scope_is_cleaned_up_before_request_scope(jobs: JobRunner) -> None:
    said: Said = []
    one, two, three = (session_of(said, name, on_loop=True) for name in ("one", "two", "three"))

    @jobs.task
    async def work(
        a: Annotated[str, Depends(one, scope="function")] = Injected,
        b: Annotated[str, Depends(two)] = Injected,
        c: Annotated[str, Depends(three, scope="function")] = Injected,
    ) -> None: ...

    await outcome_of(jobs, work)
    assert said[3:] == ["three closed", "one closed", "two closed"]


async def test_swallowed_exception_is_told_to_the_others_and_stays_a_failure(
    jobs: JobRunner,
) -> None:
    said: Said = []
    outer = session_of(said, "outer", on_loop=True)

    async def swallows(_: Annotated[str, Depends(outer)]) -> AsyncIterator[None]:
        try:
            yield
        except ValueError:
            said.append("swallowed")

    @jobs.task(max_attempts=1)
    async def work(_: Annotated[None, Depends(swallows)] = Injected) -> None:
        raise ValueError("no")

    with pytest.raises(JobDead, match="no"):
        await outcome_of(jobs, work)
    assert said == ["outer opened", "swallowed", "outer closed by ValueError"]


@pytest.mark.parametrize("on_loop", [True, False])
async def test_failing_clean_up_is_logged_and_changes_nothing(
    jobs: JobRunner, caplog: pytest.LogCaptureFixture, on_loop: bool
) -> None:
    said: Said = []
    outer = session_of(said, "outer", on_loop=True)

    async def fails(_: Annotated[str, Depends(outer)]) -> AsyncIterator[None]:
        yield
        raise OSError("the disk is full")

    def fails_in_thread(_: Annotated[str, Depends(outer)]) -> Iterator[None]:
        yield
        raise OSError("the disk is full")

    @jobs.task
    async def work(
        _: Annotated[None, Depends(fails if on_loop else fails_in_thread)] = Injected,
    ) -> str:
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(work)
        assert await job.result(timeout=15) == "done"
        assert [a.outcome for a in await history(jobs, job.id)] == ["succeeded"]
    (record,) = (r for r in caplog.records if r.levelname == "ERROR")
    name = "fails" if on_loop else "fails_in_thread"
    assert f"work {job.id}: the clean-up of its dependency {name} failed" in record.getMessage()
    assert "the disk is full" in record.getMessage()
    assert record.exc_info is not None
    assert vars(record)["task"] == "work"
    assert said == ["outer opened", "outer closed by OSError"]


async def test_settles_once_the_clean_up_has_ended(jobs: JobRunner) -> None:
    """So a retry does not overlap it, and a process that dies in it leaves a job that runs again."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[None]:
        yield
        begun.set()
        await go_on.wait()

    @jobs.task
    async def work(_: Annotated[None, Depends(slow)] = Injected) -> str:
        return "done"

    async with jobs.running():
        job = await jobs.enqueue(work)
        await soon(begun.wait())
        assert (await jobs.get(job.id)).state == "running"
        assert supervisor_of(jobs)._busy["default"] == 1
        go_on.set()
        assert await job.result(timeout=15) == "done"


# -- dependencies that fail ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_loop", [True, False])
async def test_failing_dependency_is_a_failed_attempt(jobs: JobRunner, on_loop: bool) -> None:
    said: Said = []
    outer = session_of(said, "outer", on_loop=True)

    async def fails(_: Annotated[str, Depends(outer)]) -> None:
        raise ConnectionError("nobody there")

    def fails_in_thread(_: Annotated[str, Depends(outer)]) -> Iterator[None]:
        if said:
            raise ConnectionError("nobody there")
        yield

    @jobs.task(max_attempts=2)
    async def work(
        _: Annotated[None, Depends(fails if on_loop else fails_in_thread)] = Injected,
    ) -> None:
        said.append("work")

    async with JobTester(jobs) as t:
        dead = await t.perform(work, until="dead")
        assert "nobody there" in str(dead.error)
        attempts = dead.job.history
        assert [a.error_type for a in attempts] == ["ConnectionError"] * 2
        trace = attempts[0].traceback
        assert trace is not None
        assert "nobody there" in trace
        assert "resolution.py" not in trace
    assert said == ["outer opened", "outer closed by ConnectionError"] * 2


@pytest.mark.parametrize(
    ("steering", "outcomes"),
    [
        (Retry(60), ["failed", "succeeded"]),
        (Snooze(60), ["snoozed", "succeeded"]),
        (Bury("enough"), ["failed"]),
    ],
)
async def test_steering_in_a_dependency_acts_as_in_the_task(
    jobs: JobRunner, steering: Exception, outcomes: list[str]
) -> None:
    raised: list[Exception] = []

    def steer() -> None:
        if not raised:
            raised.append(steering)
            raise steering

    @jobs.task
    async def work(_: Annotated[None, Depends(steer)] = Injected) -> None: ...

    async with JobTester(jobs) as t:
        assert (await t.perform(work)).outcomes == outcomes


# -- overrides ------------------------------------------------------------------------------------------------------


def get_name() -> str:
    return "real"


def get_greeting(name: Annotated[str, Depends(get_name)]) -> str:
    return f"hello {name}"


async def test_override_holds_in_tasks_as_it_is_at_the_attempt(jobs: JobRunner) -> None:
    app = FastAPI()
    said: Said = []

    def get_prefix() -> str:
        return "fake"

    async def fake_name(prefix: Annotated[str, Depends(get_prefix)]) -> AsyncIterator[str]:
        yield f"{prefix} name"
        said.append("closed")

    @jobs.task
    async def work(
        greeting: Annotated[str, Depends(get_greeting)] = Injected,
        name: Annotated[str, Depends(get_name)] = Injected,
    ) -> list[str]:
        return [greeting, name]

    async with jobs.running(app):
        assert await (await jobs.enqueue(work)).result(timeout=15) == ["hello real", "real"]
        app.dependency_overrides[get_name] = fake_name
        overridden = ["hello fake name", "fake name"]
        assert await (await jobs.enqueue(work)).result(timeout=15) == overridden
        assert said == ["closed"]
        app.dependency_overrides.clear()
        assert await (await jobs.enqueue(work)).result(timeout=15) == ["hello real", "real"]


async def test_override_that_needs_a_request_fails_the_attempt_with_the_same_words(
    jobs: JobRunner,
) -> None:
    app = FastAPI()

    def by_request(request: Request) -> str:
        return str(request.url)

    @jobs.task(max_attempts=1)
    async def work(name: Annotated[str, Depends(get_name)] = Injected) -> str:
        return name

    app.dependency_overrides[get_name] = by_request
    async with jobs.running(app):
        job = await jobs.enqueue(work)
        with pytest.raises(JobDead, match="'request' of by_request is a Request, but a task runs"):
            await job.result(timeout=15)
        assert [a.error_type for a in await history(jobs, job.id)] == ["InvalidTask"]


# -- what the library makes ---------------------------------------------------------------------------------------


async def test_queue_is_that_of_the_attempts_runner(jobs: JobRunner, tmp_path: Path) -> None:
    other = JobRunner(tmp_path / "other.db")

    @jobs.task
    def double(number: int) -> int:
        return 2 * number

    @jobs.task
    async def work(
        queue: Queue = Injected,
        named: Annotated[JobQueue, Depends(jobs.queue)] = Injected,
        others: Annotated[JobQueue, Depends(other.queue)] = Injected,
    ) -> list[bool]:
        assert await (await queue.enqueue(double, 2)).result(timeout=15) == 4
        return [queue is jobs._open, named is jobs._open, others is other._open]

    async with other.running():
        assert await outcome_of(jobs, work) == [True, True, True]


async def test_sync_queue_enqueues_from_a_thread(jobs: JobRunner) -> None:
    @jobs.task
    def double(number: int) -> int:
        return 2 * number

    @jobs.task
    def work(queue: SyncQueue = Injected) -> str:
        return queue.enqueue(double, 3).id

    async with jobs.running():
        id = await (await jobs.enqueue(work)).result(timeout=15)
        assert await (await jobs.get(id, double)).result(timeout=15) == 6


async def test_queue_can_be_overridden(jobs: JobRunner) -> None:
    app = FastAPI()
    app.dependency_overrides[get_queue] = lambda: "a fake"

    @jobs.task
    async def work(queue: Annotated[Any, Depends(get_queue)] = Injected) -> str:
        return str(queue)

    async with jobs.running(app):
        assert await (await jobs.enqueue(work)).result(timeout=15) == "a fake"
