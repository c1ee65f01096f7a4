"""Tasks: functions that can be stored as jobs."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar, Unpack

from jobrunner.core.exports import exported
from jobrunner.core.hints import answers_foreign_words
from jobrunner.core.job import Job
from jobrunner.tasks.call import NO_OPTIONS, Call, ResolvedJobOptions
from jobrunner.tasks.context import JobContext
from jobrunner.tasks.current_queue import resolve
from jobrunner.tasks.options import JobOptions
from jobrunner.tasks.spec import TaskSpec

P = ParamSpec("P")
R = TypeVar("R")


@exported
@answers_foreign_words("task")
class Task(Generic[P, R]):
    """A registered function with its defaults, as ``@jobs.task`` makes it.

    ``P`` is what a caller fills: the job context is not in it.  Called directly, a task is its function.
    """

    spec: TaskSpec
    _options: ResolvedJobOptions

    def __init__(self, spec: TaskSpec) -> None:
        # First, so that an attribute of the function never hides one of ours.
        wrapper: Any = self
        functools.update_wrapper(wrapper, spec.fn)
        self.spec = spec
        self._options = NO_OPTIONS

    @property
    def name(self) -> str:
        """The name that its jobs are stored under."""
        return self.spec.name

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """Return a call with these arguments, validated and written as JSON now; nothing is stored yet.

        Raises:
            InvalidArguments: they do not fit the function, or cannot be stored as they are.
        """
        return Call(self.spec, self.spec.args.encode(args, kwargs), self._options)

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Store a job that calls the function with these arguments; it is on disk when this returns.

        The queue is that of the running attempt, else of the request's application, else of the only open runner.

        Raises:
            InvalidArguments, InvalidOptions: nothing was stored.
            NotRunning, AmbiguousRunner: it is not clear where to.
            StoreError: see its children for what was stored.
        """
        call = self.call(*args, **kwargs)
        return await resolve(f"{self.__name__}.enqueue(...)").enqueue_call(call)

    def options(self, **options: Unpack[JobOptions]) -> Self:
        """Return the task with options for the jobs that are enqueued through it; the task itself stays as it is.

        Args:
            **options: see ``jobrunner.tasks.options.JobOptions``; other queues' words are answered with ours.

        Raises:
            InvalidOptions: a value that cannot be.
            TypeError: a word that is no option.
        """
        made = ResolvedJobOptions.make(f"{self.__name__}.options", **options)
        task = object.__new__(type(self))
        # Not through __init__: options are set per enqueue, and update_wrapper costs more than all the rest.
        task.__dict__.update(self.__dict__)
        task._options = self._options.merge(made)
        return task

    def __repr__(self) -> str:
        return f"<Task {self.spec.name}>"

    if TYPE_CHECKING:
        __name__: str
        __wrapped__: Callable[..., Any]
    else:

        def __get__(self, instance: object, owner: type | None = None) -> Self:
            # Never bound. It makes `inspect.isroutine` true, so that help(task) and documentation show the function's
            # signature and docstring, in place of this class. Type checkers need not know.
            return self


class AsyncTask(Task[P, R]):
    """A task of an ``async def``; it runs on the event loop."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here and now, as if it were no task."""
        if self.spec.injected:
            self.spec.check_injected(args, kwargs)
        result: R = await self.spec.fn(*args, **kwargs)
        return result


class SyncTask(Task[P, R]):
    """A task of a ``def``; it runs in a thread."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here and now, as if it were no task."""
        if self.spec.injected:
            self.spec.check_injected(args, kwargs)
        result: R = self.spec.fn(*args, **kwargs)
        return result


class CtxAsyncTask(Task[P, R]):
    """A task of an ``async def`` that is handed its job."""

    async def __call__(self, job: JobContext, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here and now, as if it were no task."""
        if self.spec.injected:
            self.spec.check_injected((job, *args), kwargs)
        result: R = await self.spec.fn(job, *args, **kwargs)
        return result


class CtxSyncTask(Task[P, R]):
    """A task of a ``def`` that is handed its job."""

    def __call__(self, job: JobContext, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here and now, as if it were no task."""
        if self.spec.injected:
            self.spec.check_injected((job, *args), kwargs)
        result: R = self.spec.fn(job, *args, **kwargs)
        return result


def task_of(spec: TaskSpec) -> Task[..., Any]:
    """Return the task of a function, of the kind that is called as the function is."""
    if spec.is_async:
        return CtxAsyncTask(spec) if spec.wants_context else AsyncTask(spec)
    return CtxSyncTask(spec) if spec.wants_context else SyncTask(spec)


def session_of(task: object) -> object:
    """Return the session that jobs which are enqueued through the task are stored through; None for none."""
    return task._options.session if isinstance(task, Task) else None  # noqa: SLF001 - its own module
