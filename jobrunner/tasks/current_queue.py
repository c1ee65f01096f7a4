"""Which open queue is meant where none is named, as in a bare ``await task.enqueue(...)``."""

from contextvars import ContextVar
from typing import Final, Protocol, TypeVar

from jobrunner.core.errors import AmbiguousRunner, NotRunning
from jobrunner.core.job import Job
from jobrunner.tasks.call import Call

R = TypeVar("R")


class Enqueuer(Protocol):
    """Something that stores calls: the queue of an open runner."""

    async def enqueue_call(self, call: Call[R]) -> Job[R]:
        """Store a call as a job; it is on disk when this returns."""
        ...


running: Final[ContextVar[Enqueuer | None]] = ContextVar("jobrunner.running", default=None)
"""The queue of the runner whose attempt, or whose application's request, runs in this context."""

opened: Final[list[Enqueuer]] = []
"""The queues of this process's open runners."""


def resolve(what: str) -> Enqueuer:
    """Return the queue that is meant here: the context's, else the only open one.

    Args:
        what: the line that the caller wrote, e.g. ``send_mail.enqueue(...)``, for the error.

    Raises:
        NotRunning: no runner is open.
        AmbiguousRunner: several are, and the context names none.
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
