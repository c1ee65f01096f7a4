"""Offers ``JobTester``, which opens an application and runs its jobs on demand."""

import inspect
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, overload

from jobrunner.store.open import GuardedCommits, commits_seen, put_blank
from jobrunner.tasks.task import Task
from jobrunner.testing.assertions import split
from jobrunner.testing.crash_points import MOST_POINTS, CrashPoint
from jobrunner.testing.opening import opener_of
from jobrunner.testing.recovery import killed_at
from jobrunner.testing.runners import DEFAULT_TIMEOUT_S, TestedRunners
from jobrunner.testing.running import TesterRuns

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
Setup = Callable[[], object]


class JobTester(TesterRuns):
    """Opens an application or a runner on the test's store and clock.

    ::

        async with JobTester(app) as t:
            await client.post("/subscribers", json={"email": "a@x.de"})
            t.assert_enqueued(send_welcome, "a@x.de")
            await t.run_until_idle()

    Jobs are stored and not run, until the test calls ``run_until_idle``, ``perform``, ``replay`` or ``travel``. Then a
    worker claims, runs, retries and settles them like any worker. The clock stands still between these calls.

    Args:
        subject: The application, whose lifespan is run, or a ``JobRunner``, or a function that makes one of them.
        store: The SQLite file of its runner, such as the one that the application's engine uses in this test. An
            existing file is used as it is. Default: a temporary file.
        strict: True to fail a test that ends with running, stuck or dead jobs that it has not read. Default: False.

    Raises:
        AlreadyRunning: Another tester is open in this process, or the application is.
        NotRunning: The application's lifespan opens no runner.
        ConfigurationError: The subject is no application and no runner.
    """

    def __init__(
        self,
        subject: object,
        *,
        store: str | PathLike[str] | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__(TestedRunners(None if store is None else Path(store)), strict=strict)
        self.app, self._opener = opener_of(subject)
        """The application or runner under test."""
        self._stack = AsyncExitStack()
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.enter_context(self._runners.installed())
            await self._open()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        __tracebackhide__ = True
        async with self._stack:
            await self._close()
            if error is None:
                self._check_end()

    async def _open(self) -> None:
        async with AsyncExitStack() as opened:
            await opened.enter_async_context(self._opener())
            _ = self._runners.runners  # raises if the lifespan has opened none
            self._opened = opened.pop_all()

    async def _close(self) -> None:
        await self._opened.aclose()

    async def opened_while(self, points: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Iterate ``crash_points``, with the application opened before it and closed after it."""
        await self._open()
        try:
            async with aclosing(points):
                async for point in points:
                    yield point
        finally:
            await self._close()

    # -- crashes --------------------------------------------------------------------------

    @overload
    def crash_points(
        self, task: Task[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncGenerator[CrashPoint, None]: ...
    @overload
    def crash_points(
        self, task: Task[[], Any], /, *, setup: Setup = ..., timeout: float = ...
    ) -> AsyncGenerator[CrashPoint, None]: ...
    @overload
    def crash_points(
        self,
        task: Task[Concatenate[A, ...], Any],
        a: A,
        /,
        *,
        setup: Setup = ...,
        timeout: float = ...,
    ) -> AsyncGenerator[CrashPoint, None]: ...
    @overload
    def crash_points(
        self,
        task: Task[Concatenate[A, B, ...], Any],
        a: A,
        b: B,
        /,
        *,
        setup: Setup = ...,
        timeout: float = ...,
    ) -> AsyncGenerator[CrashPoint, None]: ...
    async def crash_points(
        self, task: Task[..., Any], /, *args: Any, **kwargs: Any
    ) -> AsyncGenerator[CrashPoint, None]:
        """Run a job repeatedly, and kill its worker at each commit in turn.

        ::

            async for crash in t.crash_points(charge, 7, setup=create_order):
                assert await count(Charge) == 1, crash

        The commits are the claim, each enqueue, the end of the attempt, and those that the task makes on the store's
        file. At the crash point the attempt gets no further line, and its open transaction is rolled back. A second
        worker recovers the job and runs it to its end, before each yield.

        For each crash point the application is closed and opened again, on the file as it was at this call.

        Args:
            task: The task, with options or without.
            *args: The arguments of the call.
            **kwargs: Further arguments by name. Beside them ``setup``, a function or coroutine function that is called
                before each run, for example to empty a fake; and ``timeout``, the longest real time of each run in
                seconds (default: 30).

        Yields:
            The crash points, in order.

        Raises:
            AssertionError: There are more than 200 crash points.
            TimeoutError: A job still runs after ``timeout``.
        """
        ours, kwargs = split(task, ("setup", "timeout"), kwargs)
        commits = GuardedCommits(self._runners.path_of(self._runners.runner_of(task)))
        await self._close()
        images = self._runners.images()
        for number in range(1, MOST_POINTS + 2):
            for path, image in images.items():
                put_blank(path, image)
            with commits_seen(commits):
                await self._open()
                if "setup" in ours and inspect.isawaitable(made := ours["setup"]()):
                    await made
                await self.run_until_idle()
                crash = await killed_at(
                    self._runners,
                    number,
                    task,
                    task.call(*args, **kwargs),
                    commits,
                    ours.get("timeout", DEFAULT_TIMEOUT_S),
                )
            if crash is None:
                return
            if number > MOST_POINTS:
                raise AssertionError(
                    f"{task.name} has more than {MOST_POINTS} crash points; test a smaller part of it"
                )
            yield crash
            await self._close()
