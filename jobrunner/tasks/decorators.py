"""What ``router.task(...)``, ``router.cron(...)`` and ``router.every(...)`` return, typed so that nothing is lost."""

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from jobrunner.tasks.context import JobContext
from jobrunner.tasks.task import AsyncTask, CtxAsyncTask, CtxSyncTask, SyncTask, Task

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound=Task[..., Any])


class TaskDecorator:
    """What ``router.task(...)`` returns: makes a task of the function below it."""

    def __init__(self, decorate: Callable[[Callable[..., Any]], Task[..., Any]]) -> None:
        self._decorate = decorate

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: Callable[Concatenate[JobContext, P], Coroutine[Any, Any, R]], /
    ) -> CtxAsyncTask[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, fn: Callable[Concatenate[JobContext, P], R], /) -> CtxSyncTask[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> SyncTask[P, R]: ...
    def __call__(self, fn: Callable[..., Any], /) -> Task[..., Any]:
        """Make a task of the function."""
        return self._decorate(fn)


class ScheduleDecorator:
    """What ``router.cron(...)`` and ``router.every(...)`` return: schedules the task, or the function, below it."""

    def __init__(self, decorate: Callable[[Any], Task[..., Any]]) -> None:
        self._decorate = decorate

    @overload
    def __call__(self, task: T, /) -> T: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: Callable[Concatenate[JobContext, P], Coroutine[Any, Any, R]], /
    ) -> CtxAsyncTask[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, fn: Callable[Concatenate[JobContext, P], R], /) -> CtxSyncTask[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> SyncTask[P, R]: ...
    def __call__(self, task: Task[..., Any] | Callable[..., Any], /) -> Task[..., Any]:
        """Schedule a task and return it; make one of a function first."""
        return self._decorate(task)
