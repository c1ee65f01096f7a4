"""Offers ``SyncJobTester``, the blocking twin of ``JobTester`` for tests with ``TestClient``."""

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime
from os import PathLike
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, overload

from jobrunner.core.dead_letter import DeadLetter
from jobrunner.core.errors import AlreadyRunning
from jobrunner.core.job import Job
from jobrunner.queue.queue import enqueuer_of
from jobrunner.queue.sync import in_thread
from jobrunner.runner.runner import JobRunner
from jobrunner.tasks.task import Task
from jobrunner.testing.crash_points import CrashPoint
from jobrunner.testing.reading import TesterReads, runners_of
from jobrunner.testing.records import Run
from jobrunner.testing.runners import DEFAULT_TIMEOUT_S
from jobrunner.testing.running import Until
from jobrunner.testing.tester import JobTester, Setup
from jobrunner.testing.threads import each_in_thread

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


class SyncJobTester(TesterReads):
    """Takes over the runners that a ``TestClient`` opens, in a blocking test.

    ::

        with SyncJobTester(app) as t, TestClient(app) as client:
            client.post("/subscribers", json={"email": "a@x.de"})
            t.assert_enqueued(send_welcome, "a@x.de")
            t.run_until_idle()

    The tester comes first, and the client opens the application. A ``JobRunner`` is opened by the tester itself, on a
    loop in another thread. The methods are those of ``JobTester``, without ``await``.

    Args:
        subject: The application, or a ``JobRunner``, or a function that makes one of them.
        store: See ``JobTester``.
        strict: See ``JobTester``.

    Raises:
        AlreadyRunning: Another tester is open in this process.
        ConfigurationError: The subject is no application and no runner.
    """

    def __init__(
        self,
        subject: object,
        *,
        store: str | PathLike[str] | None = None,
        strict: bool = False,
    ) -> None:
        self._tester = JobTester(subject, store=store, strict=strict)
        self.app = self._tester.app
        """The application or runner under test."""
        super().__init__(runners_of(self._tester), strict=strict)
        self._stack = ExitStack()
        self._own: ExitStack | None = None
        """Closes the runner that the tester itself has opened."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._runners.installed())
            if isinstance(self.app, JobRunner):
                self._open_runner()
                stack.callback(self._close_runner)
            self._stack = stack.pop_all()
        return self

    def _open_runner(self) -> None:
        with ExitStack() as stack:
            stack.enter_context(in_thread(self.app.running()))
            self._own = stack.pop_all()

    def _close_runner(self) -> bool:
        """Close the runner, and return whether the tester had opened it."""
        own, self._own = self._own, None
        if own is not None:
            own.close()
        return own is not None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        __tracebackhide__ = True
        with self._stack:
            if error is None:
                self._check_end()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a method of the async tester on the runner's loop."""
        __tracebackhide__ = True
        try:
            (first, *_) = self._runners.runners
        except BaseException:
            work.close()
            raise
        loop = enqueuer_of(first.queue).parts.opened_on
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    def run_until_idle(self, *, timeout: float = DEFAULT_TIMEOUT_S) -> None:
        """See ``JobTester.run_until_idle``."""
        self._call(self._tester.run_until_idle(timeout=timeout))

    @overload
    def perform(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Run[R]: ...
    @overload
    def perform(
        self, task: Task[[], R], /, *, until: Until = ..., timeout: float = ...
    ) -> Run[R]: ...
    @overload
    def perform(
        self,
        task: Task[Concatenate[A, ...], R],
        a: A,
        /,
        *,
        until: Until = ...,
        timeout: float = ...,
    ) -> Run[R]: ...
    @overload
    def perform(
        self,
        task: Task[Concatenate[A, B, ...], R],
        a: A,
        b: B,
        /,
        *,
        until: Until = ...,
        timeout: float = ...,
    ) -> Run[R]: ...
    @overload
    def perform(
        self,
        task: Task[Concatenate[A, B, C, ...], R],
        a: A,
        b: B,
        c: C,
        /,
        *,
        until: Until = ...,
        timeout: float = ...,
    ) -> Run[R]: ...
    def perform(self, task: Task[..., Any], /, *args: Any, **kwargs: Any) -> Run[Any]:
        """See ``JobTester.perform``."""
        __tracebackhide__ = True
        return self._call(self._tester.perform(task, *args, **kwargs))

    @overload
    def finish(
        self, job: Run[R] | Job[R], *, until: Until | None = ..., timeout: float = ...
    ) -> Run[R]: ...
    @overload
    def finish(self, job: str, *, until: Until | None = ..., timeout: float = ...) -> Run[Any]: ...
    def finish(
        self,
        job: Run[Any] | Job[Any] | str,
        *,
        until: Until | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> Run[Any]:
        """See ``JobTester.finish``."""
        __tracebackhide__ = True
        return self._call(self._tester.finish(job, until=until, timeout=timeout))

    @overload
    def replay(
        self,
        dead: Run[R] | Job[R],
        *,
        args: Mapping[str, object] | None = ...,
        until: Until | None = ...,
        timeout: float = ...,
    ) -> Run[R]: ...
    @overload
    def replay(
        self,
        dead: DeadLetter | str,
        *,
        args: Mapping[str, object] | None = ...,
        until: Until | None = ...,
        timeout: float = ...,
    ) -> Run[Any]: ...
    def replay(
        self,
        dead: Run[Any] | Job[Any] | DeadLetter | str,
        *,
        args: Mapping[str, object] | None = None,
        until: Until | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> Run[Any]:
        """See ``JobTester.replay``."""
        __tracebackhide__ = True
        return self._call(self._tester.replay(dead, args=args, until=until, timeout=timeout))

    @overload
    def signal(
        self, job: Run[R] | Job[R], name: str, value: object = ..., *, timeout: float = ...
    ) -> Run[R]: ...
    @overload
    def signal(
        self, job: str, name: str, value: object = ..., *, timeout: float = ...
    ) -> Run[Any]: ...
    def signal(
        self,
        job: Run[Any] | Job[Any] | str,
        name: str,
        value: object = None,
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> Run[Any]:
        """See ``JobTester.signal``."""
        __tracebackhide__ = True
        return self._call(self._tester.signal(job, name, value, timeout=timeout))

    def travel(
        self,
        *,
        weeks: float = 0,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        """See ``JobTester.travel``."""
        self._call(
            self._tester.travel(
                weeks=weeks,
                days=days,
                hours=hours,
                minutes=minutes,
                seconds=seconds,
                timeout=timeout,
            )
        )

    def travel_to(
        self, moment: datetime | str, *, zone: str | None = None, timeout: float = DEFAULT_TIMEOUT_S
    ) -> None:
        """See ``JobTester.travel_to``."""
        self._call(self._tester.travel_to(moment, zone=zone, timeout=timeout))

    # -- crashes --------------------------------------------------------------------------

    @overload
    def crash_points(
        self, task: Task[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> Iterator[CrashPoint]: ...
    @overload
    def crash_points(
        self, task: Task[[], Any], /, *, setup: Setup = ..., timeout: float = ...
    ) -> Iterator[CrashPoint]: ...
    @overload
    def crash_points(
        self,
        task: Task[Concatenate[A, ...], Any],
        a: A,
        /,
        *,
        setup: Setup = ...,
        timeout: float = ...,
    ) -> Iterator[CrashPoint]: ...
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
    ) -> Iterator[CrashPoint]: ...
    def crash_points(
        self, task: Task[..., Any], /, *args: Any, **kwargs: Any
    ) -> Iterator[CrashPoint]:
        """Run a job repeatedly, and kill its worker at each commit; see ``JobTester.crash_points``.

        The tester opens the application itself, on a loop in another thread, where ``setup`` is called too. So no
        ``TestClient`` has it open.

        Raises:
            AlreadyRunning: A ``TestClient`` has the application open.
        """
        is_own = self._close_runner()
        try:
            if self._runners.is_open():
                raise AlreadyRunning(
                    "crash_points() closes and opens the application for each crash point, and a TestClient has it"
                    " open: write the test without `with TestClient(app)`, as `with SyncJobTester(app) as t:` alone"
                )
            points = self._tester.crash_points(task, *args, **kwargs)
            yield from each_in_thread(self._tester.opened_while(points))
        finally:
            if is_own:
                self._open_runner()
