"""Makes a job context for direct calls of a task in a unit test."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jobrunner.core.clock import now_us, to_us
from jobrunner.core.ids import new_id
from jobrunner.core.model import Claimed
from jobrunner.store.open import as_write
from jobrunner.tasks.context import JobContext
from jobrunner.testing.fake_steps import FakeSteps


class FakeContext(JobContext):
    """A job context that belongs to no job; see ``fake_context``."""

    __slots__ = ()

    def __init__(self, job: Claimed, max_attempts: int | None, signals: Mapping[str, Any]) -> None:
        super().__init__(job, max_attempts)
        self._make_steps = lambda: FakeSteps(signals)
        self._as_write = as_write

    def cancel(self) -> None:
        """Let ``job.cancelled`` be True, as in an attempt that should stop."""
        self._cancelled = True

    @property
    def writes(self) -> int:
        """The number of functions that the task has passed to ``job.write()``."""
        return len(self._writes)

    def run_writes(self, connection: Any) -> None:
        """Call the functions of ``job.write()`` in order, and forget them.

        Args:
            connection: A ``sqlite3.Connection``; the caller commits.
        """
        writes, self._writes = self._writes, []
        for write in writes:
            write.context.copy().run(write.function, connection, *write.args)


def fake_context(
    *,
    id: str | None = None,
    attempt: int = 1,
    max_attempts: int | None = None,
    task: str = "task",
    queue: str = "default",
    scheduled_for: datetime | None = None,
    signals: Mapping[str, Any] | None = None,
) -> FakeContext:
    """Return a job context for a direct call of a task.

    ``job.step`` calls its function, ``job.iterate`` goes through its source from the beginning, and ``job.sleep``
    returns at once. ``job.run`` needs a tester.

    ::

        job = fake_context(attempt=3)
        await book_order(job, 7)
        job.run_writes(connection)      # what the task passed to job.write()

    Args:
        id: The job's id. Default: a new one.
        attempt: The number of the run. Default: 1.
        max_attempts: The most runs. Default: None.
        task: The task's stored name. Default: ``"task"``.
        queue: The name of the job's queue. Default: ``"default"``.
        scheduled_for: The tick of a schedule, an aware datetime. Default: none.
        signals: What ``job.wait_for`` returns, by the name of the signal. A wait for another one times out if it has
            a time limit, and raises ``NotRunning`` if it has none.
    """
    now = now_us()
    claimed = Claimed(
        seq=0,
        lease=0,
        worker=0,
        id=new_id(now) if id is None else id,
        task=task,
        queue=queue,
        args="{}",
        attempt=attempt,
        started_at=now,
        first_started_at=now,
        created_at=now,
        run_at=now,
        priority=0,
        max_attempts=max_attempts,
        timeout=None,
        suspect=False,
        scheduled_for=None if scheduled_for is None else to_us(scheduled_for),
    )
    return FakeContext(claimed, max_attempts, signals or {})
