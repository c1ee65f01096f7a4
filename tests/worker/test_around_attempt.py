"""``@jobs.around_attempt``, and the context variables that belong to one attempt."""

import asyncio
import gc
import logging
import sqlite3
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends
from tenacity import wait_none

from jobrunner import (
    Bury,
    ConfigurationError,
    Injected,
    JobContext,
    JobDead,
    JobRunner,
    Retry,
    Snooze,
)
from tests.support.engine import Gate, history, next_round, soon

tag: ContextVar[str] = ContextVar("tag", default="none")


async def test_hooks_enclose_all_of_an_attempt_in_the_order_of_registration(
    jobs: JobRunner,
) -> None:
    steps: list[str] = []

    @jobs.around_attempt
    async def outer(job: JobContext) -> AsyncIterator[None]:
        steps.append(f"outer {job.task} {job.attempt}")
        yield
        steps.append("outer ends")

    @jobs.around_attempt
    @asynccontextmanager
    async def inner(job: JobContext) -> AsyncIterator[None]:
        steps.append("inner")
        yield
        steps.append("inner ends")

    def dependency() -> Iterator[str]:
        steps.append("dependency")
        yield "d"
        steps.append("dependency ends")

    @jobs.task
    async def work(given: Annotated[str, Depends(dependency)] = Injected) -> str:
        steps.append("work")
        return given

    async with jobs.running():
        assert await (await jobs.enqueue(work)).result(timeout=15) == "d"
    assert steps == [
        "outer work 1",
        "inner",
        "dependency",
        "work",
        "dependency ends",
        "inner ends",
        "outer ends",
    ]


async def test_variables_of_a_hook_are_those_of_the_task_and_of_nobody_else(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db, queues={"default": 1})
    seen: list[tuple[str, str]] = []

    @jobs.around_attempt
    async def tenant(job: JobContext) -> AsyncIterator[None]:
        seen.append(("before", tag.get()))
        tag.set(job.id)
        yield
        seen.append(("behind", tag.get()))

    def dependency() -> Iterator[None]:
        seen.append(("made", tag.get()))
        yield
        seen.append(("cleaned", tag.get()))

    def write(conn: sqlite3.Connection) -> None:
        seen.append(("write", tag.get()))
        tag.set("of the writer")

    @jobs.task
    async def on_loop(
        job: JobContext, given: Annotated[None, Depends(dependency)] = Injected
    ) -> None:
        seen.append(("task", tag.get()))
        job.write(write)

    @jobs.task
    def in_thread(job: JobContext, given: Annotated[None, Depends(dependency)] = Injected) -> None:
        seen.append(("task", tag.get()))
        tag.set(f"{job.id} in its thread")
        job.write(write)

    async with jobs.running():
        for task in (on_loop, in_thread, on_loop, in_thread):
            seen.clear()
            job = await jobs.enqueue(task)
            await job.result(timeout=15)
            of_write = job.id if task is on_loop else f"{job.id} in its thread"
            assert seen.pop() == ("write", of_write)
            assert seen == [
                ("before", "none"),
                *((where, job.id) for where in ("made", "task", "cleaned", "behind")),
            ]
    assert tag.get() == "none"


async def test_variables_of_one_told_hook_are_not_those_of_the_next(jobs: JobRunner) -> None:
    seen: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    @jobs.on_succeeded
    async def first(_: object) -> None:
        seen.put_nowait(("first", tag.get()))
        tag.set("first")

    @jobs.on_succeeded
    def second(_: object) -> None:
        seen.put_nowait(("second", tag.get()))
        tag.set("second")

    @jobs.task
    async def work() -> None:
        tag.set("task")

    tag.set("opened with")
    async with jobs.running():
        for _ in range(2):
            await jobs.enqueue(work)
            assert await soon(seen.get()) == ("first", "opened with")
            assert await soon(seen.get()) == ("second", "opened with")


