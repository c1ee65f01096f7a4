"""Background tasks that outlive their process: gathered while a request or an attempt runs, stored when it succeeds."""

from collections.abc import Callable, Sequence
from typing import Any, Final, ParamSpec, TypeVar

from jobrunner.core.errors import InvalidOptions, JobRunnerError, UnknownTask
from jobrunner.core.logs import log_of
from jobrunner.core.model import Enqueue, chained
from jobrunner.tasks.call import Call
from jobrunner.tasks.task import Task, session_of

logger = log_of("jobrunner")

P = ParamSpec("P")
R = TypeVar("R")

MAX_TASKS: Final = 10_000
"""As many as ``enqueue_chain`` takes; one more is refused where it is added, and not when a job is being settled."""


class DurableBackgroundTasks:
    """What a request, or an attempt of a task, wants done after it; tasks run in the order added, one after another.

    They are stored all together once the route has succeeded and before its response leaves, or with the success of the
    attempt; if it fails, none of them is. The next one starts when the one before has succeeded or is a dead letter,
    retries included.
    """

    # Not Starlette's class: FastAPI would inject that one wherever `Depends` was forgotten.

    __slots__ = ("_jobs", "_over", "_prepare")

    def __init__(self, prepare: Callable[[Call[Any]], Enqueue]) -> None:
        """``prepare`` checks a call and makes a row of it."""
        self._prepare = prepare
        self._jobs: list[Enqueue] = []
        self._over = ""

    def add_task(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Add a call of the task, or of ``task.options(...)``; its arguments are checked now.

        Raises:
            InvalidArguments: they do not fit the task.
            InvalidOptions: its options cannot be, or name a session.
            UnknownTask: it is not a task, or none of this runner.
            UnknownQueue: the runner does not have the queue of its options.
            JobRunnerError: too late: what was added has been stored already.
        """
        if not isinstance(task, Task):
            raise UnknownTask(_no_task(task))
        if self._over:
            raise JobRunnerError(
                f"add_task({task.__name__}, ...): {self._over}, so this task would never run; add it before, or"
                f" store it at once: `await {task.__name__}.enqueue(...)`"
            )
        if session_of(task) is not None:
            raise InvalidOptions(
                f"add_task({task.__name__}.options(session=...)): all tasks of a request are stored together, so leave"
                " out the session and write JobRunner(session=...), or Depends(job_background(get_session))"
            )
        if len(self._jobs) == MAX_TASKS:
            raise InvalidOptions(
                f"add_task() takes {MAX_TASKS:,} tasks of one request at most: they are one transaction"
            )
        self._jobs.append(self._prepare(task.call(*args, **kwargs)))

    def take(self, over: str) -> Sequence[Enqueue]:
        """Return what was added, as the rows of a chain; from now on nothing can be added.

        Args:
            over: why not, for the error.
        """
        self._over = over
        jobs, self._jobs = self._jobs, []
        return chained(jobs)

    def __del__(self) -> None:
        if getattr(self, "_jobs", None):
            logger.error(
                "%d background task(s) were added and are not stored (%s): what they were added to belongs to no"
                " request and no attempt. Depend on Background, or store them: `await task.enqueue(...)`",
                len(self._jobs),
                ", ".join(sorted({job.task for job in self._jobs})),
            )

    def __repr__(self) -> str:
        return f"<DurableBackgroundTasks of {len(self._jobs)}>"


def _no_task(given: object) -> str:
    if isinstance(given, Call):
        name = given.spec.name.rpartition(".")[2]
        return f"add_task({given!r}): write the task and its arguments apart, add_task({name}, ...)"
    name = getattr(given, "__name__", repr(given))
    return (
        f"add_task({name}, ...): {name} is not a task, and what is to outlive the process needs a name there: write"
        f" @jobs.task above `def {name}`"
    )
