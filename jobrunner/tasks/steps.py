"""Declares the steps, waits and children of an attempt, and offers their blocking forms.

The worker implements them; ``JobContext`` has the awaited forms.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from jobrunner.core.exports import exported
from jobrunner.core.units import Seconds

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
M = TypeVar("M")
C = TypeVar("C")
T = TypeVar("T")


class Returning(Protocol[R_co]):
    """A call of a task that returns ``R``, as ``task.call(...)`` makes it."""

    @property
    def result(self) -> R_co:
        """The placeholder of the result."""
        ...


class Steps(Protocol):
    """The steps, waits and children of one attempt, as a worker implements them."""

    async def step(
        self,
        name: str,
        function: Callable[..., object],
        args: Sequence[object],
        kwargs: Mapping[str, object],
    ) -> Any:
        """See ``JobContext.step``."""
        ...

    async def sleep(self, delay: Seconds, name: str) -> None:
        """See ``JobContext.sleep``."""
        ...

    async def wait_for(self, name: str, model: Any, timeout: Seconds | None) -> Any:
        """See ``JobContext.wait_for``."""
        ...

    async def run(self, name: str, calls: Any) -> Any:
        """See ``JobContext.run``."""
        ...

    def iterate(
        self,
        name: str,
        source: Callable[[Any], AsyncIterator[tuple[Any, Any]]],
        every: int,
        seconds: Seconds,
    ) -> AsyncIterator[Any]:
        """See ``JobContext.iterate``."""
        ...

    def step_in_thread(
        self,
        name: str,
        function: Callable[..., object],
        args: Sequence[object],
        kwargs: Mapping[str, object],
    ) -> Any:
        """Run a step in the calling thread; see ``SyncSteps.step``."""
        ...

    def iterate_in_thread(
        self,
        name: str,
        source: Callable[[Any], Iterator[tuple[Any, Any]]],
        every: int,
        seconds: Seconds,
    ) -> Iterator[Any]:
        """Iterate in the calling thread; see ``SyncSteps.iterate``."""
        ...

    def wait(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Run an async method of these on the loop, and block until it ends."""
        ...


@exported
class SyncSteps:
    """Offers a job's steps, waits and children to a ``def`` task, as ``job.sync``.

    ::

        @jobs.task
        def order(job: JobContext, order_id: int) -> str:
            receipt = job.sync.step("charge", charge_card, order_id)
            job.sync.sleep(timedelta(days=3))
            return job.sync.step("book", book, order_id, receipt)
    """

    __slots__ = ("_steps",)

    def __init__(self, steps: Callable[[str], Steps]) -> None:
        self._steps = steps

    def step(self, name: str, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a part of the job and remember its result; see ``JobContext.step``.

        The function is a ``def``. It is called in the thread of the task.
        """
        value: R = self._steps("sync.step(...)").step_in_thread(name, function, args, kwargs)
        return value

    def sleep(self, delay: Seconds, *, name: str = "sleep") -> None:
        """Let the job go on after a time, without a slot; see ``JobContext.sleep``."""
        steps = self._steps("sync.sleep(...)")
        steps.wait(lambda: steps.sleep(delay, name))

    @overload
    def wait_for(self, name: str, *, timeout: Seconds | None = None) -> None: ...
    @overload
    def wait_for(self, name: str, model: type[M], *, timeout: Seconds | None = None) -> M: ...
    def wait_for(self, name: str, model: Any = None, *, timeout: Seconds | None = None) -> Any:
        """Wait for a signal, without a slot; see ``JobContext.wait_for``."""
        steps = self._steps("sync.wait_for(...)")
        return steps.wait(lambda: steps.wait_for(name, model, timeout))

    @overload
    def run(self, name: str, calls: Returning[R], /) -> R: ...
    @overload
    def run(self, name: str, calls: Sequence[Returning[R]], /) -> list[R]: ...
    def run(self, name: str, calls: Any, /) -> Any:
        """Run other tasks as children and return their results; see ``JobContext.run``."""
        steps = self._steps("sync.run(...)")
        return steps.wait(lambda: steps.run(name, calls))

    def iterate(
        self,
        name: str,
        source: Callable[[C | None], Iterator[tuple[C, T]]],
        *,
        every: int = 100,
        seconds: Seconds = 5,
    ) -> Iterator[T]:
        """Go through many items from where the last attempt ended; see ``JobContext.iterate``.

        The source is a ``def`` with a ``yield``. It is called in the thread of the task.
        """
        return self._steps("sync.iterate(...)").iterate_in_thread(name, source, every, seconds)
