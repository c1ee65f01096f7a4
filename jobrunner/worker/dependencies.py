"""Resolves an attempt's dependencies and cleans them up, in FastAPI's order.

Each attempt gets its own values.  ``yield`` dependencies are closed in reverse order, the function-scoped ones first.
The outcome of the attempt is decided before that, and a clean-up does not change it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from functools import partial
from typing import Any, Protocol

from jobrunner.core.errors import NotRunning
from jobrunner.core.model import BatchEnqueue
from jobrunner.core.steering import Steering
from jobrunner.tasks.call import Call
from jobrunner.tasks.context import JobContext
from jobrunner.tasks.dependencies import Dependency, belongs_to, label, overriding
from jobrunner.tasks.job_batch import BatchReader
from jobrunner.worker.around_attempt import Around

InThread = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a function in a thread of the worker and returns its result."""


class LeftBehind(BaseException):
    """The process stops waiting for an attempt's thread, and its dependencies stay open."""


class AttemptScope:
    """The objects that all attempts of one open runner share.

    Args:
        owner: The runner. A marked method of another runner is called and not replaced.
        app: The application whose ``dependency_overrides`` apply.
        hooks: The hooks around each attempt, the outermost first.
    """

    def __init__(
        self, owner: object = None, app: object = None, hooks: Sequence[Around] = ()
    ) -> None:
        self.owner = owner
        self.hooks = hooks
        self.supplies: dict[str, object] = {}
        """The values that replace marked dependencies, by the name in the mark."""
        self.makers: dict[str, Callable[[], object]] = {}
        """Functions that make such a value once per attempt, by the name in the mark."""
        self.batches: BatchReader | None = None
        """Reads the batch of a running job; None if no runner is open."""
        self.children: Callable[[Sequence[Call[Any]], str, str], BatchEnqueue] = _no_children
        """Makes the batch of ``job.run()``: from the calls, the name of the step and the id of the job."""
        self._app = app
        self._limits: dict[int, tuple[object, asyncio.Semaphore]] = {}

    @property
    def overrides(self) -> Mapping[Callable[..., Any], Callable[..., Any]]:
        """The application's current ``dependency_overrides``."""
        return getattr(self._app, "dependency_overrides", None) or {}

    def limit_of(self, dependency: Dependency, limit: int) -> asyncio.Semaphore:
        """Return the semaphore of a limited dependency, one per written ``Depends(...)``."""
        # Keeping the mark alive prevents that its id is reused for another mark.
        mark = dependency.mark
        return self._limits.setdefault(id(mark), (mark, asyncio.Semaphore(limit)))[1]


def _no_children(calls: Sequence[Call[Any]], name: str, parent: str) -> BatchEnqueue:
    raise NotRunning("no queue is open that could store the children")


class _Open(Protocol):
    """An open dependency or hook, to close once the attempt has ended."""

    name: str
    """The name in the log."""

    async def close(self, error: BaseException | None, in_thread: InThread) -> None: ...


