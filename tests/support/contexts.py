"""The context of an attempt that no runner has started."""

from jobrunner.core.model import Claimed
from jobrunner.tasks.context import JobContext


def context(attempt: int = 1, max_attempts: int | None = 5) -> JobContext:
    """Return a context of the job ``id-1``."""
    job = Claimed(
        1, 1, 1, "id-1", "t", "q", "{}", attempt, 0, 0, 0, 0, 0, None, None, suspect=False
    )
    return JobContext(job, max_attempts)
