"""Collects the background tasks of a request or an attempt.

They are stored when it succeeds, so they survive the end of the process.
"""

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
"""The most tasks of one request or attempt: as many as ``enqueue_chain`` takes.

``add_task`` refuses one more, because an error that came when the attempt is settled would be too late.
"""


class DurableBackgroundTasks:
    """Collects tasks to run after a request, or after an attempt of a task.

    ::

        @app.post("/register")
        async def register(user: UserCreate, background: Background) -> None:
            background.add_task(send_welcome_email, user.email)

    The tasks are stored together, in one transaction: after the route has succeeded and before its response is sent, or
    with the success of the attempt. If the route or the attempt fails, none of them is stored.

    They run in the order in which they were added, one after another. The next one starts when the previous one has
    succeeded or is a dead letter; until then its retries come first.
    """

    # Not a subclass of Starlette's class, which FastAPI would inject wherever `Depends` was forgotten.

    __slots__ = ("_jobs", "_over", "_prepare")

    def __init__(self, prepare: Callable[[Call[Any]], Enqueue]) -> None:
        """Start with no tasks.

        Args:
            prepare: Checks a call and returns it as a row to store.
        """
        self._prepare = prepare
        self._jobs: list[Enqueue] = []
        self._over = ""

    def add_task(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Add a call of the task, and check its arguments now.

        Args:
            task: The task, or ``task.options(...)``.
            *args: The positional arguments of the call.
            **kwargs: The keyword arguments of the call.

        Raises:
            InvalidArguments: The arguments do not fit the task.
            InvalidOptions: An option is invalid or names a session, or 10,000 tasks were added already.
            UnknownTask: The function is not a task, or not a task of this runner.
            UnknownQueue: The runner does not have the queue that the options name.
            JobRunnerError: The request is over, and its tasks were stored or dropped.
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
        """Return the added tasks as the rows of a chain, and refuse any others.

        Args:
            over: The reason why no task can be added now, for the error.
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