class Resolved:
    """The dependencies of one attempt, and the hooks around it.

    Args:
        task: The task's name and source location, for the errors of overrides.
        needs: The dependencies of its parameters.
        around: The objects that all attempts share.
    """

    def __init__(self, task: str, needs: Sequence[Dependency], around: AttemptScope) -> None:
        self._task = task
        self._needs = needs
        self._around = around
        self.own: dict[str, Any] = {}
        """The values made for this attempt alone, by the name in the mark."""
        self._made: dict[Hashable, Any] = {}
        self._values: list[tuple[Callable[..., Any], Any]] = []
        self._of_function: list[_Open] = []
        self._of_request: list[_Open] = []
        self._hooks: list[_Open] = []

    async def enter(self, hooks: Sequence[Around], job: JobContext) -> None:
        """Enter the hooks, before any dependency is made.

        Raises:
            RuntimeError: A hook has failed; the message names it, and the cause is its error.
            Steering: A hook raised ``Retry``, ``Snooze`` or ``Bury``.
        """
        for hook in hooks:
            try:
                manager = hook.open(job)
                await manager.__aenter__()
            except Steering:
                raise
            except Exception as error:
                raise RuntimeError(
                    f"the around_attempt hook {hook.name} failed: {error!r}"
                ) from error
            self._hooks.append(_OnLoop(f"the around_attempt hook {hook.name}", manager))

    async def open(self, in_thread: InThread) -> dict[str, Any]:
        """Resolve the dependencies of the task, and return their values by parameter name.

        Raises:
            InvalidTask: An override cannot be resolved outside a request.
            BaseException: A dependency has raised it. The dependencies opened so far stay open until ``close``.
        """
        return await self._solve_all(self._needs, in_thread)

    async def add(self, need: Dependency, in_thread: InThread) -> Any:
        """Resolve one more dependency, or return its value if it has one; raises like ``open``."""
        return await self._solve(need, in_thread)

    def value_of(self, call: Callable[..., Any]) -> Any:
        """Return a dependency's value in this attempt, overridden or not; None if it has none.

        If it has several (``use_cache=False``, or two scopes), return the first.
        """
        return next((value for made, value in self._values if made == call), None)

    async def close(
        self,
        error: BaseException | None,
        in_thread: InThread,
        report: Callable[[str, BaseException], None],
    ) -> None:
        """Clean up the open dependencies.

        Args:
            error: The error that ended the attempt; None if it succeeded. It is raised inside each dependency, even if
                an earlier one swallowed it. If a dependency raises another error, the next ones get that.
            in_thread: Runs a function in a thread and waits for it even if cancelled, or raises LeftBehind.
            report: Called with the name and the error of each clean-up that has failed.
        """
        for opened in (
            *reversed(self._of_function),
            *reversed(self._of_request),
            *reversed(self._hooks),
        ):
            try:
                await opened.close(error, in_thread)
            except (LeftBehind, GeneratorExit):
                raise
            except BaseException as wrong:  # noqa: BLE001 - the others must still be cleaned up
                if wrong is not error:
                    report(opened.name, wrong)
                    error = wrong

    async def _solve_all(self, needs: Sequence[Dependency], in_thread: InThread) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for need in needs:
            values[need.name] = await self._solve(need, in_thread)
        return values

    async def _solve(self, need: Dependency, in_thread: InThread) -> Any:
        used = self._overridden(need)
        # As in FastAPI, before the cache is read: a part with use_cache=False is made again.
        given = await self._solve_all(used.needs, in_thread)
        if need.use_cache and need.key in self._made:
            return self._made[need.key]
        if used.supply is not None:
            value: Any = self._supplied(used.supply)
            if given:
                value = value(self._task, given["session"])
        else:
            given |= {name: default() for name, default in used.given.items()}
            value = await self._make(used, given, in_thread)
        self._made.setdefault(need.key, value)
        self._values.append((need.call, value))
        return value

    def _overridden(self, need: Dependency) -> Dependency:
        call = self._around.overrides.get(need.call, need.call)
        used = need if call is need.call else overriding(self._task, need, call)
        if used.supply is not None and not belongs_to(used.call, self._around.owner):
            return overriding(self._task, used, used.call)
        return used

    def _supplied(self, supply: str) -> object:
        if supply in self._around.makers:
            if supply not in self.own:
                self.own[supply] = self._around.makers[supply]()
            return self.own[supply]
        try:
            return self._around.supplies[supply]
        except KeyError:
            raise RuntimeError(f"{self._task}: nobody gives {supply!r} to this attempt") from None

    async def _make(self, used: Dependency, given: dict[str, Any], in_thread: InThread) -> Any:
        stack = self._of_function if used.scope == "function" else self._of_request
        yields = used.kind.endswith("generator")
        limit: asyncio.Semaphore | None = None
        if used.limit is not None:
            limit = self._around.limit_of(used, used.limit)
            await limit.acquire()
            if yields:
                stack.append(_Limit(used, limit))
        try:
            match used.kind:
                case "async generator":
                    return await _enter(used, given, stack)
                case "generator":
                    return await _enter_in_thread(used, given, stack, in_thread)
                case "coroutine":
                    return await used.call(**given)
                case _:
                    return await in_thread(partial(used.call, **given))
        finally:
            if limit is not None and not yields:
                limit.release()


async def _enter(used: Dependency, given: dict[str, Any], stack: list[_Open]) -> Any:
    manager = asynccontextmanager(used.call)(**given)
    value = await manager.__aenter__()
    stack.append(_OnLoop(_clean_up_of(used), manager))
    return value


async def _enter_in_thread(
    used: Dependency, given: dict[str, Any], stack: list[_Open], in_thread: InThread
) -> Any:
    opened = _InThread(used, contextmanager(used.call)(**given))
    # Before it is entered: a timeout ends the wait but not the thread, which may still reach the `yield`.
    stack.append(opened)
    return await in_thread(opened.enter)


def _clean_up_of(used: Dependency) -> str:
    return f"the clean-up of its dependency {label(used.call)}"


class _OnLoop:
    """An open ``async def`` dependency with a ``yield``, or a hook."""

    def __init__(self, name: str, manager: AbstractAsyncContextManager[Any]) -> None:
        self.name = name
        self._manager = manager

    async def close(self, error: BaseException | None, _: InThread) -> None:
        await self._manager.__aexit__(*_exc_info(error))


class _InThread:
    """An open ``def`` dependency with a ``yield``."""

    def __init__(self, dependency: Dependency, manager: AbstractContextManager[Any]) -> None:
        self.name = _clean_up_of(dependency)
        self._manager = manager
        self._entered = False

    def enter(self) -> Any:
        value = self._manager.__enter__()
        self._entered = True
        return value

    async def close(self, error: BaseException | None, in_thread: InThread) -> None:
        if self._entered:
            await in_thread(partial(self._manager.__exit__, *_exc_info(error)))


class _Limit:
    """A held place in the semaphore of a limited dependency."""

    def __init__(self, dependency: Dependency, limit: asyncio.Semaphore) -> None:
        self.name = _clean_up_of(dependency)
        self._limit = limit

    async def close(self, error: BaseException | None, _: InThread) -> None:
        self._limit.release()


def _exc_info(error: BaseException | None) -> tuple[Any, BaseException | None, Any]:
    return (None, None, None) if error is None else (type(error), error, error.__traceback__)