async def test_error_of_the_attempt_passes_through_the_hooks_and_none_can_hide_it(
    jobs: JobRunner, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[BaseException] = []

    @jobs.around_attempt
    async def sees(job: JobContext) -> AsyncIterator[None]:
        try:
            yield
        except BaseException as error:
            seen.append(error)
            raise

    @jobs.around_attempt
    async def swallows(job: JobContext) -> AsyncIterator[None]:
        try:
            yield
        except LookupError as error:
            seen.append(error)

    @jobs.task(max_attempts=1)
    async def fail() -> None:
        raise LookupError("x")

    @jobs.task(max_attempts=1, timeout=0.05)
    async def hang() -> None:
        await asyncio.Event().wait()

    async with jobs.running():
        with pytest.raises(JobDead, match="LookupError: x"):
            await (await jobs.enqueue(fail)).result(timeout=15)
        assert [str(one) for one in seen] == ["x", "x"]
        seen.clear()
        job = await jobs.enqueue(hang)
        with pytest.raises(JobDead, match="TimedOut"):
            await job.result(timeout=15)
        assert [type(one) for one in seen] == [asyncio.CancelledError]
        letter = await jobs.dead_letters.get(job.id)
        # Where it was when its time was out.
        assert "in hang" in (letter.traceback or "")
    assert not [r for r in caplog.records if "around_attempt" in r.getMessage()]


async def test_hook_that_fails_before_the_yield_fails_the_attempt_by_its_name(
    jobs: JobRunner,
) -> None:
    ran: list[str] = []

    @jobs.around_attempt
    async def outer(job: JobContext) -> AsyncIterator[None]:
        try:
            yield
        except RuntimeError as error:
            ran.append(f"outer saw {error.__cause__!r}")
            raise

    @jobs.around_attempt
    async def broken(job: JobContext) -> AsyncIterator[None]:
        if job.attempt == 1:
            raise LookupError("no tenant")
        yield

    @jobs.task(max_attempts=2, wait=wait_none())
    async def work() -> None:
        ran.append("work")

    async with jobs.running():
        job = await jobs.enqueue(work)
        await job.result(timeout=15)
        first, second = await history(jobs, job.id)
    assert ran == ["outer saw LookupError('no tenant')", "work"]
    assert first.outcome == "failed"
    assert first.error is not None
    assert first.error.startswith("the around_attempt hook broken (test_around_attempt.py:")
    assert first.error.endswith("failed: LookupError('no tenant')")
    assert second.outcome == "succeeded"


async def test_hook_may_steer_the_job_before_the_yield(jobs: JobRunner) -> None:
    steering: list[Exception] = [Snooze(0), Retry(0), Bury("closed today")]

    @jobs.around_attempt
    async def gate(job: JobContext) -> AsyncIterator[None]:
        raise steering.pop(0)
        yield  # type: ignore[unreachable]

    @jobs.task
    async def work() -> None: ...

    async with jobs.running():
        job = await jobs.enqueue(work)
        with pytest.raises(JobDead, match=r"buried.*closed today"):
            await job.result(timeout=15)
        assert [one.outcome for one in await history(jobs, job.id)] == [
            "snoozed",
            "failed",
            "failed",
        ]


async def test_hook_that_fails_behind_the_yield_is_logged_and_changes_nothing(
    jobs: JobRunner, caplog: pytest.LogCaptureFixture
) -> None:
    class Metrics:
        async def __aenter__(self) -> None: ...
        async def __aexit__(self, *_: object) -> None:
            raise OSError("no route")

    jobs.around_attempt(lambda _: Metrics())

    @jobs.task
    async def work() -> int:
        return 7

    async with jobs.running():
        assert await (await jobs.enqueue(work)).result(timeout=15) == 7
    (said,) = [r for r in caplog.records if "around_attempt hook <lambda>" in r.getMessage()]
    assert "that changes nothing in what became of the job: OSError('no route')" in said.message
    assert said.exc_info is not None


async def test_time_of_a_hook_counts_within_the_timeout(jobs: JobRunner) -> None:
    @jobs.around_attempt
    async def slow(job: JobContext) -> AsyncIterator[None]:
        await asyncio.Event().wait()
        yield

    @jobs.task(max_attempts=1, timeout=0.05)
    async def work() -> None: ...

    async with jobs.running():
        with pytest.raises(JobDead, match="TimedOut"):
            await (await jobs.enqueue(work)).result(timeout=15)


async def test_shutdown_reaches_an_attempt_that_waits_in_a_hook(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db, grace=0.05)
    gate = Gate()

    @jobs.around_attempt
    async def waits(job: JobContext) -> AsyncIterator[None]:
        await gate.enter()
        yield

    @jobs.task
    async def work() -> None: ...

    async with jobs.running():
        job = await jobs.enqueue(work)
        await gate.arrival()
    async with jobs.running(work=False):
        assert (await jobs.get(job.id)).state == "queued"


async def test_arguments_that_no_longer_fit_pass_through_the_hooks(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)
    seen: list[type] = []

    @jobs.around_attempt
    async def sees(job: JobContext) -> AsyncIterator[None]:
        try:
            yield
        except Exception as error:
            seen.append(type(error))
            raise

    @jobs.task
    async def work(number: int) -> None: ...

    async with jobs.running(work=False):
        job = await jobs.enqueue(work, 7)
    with closing(sqlite3.connect(tmp_db)) as conn, conn:
        conn.execute("""UPDATE jobrunner_jobs SET args = '{"number": "x"}'""")
    async with jobs.running():
        with pytest.raises(JobDead, match="invalid_args"):
            await (await jobs.get(job.id)).result(timeout=15)
    assert [one.__name__ for one in seen] == ["InvalidArguments"]


@pytest.mark.parametrize("kind", ["coroutine", "generator", "text"])
def test_what_cannot_be_around_an_attempt_is_refused(kind: str, jobs: JobRunner) -> None:
    async def coroutine(job: JobContext) -> None: ...

    def generator(job: JobContext) -> Iterator[None]:
        yield

    wrong: Any = {"coroutine": coroutine, "generator": generator, "text": "text"}[kind]
    with pytest.raises(ConfigurationError, match=r"takes an `async def` with one `yield`, not"):
        jobs.around_attempt(wrong)


# -- what is logged of failures ---------------------------------------------------------------------------


class Kept(logging.Handler):
    """Keeps of each record what was in force when it was made."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[str, str, type | None]] = []

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0] if record.exc_info else None
        self.said.append((record.levelname, tag.get(), kind))


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler = Kept()
    logger = logging.getLogger("jobrunner")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.mark.parametrize("where", ["loop", "thread"])
async def test_failures_are_logged_with_their_error_in_the_context_of_the_attempt(
    jobs: JobRunner, kept: Kept, where: str
) -> None:
    @jobs.around_attempt
    async def tenant(job: JobContext) -> AsyncIterator[None]:
        token = tag.set(f"attempt {job.attempt}")
        yield
        tag.reset(token)

    async def on_loop() -> None:
        raise LookupError("x")

    def in_thread() -> None:
        raise LookupError("x")

    task = jobs.task(max_attempts=2, wait=wait_none())(on_loop if where == "loop" else in_thread)
    async with jobs.running():
        with pytest.raises(JobDead):
            await (await jobs.enqueue(task)).result(timeout=15)
    assert [one for one in kept.said if one[2]] == [
        ("WARNING", "attempt 1", LookupError),
        ("ERROR", "attempt 2", LookupError),
    ]


async def test_cause_of_a_retry_is_what_is_logged(jobs: JobRunner, kept: Kept) -> None:
    @jobs.task(max_attempts=1)
    async def work() -> None:
        try:
            raise ConnectionRefusedError("refused")
        except OSError as error:
            raise Retry(60) from error

    async with jobs.running():
        with pytest.raises(JobDead):
            await (await jobs.enqueue(work)).result(timeout=15)
    assert [one for one in kept.said if one[2]] == [("ERROR", "none", ConnectionRefusedError)]


class Big:
    """Something that a task has in hand when it fails."""


@pytest.mark.parametrize("where", ["loop", "thread"])
@pytest.mark.parametrize("hooked", [False, True], ids=["plain", "hooked"])
async def test_error_is_let_go_of_once_it_is_logged(
    jobs: JobRunner, where: str, *, hooked: bool
) -> None:
    alive: list[weakref.ref[Big]] = []
    if hooked:

        @jobs.around_attempt
        async def around(job: JobContext) -> AsyncIterator[None]:
            yield

    def fail() -> None:
        big = Big()
        alive.append(weakref.ref(big))
        raise LookupError("x")

    async def on_loop() -> None:
        fail()

    def in_thread() -> None:
        fail()

    task = jobs.task(max_attempts=1)(on_loop if where == "loop" else in_thread)
    # pytest's own handlers keep every record.
    logging.getLogger("jobrunner").disabled = True
    gc.disable()
    try:
        async with jobs.running():
            for _ in range(3):
                with pytest.raises(JobDead):
                    await (await jobs.enqueue(task)).result(timeout=15)
            await next_round(jobs)
            await next_round(jobs)
            left = [one() for one in alive[:-1]]
    finally:
        gc.enable()
        logging.getLogger("jobrunner").disabled = False
    assert left == [None, None]
