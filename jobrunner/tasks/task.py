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
    """A registered function with its defaults, as ``@jobs.task`` returns it.

    ``Task[P, R]``: ``P`` are the parameters of ``enqueue``, without the job context; ``R`` is the type of the result.
    A task can be called like its function, which then runs at once and without a job.

    ::

        await send_welcome_email.enqueue("ada@example.org")
        await send_welcome_email.options(delay=3600).enqueue("ada@example.org")
        await send_welcome_email("ada@example.org")     # a plain call
    """

    spec: TaskSpec
    _options: ResolvedJobOptions

    def __init__(self, spec: TaskSpec) -> None:
        # Before our attributes, so that an attribute of the function never replaces one of them.
        wrapper: Any = self
        functools.update_wrapper(wrapper, spec.fn)
        self.spec = spec
        self._options = NO_OPTIONS

    @property
    def name(self) -> str:
        """The stored name of the task."""
        return self.spec.name

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """Return a call with these arguments, for ``enqueue_many``, ``enqueue_chain`` or ``enqueue_batch``.

        The arguments are validated and written as JSON at once. Nothing is stored yet.

        In a batch, an argument may be the result of another call, or a list of such results: see ``Call.result``.

        Raises:
            InvalidArguments: The arguments do not fit the function, or cannot be stored unchanged.
            TypeError: The result of another call is only a part of an argument.
        """
        stored, handed = self.spec.args.encode_call(args, kwargs)
        return Call(self.spec, stored, self._options, handed)

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Store a job that calls the function with these arguments.

        The job is on disk when this returns. It is stored by the runner of the running attempt, else by that of the
        request's application, else by the only open runner.

        Returns:
            The stored job. If an unfinished job of the task has the same ``key``, that job, with ``created`` False.

        Raises:
            InvalidArguments: The arguments do not fit the function, or cannot be stored unchanged.
            InvalidOptions: The job would expire before it is due.
            NotRunning: No runner is open.
            AmbiguousRunner: Several runners are open, and the context names none.
            StoreError: The store could not complete the call; the subclass says whether the job was stored.
        """
        call = self.call(*args, **kwargs)
        return await resolve(f"{self.__name__}.enqueue(...)").enqueue_call(call)

    def options(self, **options: Unpack[JobOptions]) -> Self:
        """Return a copy of the task with options for the jobs enqueued through it.

        ::

            await queue.enqueue(remind.options(delay=timedelta(hours=24), key=f"remind-{user.id}"), user.email)

        Args:
            **options: See ``jobrunner.tasks.options.JobOptions``.

        Raises:
            InvalidOptions: An option has an invalid value.
            TypeError: A keyword is not an option of a job; the message says what to write.
        """
        made = ResolvedJobOptions.make(f"{self.__name__}.options", **options)
        task = object.__new__(type(self))
        # Without __init__: this runs once per enqueue, and update_wrapper costs more than everything else here.
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
            # A task is never bound. With __get__, `inspect.isroutine` is true, so help(task) and documentation show the
            # function's signature and docstring instead of this class. Hidden from type checkers.
            return self


class AsyncTask(Task[P, R]):
    """A task of an ``async def``, which runs on the event loop."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function directly, without a job."""
        if self.spec.injected:
            self.spec.check_injected(args, kwargs)
        result: R = await self.spec.fn(*args, **kwargs)
        return result


class SyncTask(Task[P, R]):
    """A task of a ``def``, which runs in a thread."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function directly, without a job."""
        if self.spec.injected:
            self.spec.check_injected(args, kwargs)
        result: R = self.spec.fn(*args, **kwargs)
        return result


class CtxAsyncTask(Task[P, R]):
    """A task of an ``async def`` whose first parameter is a ``JobContext``."""

    async def __call__(self, job: JobContext, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function directly, without a stored job."""
        if self.spec.injected:
            self.spec.check_injected((job, *args), kwargs)
        result: R = await self.spec.fn(job, *args, **kwargs)
        return result


class CtxSyncTask(Task[P, R]):
    """A task of a ``def`` whose first parameter is a ``JobContext``."""

    def __call__(self, job: JobContext, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function directly, without a stored job."""
        if self.spec.injected:
            self.spec.check_injected((job, *args), kwargs)
        result: R = self.spec.fn(job, *args, **kwargs)
        return result


def task_of(spec: TaskSpec) -> Task[..., Any]:
    """Return a task of the class that matches the signature of the function."""
    if spec.is_async:
        return CtxAsyncTask(spec) if spec.wants_context else AsyncTask(spec)
    return CtxSyncTask(spec) if spec.wants_context else SyncTask(spec)


def options_of(task: Task[..., Any]) -> ResolvedJobOptions:
    """Return the options of the jobs that are enqueued through a task."""
    return task._options  # noqa: SLF001 - its own module


def session_of(task: object) -> object:
    """Return the ``session`` option of a task; None if it has none."""
    return options_of(task).session if isinstance(task, Task) else None
