"""An attempt is stopped at its n-th step, for every n.

All the dependencies that were opened are closed, in order, and its rows are there if and only if it has succeeded.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends

from jobrunner import Injected, JobContext, JobRunner
from jobrunner.worker.attempt import Attempt
from jobrunner.worker.supervisor import Supervisor
from tests.support.engine import history, soon, supervisor_of
from tests.worker.site import Site

MOST_STEPS = 100

Stop = Callable[[Attempt], object]

STOPS: dict[str, Stop] = {
    "cancel": lambda attempt: attempt.stop("cancel"),
    "timeout": lambda attempt: attempt.stop("timeout"),
    "shutdown": lambda attempt: attempt.stop("shutdown"),
    "from nowhere": lambda attempt: attempt.task and attempt.task.cancel(),
}


class Stepped:
    """An awaitable that does something at the n-th step of what it awaits, in the midst of it."""

    def __init__(self, inner: Awaitable[object], at: int, do: Callable[[], object]) -> None:
        self._inner = inner
        self._at = at
        self._do = do
        self.steps = 0

    def __await__(self) -> Any:
        steps = self._inner.__await__()
        answer: Any = None
        error: BaseException | None = None
        while True:
            try:
                waits_for = steps.send(answer) if error is None else steps.throw(error)
            except StopIteration as end:
                return end.value
            self.steps += 1
            if self.steps == self._at:
                self._do()
            error = None
            try:
                answer = yield waits_for
            except BaseException as thrown:  # noqa: BLE001 - handed on to the one inside
                error = thrown


async def a_step() -> None:
    await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop, at which it may be stopped


class Books:
    """The opened and closed resources, each with its cause."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.lines: list[str] = []

    def opened(self, name: str) -> None:
        self.open.append(name)
        self.lines.append(f"{name} opened")

    def closed(self, name: str) -> None:
        assert self.open.pop() == name, self.lines
        self.lines.append(f"{name} closed")

    def failed(self, name: str) -> None:
        self.lines.append(f"{name} told")


def dependency_with(books: Books) -> Callable[..., Any]:
    """Make a chain of dependencies of every kind; return the last one."""

    async def outer() -> AsyncIterator[None]:
        await a_step()
        books.opened("outer")
        try:
            await a_step()
            yield
            books.lines.append("outer commits")
        except BaseException:
            books.failed("outer")
            raise
        finally:
            try:
                await a_step()
            finally:
                books.closed("outer")

    def threaded(_: Annotated[None, Depends(outer)]) -> Iterator[None]:
        books.opened("threaded")
        try:
            yield
        finally:
            books.closed("threaded")

    async def plain(_: Annotated[None, Depends(threaded)]) -> None:
        await a_step()

    async def inner(_: Annotated[None, Depends(plain)]) -> AsyncIterator[None]:
        books.opened("inner")
        try:
            await a_step()
            yield
        finally:
            try:
                await a_step()
            finally:
                books.closed("inner")

    return inner


def task_of(jobs: JobRunner, books: Books, *, is_async: bool) -> Any:
    inner = dependency_with(books)
    if is_async:

        @jobs.task(name="work", max_attempts=1)
        async def work(_: Annotated[None, Depends(inner, scope="function")] = Injected) -> str:
            await a_step()
            books.lines.append("worked")
            return "done"

        return work

    @jobs.task(name="work", max_attempts=1)
    def work_in_thread(_: Annotated[None, Depends(inner, scope="function")] = Injected) -> str:
        books.lines.append("worked")
        return "done"

    return work_in_thread


OUTCOMES = {
    "cancel": ("cancelled", "cancelled"),
    "timeout": ("timed_out", "dead"),
    # Given back, and run again to its end.
    "shutdown": ("released", "succeeded"),
    "from nowhere": ("failed", "dead"),
}


