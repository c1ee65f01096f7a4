"""Attempts that leave un-awaited what they were to wait for: no success, and the error says what to write."""

import asyncio
import concurrent.futures
import contextlib
import gc
import inspect
import logging
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any

import pytest

import jobrunner
from jobrunner import DeadLetter, Job, JobContext, JobRunner, NotAwaited
from jobrunner.core.logs import WHOLE
from jobrunner.tasks.task import AsyncTask, CtxAsyncTask, Task
from jobrunner.worker.unawaited import _WRITTEN, watched
from tests.support.engine import Gate, Heard, history, next_round, soon

pytestmark = pytest.mark.each_store


seen: list[str] = []


async def send(to: str) -> None:
    seen.append(to)


class Lazy:
    """An awaitable of somebody's own, as the queries of some libraries are."""

    def __await__(self) -> Generator[None, None, int]:
        yield
        return 1


def numbers() -> Iterator[int]:
    yield 1


async def numbers_by_and_by() -> AsyncIterator[int]:
    yield 1


async def death_of(
    jobs: JobRunner, function: Callable[..., Any], *args: object
) -> tuple[DeadLetter, Job[Any]]:
    """Run a function as a task with one attempt, which must fail; return its dead letter."""
    heard = Heard(jobs)
    task = jobs.task(max_attempts=1, name="task")(function)
    async with jobs.running():
        job = await jobs.enqueue(task, *args)
        return await soon(heard.dead.get()), job


# -- what is returned ----------------------------------------------------------------------------------


async def coroutine() -> Any:
    return send("x")


async def coroutines() -> list[Any]:
    return [send("x"), send("y")]


async def coroutines_by_name() -> dict[str, Any]:
    return {"x": [send("x")]}


async def future() -> Any:
    return asyncio.get_running_loop().create_future()


async def own_awaitable() -> Any:
    return Lazy()


async def generator() -> Any:
    return (len(to) for to in "xy")


async def mapping() -> Any:
    return map(len, "xy")


async def async_generator() -> Any:
    return numbers_by_and_by()


async def thread_future() -> Any:
    return concurrent.futures.Future[int]()


def coroutine_in_thread() -> Any:
    return send("x")


def generator_in_thread() -> Any:
    return numbers()


