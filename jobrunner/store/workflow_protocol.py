"""Specifies what every store does with batches, edges and memos.

The rules of ``store/protocol.py`` hold for each method, and each sentence has a test in ``tests/conformance``.  What a
round does with batches is written at ``Store.write``.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from jobrunner.core.model import JobRow
from jobrunner.core.workflows import (
    BatchGraph,
    BatchRow,
    BatchState,
    ParkedWait,
    ResultRow,
    StepRow,
)


class BatchPage(NamedTuple):
    """A page of batches, newest first; ``next`` and ``complete`` mean the same as in ``RowPage``."""

    rows: Sequence[BatchRow]
    next: int | None
    complete: bool = True


class ResultPage(NamedTuple):
    """A page of results; ``next`` is the cursor of the next page, None at the end."""

    rows: Sequence[ResultRow]
    next: int | None


class Contradiction(NamedTuple):
    """A rule about batches and edges that stored rows break, which is a bug."""

    rule: str
    """The fault, such as ``a job is blocked and waits for nothing``."""
    ids: Sequence[str]
    """Some of the jobs or batches."""


class WorkflowStore(Protocol):
    """The batches of a store, their edges and the memos of its jobs."""

    async def get(self, id: str) -> BatchRow | None:
        """Return a batch by its id."""
        ...

    async def of_job(self, id: str) -> BatchRow | None:
        """Return the batch of a member or of a callback.

        None for other jobs; also for a job that waits for a batch that it has made.
        """
        ...

    async def list(
        self, *, state: BatchState | None, name: str | None, before: int | None, limit: int
    ) -> BatchPage:
        """Return batches with this state and name, newest first; None matches any.

        The cursor is opaque. A page may end before it is ``complete``, as a page of jobs may.
        """
        ...

    async def cancel(self, id: str, *, now: int) -> BatchRow | None:
        """Request the cancel of a batch that has not ended.

        From then on it takes no members but those that its running members add. Those that run are asked to stop, and
        rounds that promote due jobs cancel the others in slices. Batches that its members wait for are cancelled with
        them. A batch that has ended does not change.

        Returns:
            The batch as it was before; None if no batch has this id.
        """
        ...

    async def graph(self, id: str, *, limit: int) -> BatchGraph | None:
        """Return the oldest members of a batch, its callbacks, and their edges.

        The members have neither arguments nor results. None if no batch has this id.
        """
        ...

    async def check(self, *, limit: int) -> Sequence[Contradiction]:
        """Return the rules that stored rows break, with at most ``limit`` ids each; reads all rows of workflows."""
        ...

    async def results(self, ids: Collection[str]) -> Mapping[str, ResultRow]:
        """Return the states and results of jobs and dead letters by id; one that no job has is missing."""
        ...

    async def member_results(
        self, id: str, *, tasks: Collection[str] | None, after: int, limit: int
    ) -> ResultPage:
        """Return the results of the members that succeeded, oldest first.

        A page ends at ``limit`` rows, or when its results hold about four million characters.

        Args:
            id: the batch; a batch that is not there has no results.
            tasks: only members of these tasks; None for all.
            after: the cursor of the previous page; 0 for the first one.
            limit: maximum number of rows.
        """
        ...

    async def steps(self, job: int) -> Sequence[StepRow]:
        """Return the memos of a job or dead letter, given by ``seq``, oldest first."""
        ...

    async def signal(self, id: str, name: str, value: str, *, now: int) -> bool:
        """Store a signal for a job, which is queued if it waits for it.

        A job that does not wait for it yet keeps it. The first signal of a name stays, and so does the time-out of the
        wait for it.

        Args:
            id: the id of the job.
            name: the name of the signal.
            value: JSON text.
            now: the current time.

        Returns:
            False if a signal of the name is there, or the wait for it has timed out; nothing changed then.

        Raises:
            JobNotFound: No job has this id.
            JobFinished: The job has ended or is a dead letter.
        """
        ...

    async def waits(self, jobs: Sequence[JobRow]) -> Mapping[int, ParkedWait]:
        """Return that for which parked jobs wait, by ``seq``; other jobs are left out."""
        ...