@pytest.mark.parametrize("is_async", [True, False], ids=["async def", "def"])
@pytest.mark.parametrize("stop", STOPS)
async def test_C1_attempt_stopped_at_every_step_closes_what_it_opened(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch, stop: str, is_async: bool
) -> None:
    books = Books()
    work = task_of(jobs, books, is_async=is_async)
    run = Supervisor._run
    at = 0
    runs: list[Stepped] = []

    async def stepped(supervisor: Supervisor, attempt: Attempt) -> None:
        first = not runs
        runs.append(
            Stepped(run(supervisor, attempt), at if first else -1, lambda: STOPS[stop](attempt))
        )
        await runs[-1]

    monkeypatch.setattr(Supervisor, "_run", stepped)
    seen: set[str] = set()
    async with jobs.running():
        for at in range(1, MOST_STEPS):
            books.lines.clear()
            runs.clear()
            job = await jobs.enqueue(work)
            while (state := (await soon(jobs.get(job.id))).state) in ("queued", "running"):
                pass
            while supervisor_of(jobs)._busy["default"]:
                await a_step()
            assert books.open == [], books.lines
            outcome = (await history(jobs, job.id))[0].outcome
            assert (outcome, state) in {OUTCOMES[stop], ("succeeded", "succeeded")}, books.lines
            # A dependency is told of a success if it was one, and only then.
            if outcome != "succeeded" and len(runs) == 1:
                assert "outer commits" not in books.lines
            if outcome == "succeeded":
                assert "worked" in books.lines
                # A process that goes down may cut the clean-up short.
                cut = stop in ("shutdown", "from nowhere")
                assert cut or "outer commits" in books.lines
            seen.add(str(outcome))
            if runs[0].steps < at:
                break
        else:
            pytest.fail("it never ends")
    assert at > 8
    assert seen == {"succeeded", OUTCOMES[stop][0]}


def task_with_rows(site: Site, way: str) -> Any:
    """Make a task that writes a word to the application's table, in one transaction with its end."""
    if way == "injected session":
        session_dep = Annotated[Any, Depends(site.get_session)]

        @site.tasks.task(name="work", max_attempts=1)
        async def work_with_session(word: str, session: session_dep = Injected) -> None:
            await site.add(session, word)

        return work_with_session

    @site.tasks.task(name="work", max_attempts=1)
    async def work(job: JobContext, word: str) -> None:
        async with job.transaction() as tx:
            await site.add(tx, word)

    return work


@pytest.mark.parametrize("kind", ["AsyncSession", "aiosqlite"])
@pytest.mark.parametrize("way", ["injected session", "job.transaction()"])
async def test_C1_attempt_stopped_at_every_step_has_its_rows_if_it_succeeded_and_else_none(
    tmp_db: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    way: str,
    kind: str,
) -> None:
    caplog.set_level(logging.WARNING, "jobrunner")
    site = Site(tmp_db, kind)
    work = task_with_rows(site, way)
    run = Supervisor._run
    at = 0
    runs: list[Stepped] = []

    async def stepped(supervisor: Supervisor, attempt: Attempt) -> None:
        runs.append(Stepped(run(supervisor, attempt), at, lambda: attempt.stop("cancel")))
        await runs[-1]

    monkeypatch.setattr(Supervisor, "_run", stepped)
    seen: set[str] = set()
    async with site.open() as jobs:
        for at in range(1, MOST_STEPS):
            runs.clear()
            word = f"word {at}"
            job = await jobs.enqueue(work, word)
            while (state := (await soon(jobs.get(job.id))).state) in ("queued", "running"):
                pass
            while supervisor_of(jobs)._busy["default"]:
                await a_step()
            assert (state, word in site.words()) in {("succeeded", True), ("cancelled", False)}
            seen.add(state)
            if runs[0].steps < at:
                break
        else:
            pytest.fail("it never ends")
    assert seen == {"succeeded", "cancelled"}
    # A stop that came while the transaction was committed has not settled the job a second time.
    assert [
        record.getMessage() for record in caplog.records if "lease" in record.getMessage()
    ] == []
