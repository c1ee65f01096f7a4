"""Finds the open queue for a call that names none, such as ``await task.enqueue(...)``."""

from contextvars import ContextVar
from typing import Final, Protocol, TypeVar

from jobrunner.core.errors import AmbiguousRunner, NotRunning
from jobrunner.core.job import Job
from jobrunner.tasks.call import Call

R = TypeVar("R")


class Enqueuer(Protocol):
    """The queue of an open runner, which stores calls."""

    async def enqueue_call(self, call: Call[R]) -> Job[R]:
        """Store a call as a job; it is on disk when this returns."""
        ...


running: Final[ContextVar[Enqueuer | None]] = ContextVar("jobrunner.running", default=None)
"""The queue of the runner to which the attempt or the request of this context belongs."""

opened: Final[list[Enqueuer]] = []
"""The queues of this process's open runners."""


def resolve(what: str) -> Enqueuer:
    """Return the queue of the context, else the only open one.

    Args:
        what: The line that the caller wrote, such as ``send_mail.enqueue(...)``, for the error.

    Raises:
        NotRunning: No runner is open.
        AmbiguousRunner: Several runners are open, and the context names none.
    """
    here = running.get()
    if here is not None:
        return here
    if len(opened) == 1:
        return opened[0]
    if not opened:
        raise NotRunning(
            f"{what}: no runner is open here; write `app = FastAPI(lifespan=jobs.lifespan)`, in a test "
            "`with TestClient(app) as client:`, or around a script `async with jobs.running():`"
        )
    raise AmbiguousRunner(
        f"{what}: {len(opened)} runners are open, and nothing here says which one; "
        "name it: `await jobs.enqueue(task, ...)`"
    )
