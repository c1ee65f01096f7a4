"""Defines batches, edges and memos, which connect jobs, as plain values without I/O.

A *batch* is the jobs that share ``batch``, its *members*.  It ends in the commit after which no member is unfinished;
its *callbacks* wait for that end and are no members.  An *edge* says for what a job waits: a blocked or parked job
starts once no edge of it is unmet.  A *memo* is a value that a job keeps over its attempts, such as that of a step; a
*signal* is a memo that somebody else writes.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from jobrunner.core.clock import from_us
from jobrunner.core.model import Enqueued, JobRow, MemoKind, Need

BatchState = Literal["running", "succeeded", "failed", "cancelled"]
EdgeState = Literal["void", "met", "open", "broken"]
"""``broken``: the job was cancelled, until what it needs is replayed.  ``void``: it was cancelled on request."""

MOST_MEMBERS: Final = 10_000
"""Members of one call."""
MOST_EDGES: Final = 20_000
"""Edges of one call."""
MOST_NEEDS: Final = 1_000
"""Edges of one job."""


class BatchEnqueued(NamedTuple):
    """The answer to a ``BatchEnqueue``, in its order."""

    members: Sequence[Enqueued]
    callbacks: Sequence[Enqueued]


class BatchRow(NamedTuple):
    """A batch as stored, with the numbers of its members."""

    seq: int
    id: str
    name: str | None
    state: BatchState
    created_at: int
    ended_at: int | None
    cancelled_at: int | None
    """The time of the request; the state follows once the last member has ended."""
    parent: str | None
    total: int
    succeeded: int
    dead: int
    """With those that were deleted since."""
    cancelled: int
    """Cancelled or expired."""
    running: int
    waiting: int
    """Scheduled, queued or blocked."""


class EdgeRow(NamedTuple):
    """An edge as stored."""

    job: str
    needs: str
    need: Need
    state: EdgeState


class BatchGraph(NamedTuple):
    """Members and callbacks of a batch, and the edges between them."""

    members: Sequence[JobRow]
    callbacks: Sequence[JobRow]
    edges: Sequence[EdgeRow]
    complete: bool = True
    """False if the batch has more members than were asked for."""


class ResultRow(NamedTuple):
    """The state and result of a job whose result another one takes."""

    id: str
    task: str
    state: str
    result: str | None
    """JSON text; None for a result of None."""
    result_omitted: str | None
    """The reason why the result is not stored; None if it is."""
    finished_at: int | None


class StepRow(NamedTuple):
    """A memo as stored."""

    kind: MemoKind
    name: str
    value: str | None
    """JSON text; None in a signal whose wait has timed out."""
    at: int


class ParkedWait(NamedTuple):
    """The signals or the batch for which a parked job waits."""

    needs: Sequence[str]
    """Ids of batches, and ``!`` with the names of signals; none if it sleeps."""
    until: int | None
    """The time at which it runs again at the latest; None if there is none."""

    @property
    def text(self) -> str:
        """The wait in a few words, with times in UTC."""
        until = "" if self.until is None else f" until {from_us(self.until):%Y-%m-%d %H:%M:%SZ}"
        named = ", ".join(
            f"signal {one[1:]}" if one.startswith("!") else f"batch {one}" for one in self.needs
        )
        return f"{named}{until}" if named else f"sleeps{until}"
