"""Collects the progress that attempts report, until a round stores it."""

from collections import deque
from collections.abc import Sequence
from typing import Final

from jobrunner.core.model import Progressed
from jobrunner.core.progress import stored_progress
from jobrunner.tasks.context import JobContext
from jobrunner.worker.attempt import Attempt
from jobrunner.worker.chores import Period

WRITE_S: Final = 0.5
"""The least time between two rounds with progress; at most the polling interval, whose rounds it can then use."""


class ProgressReports:
    """The progress that no round has stored yet.

    Any thread may report: it sets the value in its attempt's context, and the first time after a round has taken the
    value it appends the context to a deque.  Both are atomic, so that a report costs no lock.
    """

    def __init__(self) -> None:
        self._period = Period(WRITE_S)
        self._reported: deque[JobContext] = deque()
        self._announce = self._reported.append
        self._rows: dict[tuple[int, int], Progressed] = {}
        """The rows for the next round, by ``seq`` and lease."""

    def begin(self, attempt: Attempt) -> None:
        """Accept the progress of an attempt."""
        attempt.context._announce = self._announce  # noqa: SLF001 - written here, called by the task

    def end(self, attempt: Attempt) -> None:
        """Let the next round store the last report of an attempt."""
        context = attempt.context
        context._announce = None  # noqa: SLF001 - as above
        if context._announced:  # noqa: SLF001 - as above
            self._keep(context)

    def take(self) -> Sequence[Progressed]:
        """Take what the next round stores: of running attempts at most each half second."""
        if self._reported and self._period.begin():
            # As many as there are now: other threads append meanwhile.
            for _ in range(len(self._reported)):
                context = self._reported.popleft()
                if context._announced:  # noqa: SLF001 - as above
                    self._keep(context)
        rows = list(self._rows.values())
        self._rows.clear()
        return rows

    def put_back(self, rows: Sequence[Progressed]) -> None:
        """Keep rows that were not stored for the next round, unless newer ones wait."""
        for row in rows:
            self._rows.setdefault((row.job.seq, row.job.lease), row)

    def _keep(self, context: JobContext) -> None:
        """Keep the last report of a context for the next round."""
        # Before the value is read: one that is set after this line appends the context again.
        context._announced = False  # noqa: SLF001 - as above
        job, value = context._claimed, context._progress  # noqa: SLF001 - as above
        if value is not None:
            self._rows[job.seq, job.lease] = Progressed(job, stored_progress(*value))
