"""The steps and waits of a job context that belongs to no job."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from jobrunner.core.errors import InvalidStep, NotRunning, WaitTimedOut
from jobrunner.core.units import Seconds


class FakeSteps:
    """Runs each step at once, and answers waits with the given signals.

    Sleeps end at once.
    """

    def __init__(self, signals: Mapping[str, Any]) -> None:
        self._signals = signals
        self._used: set[tuple[str, str]] = set()

    async def step(
        self,
        name: str,
        function: Callable[..., object],
        args: Sequence[object],
        kwargs: Mapping[str, object],
    ) -> Any:
        value = self.step_in_thread(name, function, args, kwargs)
        return await value if inspect.isawaitable(value) else value

    def step_in_thread(
        self,
        name: str,
        function: Callable[..., object],
        args: Sequence[object],
        kwargs: Mapping[str, object],
    ) -> Any:
        self._use("step", name)
        return function(*args, **kwargs)

    async def sleep(self, delay: Seconds, name: str) -> None:
        self._use("sleep", name)

    async def wait_for(self, name: str, model: Any, timeout: Seconds | None) -> Any:
        self._use("signal", name)
        if name in self._signals:
            return self._signals[name]
        if timeout is not None:
            raise WaitTimedOut(f"signal {name!r}: fake_context() was given none, so the wait ends")
        raise NotRunning(
            f"the job would wait for ever: write `fake_context(signals={{{name!r}: ...}})`"
        )

    async def run(self, name: str, calls: Any) -> Any:
        raise NotRunning(
            "fake_context() runs no children: test the task with `JobTester(jobs)`, which does"
        )

    async def iterate(
        self,
        name: str,
        source: Callable[[Any], AsyncIterator[tuple[Any, Any]]],
        every: int,
        seconds: Seconds,
    ) -> AsyncIterator[Any]:
        self._use("cursor", name)
        async for _, item in source(None):
            yield item

    def iterate_in_thread(
        self,
        name: str,
        source: Callable[[Any], Iterator[tuple[Any, Any]]],
        every: int,
        seconds: Seconds,
    ) -> Iterator[Any]:
        self._use("cursor", name)
        for _, item in source(None):
            yield item

    def wait(self, call: Callable[[], Awaitable[Any]]) -> Any:
        # What a thread waits for here ends without a turn of a loop.
        try:
            next(call().__await__())
        except StopIteration as ended:
            return ended.value
        raise NotRunning("fake_context() has no event loop for this; use `JobTester(jobs)`")

    def _use(self, kind: str, name: str) -> None:
        if (kind, name) in self._used:
            raise InvalidStep(f"{kind} {name!r} stands twice in a run; give each its own name")
        self._used.add((kind, name))