def thread_future_in_thread() -> Any:
    return concurrent.futures.Future[int]()


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (coroutine, "the coroutine of send(), which nobody has awaited: write `return await ...`"),
        (coroutines, "send(), which nobody has awaited: write `return await asyncio.gather(*...)`"),
        (coroutines_by_name, "a dict that holds the coroutine of send()"),
        (future, "a Future, which nobody has waited for: write `return await ...`"),
        (own_awaitable, "a Lazy, which nobody has waited for: write `return await ...`"),
        (generator, "a generator, which nobody has gone through: write `return list(...)`"),
        (mapping, "a map, which nobody has gone through: write `return list(...)`"),
        (async_generator, "an async generator, which nobody has gone through: write `return [one async"),
        (thread_future, "write `return await asyncio.wrap_future(...)`"),
        (coroutine_in_thread, "the coroutine of send(), which nobody has awaited: write the task as `async def`"),
        (generator_in_thread, "a generator, which nobody has gone through: write `return list(...)`"),
        (thread_future_in_thread, "write `return ....result()`"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
async def test_returned_work_that_nobody_did_is_a_failure(
    store_url: str, function: Callable[..., Any], said: str
) -> None:
    seen.clear()
    letter, _ = await death_of(JobRunner(store_url), function)
    assert letter.reason == "exhausted"
    assert letter.error_type == "NotAwaited"
    assert letter.error is not None
    assert letter.error.startswith("the task returned ")
    assert said in letter.error
    assert seen == []


async def test_returned_task_of_the_loop_is_a_failure_and_is_left_to_its_end(
    store_url: str,
) -> None:
    gate = Gate()
    started: list[asyncio.Task[None]] = []

    async def begin() -> Any:
        started.append(asyncio.create_task(gate.enter()))
        return started[0]

    letter, _ = await death_of(JobRunner(store_url), begin)
    assert (
        letter.error
        == "the task returned a Task, which nobody has waited for: write `return await ...`"
    )
    gate.open()
    await soon(started[0])


async def test_returned_coroutine_is_a_failure_that_is_retried_as_others(jobs: JobRunner) -> None:
    heard = Heard(jobs)

    @jobs.task(max_attempts=2)
    async def work() -> Any:
        return send("x")

    async with jobs.running():
        job = await jobs.enqueue(work)
        await soon(heard.retries.get())
        (attempt,) = await history(jobs, job.id)
    assert (attempt.outcome, attempt.error_type) == ("failed", "NotAwaited")


@pytest.mark.parametrize("value", [1, "x", [1, [2]], {"a": [1]}, None])
async def test_returned_plain_value_is_success(jobs: JobRunner, value: object) -> None:
    @jobs.task
    async def work() -> Any:
        return value

    async with jobs.running():
        assert await (await jobs.enqueue(work)).result(timeout=15) == value


# -- what is called and dropped ------------------------------------------------------------------------


def verbs_of(jobs: JobRunner) -> dict[str, tuple[Callable[[], Any], str]]:
    """Return calls of verbs, by name, and how each is written in a ``def`` task."""

    @jobs.task
    async def mail(to: str) -> None:
        seen.append(to)

    @jobs.task
    async def never_run() -> None: ...

    held: list[Job[Any]] = []

    def result() -> object:
        held.append(jobs.sync.enqueue(never_run.options(delay=3600)))
        return held[0].result()

    id = "01936d2c-7a40-7c3e-9d55-6f0c1d2e3f4a"
    return {
        "task.enqueue": (lambda: mail.enqueue("x"), "write `jobs.sync.enqueue(mail, ...)` in place of"),
        "enqueue": (lambda: jobs.enqueue(mail, "x"), "write `jobs.sync.enqueue(...)` in place of `jobs."),
        "enqueue_many": (lambda: jobs.enqueue_many([mail.call("x")]), "`jobs.sync.enqueue_many(...)`"),
        "enqueue_chain": (lambda: jobs.enqueue_chain([mail.call("x")]), "`jobs.sync.enqueue_chain(...)`"),
        "get": (lambda: jobs.get(id), "`jobs.sync.get(...)`"),
        "cancel": (lambda: jobs.cancel(id), "`jobs.sync.cancel(...)`"),
        "pause": (lambda: jobs.queues.pause("default"), "`jobs.sync.queues.pause(...)` in place of"),
        "result": (result, "`jobs.sync.result(job, ...)` in place of"),
        "replay": (lambda: jobs.dead_letters.replay(id), "`jobs.sync.dead_letters.replay(...)` in place of"),
        "schedules": (lambda: jobs.schedules.ticks(id), "`jobs.sync.schedules.ticks(...)` in place of"),
        "called": (lambda: mail("x"), "`jobs.sync.enqueue(mail, ...)`, or this function as `async def`"),
    }  # fmt: skip


NAMES = (
    "task.enqueue",
    "enqueue",
    "enqueue_many",
    "enqueue_chain",
    "get",
    "cancel",
    "pause",
    "result",
    "replay",
    "schedules",
    "called",
)


@pytest.mark.parametrize("verb", NAMES)
async def test_verb_called_in_a_def_task_and_dropped_is_a_failure(
    jobs: JobRunner, verb: str
) -> None:
    seen.clear()
    call, line = verbs_of(jobs)[verb]

    def fan_out() -> None:
        call()

    letter, _ = await death_of(jobs, fan_out)
    assert letter.error_type == "NotAwaited"
    assert letter.error is not None
    assert letter.error.startswith("the task called an async verb and did not await it: write `")
    assert line in letter.error
    assert seen == []


@pytest.mark.parametrize("verb", [name for name in NAMES if name != "result"])
async def test_verb_called_in_an_async_task_and_dropped_is_a_failure(
    jobs: JobRunner, verb: str
) -> None:
    call, _ = verbs_of(jobs)[verb]

    async def fan_out() -> None:
        kept = call()
        assert inspect.iscoroutine(kept)

    letter, _ = await death_of(jobs, fan_out)
    assert letter.error_type == "NotAwaited"
    assert letter.error is not None
    assert "did not await it: write `await " in letter.error


async def test_verbs_dropped_are_counted_and_those_awaited_are_not(jobs: JobRunner) -> None:
    @jobs.task
    async def mail(to: str) -> None: ...

    async def fan_out() -> None:
        for to in "abc":
            await mail.enqueue(to)
            mail.enqueue(to)  # type: ignore[unused-coroutine] # what this test is about

    letter, _ = await death_of(jobs, fan_out)
    assert letter.error is not None
    assert letter.error.endswith("write `await mail.enqueue(...)` (3 such calls)")


async def test_verb_that_was_refused_is_no_dropped_one(jobs: JobRunner) -> None:
    def look() -> str:
        try:
            asyncio.run(jobs.enqueue(jobs.tasks["task"]))
        except jobrunner.WrongThread as error:
            return str(error)
        return "stored"

    task = jobs.task(name="task")(look)
    async with jobs.running():
        said = await (await jobs.enqueue(task)).result(timeout=15)
    assert "jobs.sync.enqueue(task, ...)" in said


async def test_verbs_that_are_run_later_are_success(jobs: JobRunner) -> None:
    left: list[Awaitable[Job[None]]] = []

    @jobs.task
    async def mail(to: str) -> None: ...

    @jobs.task
    async def spawns() -> None:
        left.append(asyncio.create_task(mail.enqueue("x")))  # begins after the attempt has ended
        left.append(mail.enqueue("y"))  # held by somebody who may yet await it

    @jobs.task
    def waits() -> None:
        jobs.sync.run(jobs.sync.enqueue(mail, "z").result())

    async with jobs.running():
        await (await jobs.enqueue(spawns)).result(timeout=15)
        await (await jobs.enqueue(waits)).result(timeout=15)
        for one in left:
            assert (await one).task == "mail"


async def test_verb_dropped_outside_attempts_is_an_error_in_the_log(
    jobs: JobRunner, caplog: pytest.LogCaptureFixture
) -> None:
    @jobs.task
    async def mail(to: str) -> None: ...

    async with jobs.running():
        with pytest.warns(RuntimeWarning, match="never awaited"):
            mail.enqueue("x")  # type: ignore[unused-coroutine] # what this test is about
        with pytest.warns(RuntimeWarning, match="never awaited"):
            send("x")  # type: ignore[unused-coroutine] # nothing of ours
    with pytest.warns(RuntimeWarning, match="never awaited"):
        mail.enqueue("x")  # type: ignore[unused-coroutine] # no runner is open
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert said == [
        "Task.enqueue() was called and not awaited, so that it did nothing: write `await mail.enqueue(...)`"
    ]


async def test_verbs_of_many_tasks_that_are_dropped_are_each_in_the_log(
    jobs: JobRunner, caplog: pytest.LogCaptureFixture
) -> None:
    def mail(number: int) -> Task[[str], None]:
        async def mail(to: str) -> None: ...

        mail.__name__ = f"mail_{number}"
        return jobs.task(mail)

    tasks = [mail(number) for number in range(WHOLE + 2)]
    async with jobs.running():
        for task in tasks:
            with pytest.warns(RuntimeWarning, match="never awaited"):
                task.enqueue("x")  # type: ignore[unused-coroutine] # what this test is about
    for number in range(len(tasks)):
        assert f"write `await mail_{number}.enqueue(...)`" in caplog.text


async def test_verb_that_the_collector_finds_is_blamed_on_no_attempt(
    jobs: JobRunner, caplog: pytest.LogCaptureFixture
) -> None:
    @jobs.task
    async def mail(to: str) -> None: ...

    @jobs.task
    async def collects() -> None:
        gc.collect()

    gc.disable()
    try:
        async with jobs.running():
            circle: list[object] = [mail.enqueue("x")]
            circle.append(circle)
            del circle
            job = await jobs.enqueue(collects)
            with pytest.warns(RuntimeWarning, match="never awaited"):
                await job.result(timeout=15)
    finally:
        gc.enable()
    assert "Task.enqueue() was called and not awaited" in caplog.text


async def test_verb_dropped_by_what_outlives_its_attempt_is_an_error_in_the_log(
    jobs: JobRunner, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    left: list[asyncio.Task[None]] = []

    @jobs.task
    async def mail(to: str) -> None: ...

    async def later() -> None:
        await gate.enter()
        mail.enqueue("x")  # type: ignore[unused-coroutine] # what this test is about

    @jobs.task
    async def spawns() -> None:
        left.append(asyncio.create_task(later()))

    async with jobs.running():
        await (await jobs.enqueue(spawns)).result(timeout=15)
        await gate.arrival()
        gate.open()
        with pytest.warns(RuntimeWarning, match="never awaited"):
            await soon(left[0])
    assert "Task.enqueue() was called and not awaited" in caplog.text


def test_python_tells_through_the_function_that_is_replaced() -> None:
    before = warnings._warn_unawaited_coroutine  # type: ignore[attr-defined]
    with watched(), watched():
        assert warnings._warn_unawaited_coroutine != before  # type: ignore[attr-defined]
    assert warnings._warn_unawaited_coroutine is before  # type: ignore[attr-defined]


def test_function_that_others_put_before_ours_is_called_once_at_each_opening() -> None:
    before = warnings._warn_unawaited_coroutine  # type: ignore[attr-defined]
    heard: list[str] = []
    try:
        with watched():
            ours = warnings._warn_unawaited_coroutine  # type: ignore[attr-defined]

            def others(dropped: Any) -> None:
                heard.append(dropped.__qualname__)
                ours(dropped)

            warnings._warn_unawaited_coroutine = others  # type: ignore[attr-defined]
        for _ in range(2):
            with watched(), pytest.warns(RuntimeWarning, match="never awaited"):
                send("x")  # type: ignore[unused-coroutine] # what this test is about
    finally:
        warnings._warn_unawaited_coroutine = before  # type: ignore[attr-defined]
    assert heard == ["send", "send"]


@pytest.mark.parametrize("depth", [0, 5])
def test_pythons_own_warning_is_the_same_and_names_the_same_line(depth: int) -> None:
    said = []
    before = sys.get_coroutine_origin_tracking_depth()
    sys.set_coroutine_origin_tracking_depth(depth)
    try:
        for block in (contextlib.nullcontext(), watched()):
            with block, pytest.warns(RuntimeWarning) as warned:
                send("x")  # type: ignore[unused-coroutine] # what this test is about
            said += [(str(one.message), one.filename, one.lineno) for one in warned]
    finally:
        sys.set_coroutine_origin_tracking_depth(before)
    pythons, ours = said
    assert ours == pythons
    assert ours[1] == __file__
    assert ("created at" in ours[0]) == (depth > 0)


async def test_verb_dropped_while_the_collector_is_at_work_elsewhere_is_a_failure(
    jobs: JobRunner,
) -> None:
    gate, collecting = threading.Event(), threading.Event()

    @jobs.task
    async def mail(to: str) -> None: ...

    class Waits:
        def __del__(self) -> None:
            collecting.set()
            gate.wait(15)

    def collect() -> None:
        circle: list[object] = [Waits()]
        circle.append(circle)
        del circle
        gc.collect()

    def fan_out() -> None:
        elsewhere = threading.Thread(target=collect)
        elsewhere.start()
        assert collecting.wait(15)
        try:
            mail.enqueue("x")  # type: ignore[unused-coroutine] # what this test is about
        finally:
            gate.set()
            elsewhere.join()

    letter, _ = await death_of(jobs, fan_out)
    assert letter.error_type == "NotAwaited"


async def test_verb_dropped_before_a_failure_leaves_that_failure(jobs: JobRunner) -> None:
    @jobs.task
    async def mail(to: str) -> None: ...

    async def fan_out() -> None:
        kept = [mail.enqueue("x")]
        kept.pop().close()
        raise LookupError("nobody there")

    letter, _ = await death_of(jobs, fan_out)
    assert letter.error_type == "LookupError"


async def test_forgotten_await_of_a_step_is_a_failure(jobs: JobRunner) -> None:
    async def charge() -> None: ...

    async def order(job: JobContext) -> None:
        job.step("charge", charge)  # type: ignore[unused-coroutine] # what this test is about

    letter, _ = await death_of(jobs, order)
    assert letter.error_type == "NotAwaited"
    assert "write `await job.step(...)`" in (letter.error or "")


async def test_step_without_await_in_a_thread_is_a_failure(jobs: JobRunner) -> None:
    async def charge() -> None: ...

    def order(job: JobContext) -> None:
        job.step("charge", charge)  # type: ignore[unused-coroutine] # what this test is about

    letter, _ = await death_of(jobs, order)
    assert letter.error_type == "NotAwaited"
    assert "write `job.sync.step(...)` in place of `job.step(...)`" in (letter.error or "")


def test_every_public_class_with_coroutine_functions_has_verbs() -> None:
    public = [getattr(jobrunner, name) for name in jobrunner.__all__]
    classes = {
        base
        for cls in (*filter(inspect.isclass, public), AsyncTask, CtxAsyncTask)
        for base in cls.__mro__
        if base.__module__.partition(".")[0] == "jobrunner"
    }
    with_verbs = {
        cls.__name__
        for cls in classes
        for name, value in vars(cls).items()
        if (not name.startswith("_") or name == "__call__") and inspect.iscoroutinefunction(value)
    }
    assert with_verbs == _WRITTEN.keys()


# -- the program that showed it ------------------------------------------------------------------------


async def test_forgotten_awaits_of_a_small_program_are_dead_letters(jobs: JobRunner) -> None:
    seen.clear()
    heard = Heard(jobs)

    @jobs.task(max_attempts=1)
    async def mail(to: str) -> Any:
        return send(to)  # await forgotten

    @jobs.task(max_attempts=1)
    def fan_out() -> None:
        mail.enqueue("x")  # type: ignore[unused-coroutine] # jobs.sync forgotten

    async with jobs.running():
        for job in (await mail.enqueue("x"), await fan_out.enqueue()):
            assert (await soon(heard.dead.get())).id == job.id
            assert (await jobs.get(job.id)).state == "dead"
        await next_round(jobs)
        assert len((await jobs.list()).items) == 0
    assert seen == []
    assert issubclass(NotAwaited, jobrunner.JobRunnerError)
