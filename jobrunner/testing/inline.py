"""Runs the jobs of a request before its response is sent.

They also run as soon as the request waits for one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any, Final

from jobrunner.core.errors import ConfigurationError
from jobrunner.core.model import Enqueue
from jobrunner.queue.sinks import CommitterSink, SessionSink
from jobrunner.testing.runners import DEFAULT_TIMEOUT_S, TestedRunners
from jobrunner.worker.attempt import Attempt
from jobrunner.worker.unawaited import caller
from jobrunner.worker.watches import Waiters

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_Asgi = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


@contextmanager
def inline(runners: TestedRunners) -> Iterator[None]:
    """Let the requests of the open applications run their due jobs inside the block.

    Raises:
        ConfigurationError: No runner is open on an application.
    """
    apps: list[Any] = [one.app for one in runners.runners if hasattr(one.app, "middleware_stack")]
    if not apps:
        raise ConfigurationError(
            "inline() runs the jobs of requests, and the tester has no application: write JobTester(app)"
        )
    jobs = _DueJobs(runners, [one.events.ends for one in runners.runners])
    with ExitStack() as stack:
        for sink in (CommitterSink, SessionSink):
            stack.enter_context(_noted_by(sink, jobs))
        for one in runners.runners:
            stack.enter_context(_run_by_a_wait(one.events.ends, jobs))
        for app in apps:
            stack.enter_context(_run_by_a_response(app, jobs))
        yield


@dataclass(eq=False)
class _Request:
    """One request of a block, or the test itself."""

    errors: list[BaseException] = field(default_factory=list)
    """The errors of its jobs' attempts that it has not raised yet."""

    def check(self) -> None:
        """Raise the first error, and forget all."""
        if self.errors:
            first = self.errors[0]
            self.errors.clear()
            raise first


_request: Final[ContextVar[_Request | None]] = ContextVar("jobrunner.testing.request", default=None)
"""The request to which the running code belongs."""


class _DueJobs:
    """Runs the due jobs for the requests of one block, one run after another.

    Requests may come at the same time. A run serves all that have asked before it began; a failure is raised in the
    request whose job has failed.
    """

    def __init__(self, runners: TestedRunners, ends: Sequence[Waiters]) -> None:
        self._runners = runners
        self._ends = ends
        self._context = copy_context()
        self._test = _Request()
        self._owners: dict[str, _Request] = {}
        """The request of each job by its id; that of the parent for a job that a task has enqueued."""
        self._asking: list[tuple[_Request, asyncio.Future[None]]] = []
        self._running: asyncio.Task[None] | None = None

    def note(self, jobs: Sequence[Enqueue]) -> None:
        """Note the request of jobs that the running code stores."""
        owner = self.owner()
        for job in jobs:
            self._owners[job.id] = owner

    def owner(self) -> _Request:
        """Return the request to which the running code belongs."""
        attempt = caller.get()
        if isinstance(attempt, Attempt):
            return self._owners.get(attempt.context.id, self._test)
        return _request.get() or self._test

    def start(self) -> None:
        """Run the due jobs beside the caller, which waits for one of them.

        Raises:
            BaseException: The first error of the request's attempts in the runs before.
        """
        if not isinstance(caller.get(), Attempt):  # its worker finds the jobs
            request = self.owner()
            request.check()
            self._ask(request)

    async def finish(self, request: _Request) -> None:
        """Run the due jobs, and raise the first error of the request's attempts."""
        asked = self._ask(request)
        if asked is not None:
            await asked
        request.check()

    def _ask(self, request: _Request) -> asyncio.Future[None] | None:
        """Ask for a run that begins after this call; None if the test itself is at work."""
        if self._running is None and self._runners.at_work:
            return None
        asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asking.append((request, asked))
        if self._running is None:
            # Attempts see the context of the test, as in run_until_idle(), and not that of a request.
            self._running = asyncio.create_task(self._run(), context=self._context.copy())
        return asked

    async def _run(self) -> None:
        try:
            while self._asking:
                served, self._asking = self._asking, []
                failed = await self._run_due([request for request, _ in served])
                for _, asked in served:
                    if not asked.done():  # its request was cancelled
                        asked.set_result(None)
                if failed:
                    for ends in self._ends:
                        ends.wake_all()  # those that wait for a failed job, which may not end
        finally:
            self._running = None

    async def _run_due(self, served: Sequence[_Request]) -> bool:
        """Run the due jobs, note each error at its request; return whether any failed."""
        errors: list[tuple[str, BaseException]] = []
        try:
            async with self._runners.driven() as drivers:
                work = self._runners.run_due(drivers)
                await self._runners.in_time(drivers, work, DEFAULT_TIMEOUT_S)
            errors = [failure for driver in drivers for failure in driver.errors]
        except Exception as stopped:  # noqa: BLE001 - raised in the requests
            for request in served:
                request.errors.append(stopped)
            return True
        for id, error in errors:
            # A job that was there before the block fails in the request that runs it.
            self._owners.get(id, served[0]).errors.append(error)
        return bool(errors)


@contextmanager
def _noted_by(sink: Any, jobs: _DueJobs) -> Iterator[None]:
    """Note the request of each job that a kind of sink stores."""
    inside = sink.store

    def store(self: Any, rows: Sequence[Enqueue], now: int) -> Awaitable[Any]:
        jobs.note(rows)
        stored: Awaitable[Any] = inside(self, rows, now)
        return stored

    sink.store = store
    try:
        yield
    finally:
        sink.store = inside


@contextmanager
def _run_by_a_wait(ends: Waiters, jobs: _DueJobs) -> Iterator[None]:
    """Run the due jobs when a caller waits for one."""
    inside = ends.wait_for

    def wait_for(id: str) -> asyncio.Future[None]:
        jobs.start()
        return inside(id)

    ends.wait_for = wait_for  # type: ignore[method-assign] # restored below
    try:
        yield
    finally:
        ends.wait_for = inside  # type: ignore[method-assign]


@contextmanager
def _run_by_a_response(app: Any, jobs: _DueJobs) -> Iterator[None]:
    """Run the due jobs before a response is sent."""
    inside: _Asgi = app.middleware_stack

    async def with_jobs(scope: _Scope, receive: _Receive, send: _Send) -> None:
        if isinstance(caller.get(), Attempt):
            # A task makes the request: its worker finds the jobs.
            token = _request.set(jobs.owner())
            send_after_jobs = send
        else:
            request = _Request()
            token = _request.set(request)

            async def send_after_jobs(message: MutableMapping[str, Any]) -> None:
                # FastAPI commits the session of a request before it sends the response.
                if message["type"] == "http.response.start":
                    await jobs.finish(request)
                await send(message)

        try:
            await inside(scope, receive, send_after_jobs)
        finally:
            _request.reset(token)

    app.middleware_stack = with_jobs
    try:
        yield
    finally:
        app.middleware_stack = inside
