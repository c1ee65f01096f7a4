"""Specifies what every store does with limits and lanes.

The rules of ``store/protocol.py`` hold for each method, and each sentence has a test in ``tests/conformance``.  What a
claim and an enqueue do with limits is written at ``Store.write``.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from jobrunner.core.limits import Limit, LimitName, LimitRow, Wait
from jobrunner.core.model import JobRow


class LaneCounts(NamedTuple):
    """The number of lanes with queued jobs, by the reason why they wait; each up to a cap."""

    open: int
    """A claim may start jobs of them."""
    full: int
    """As many jobs run as may, or the oldest job holds the others back."""
    empty: int
    """Their rate lets nothing start yet."""


class LimitStore(Protocol):
    """The limits of a store and its lanes."""

    async def declare(
        self, limits: Mapping[LimitName, Limit], *, revision: int
    ) -> Sequence[LimitName]:
        """Store the limits that the code declares; an empty one means that the code has none of this name.

        A limit that a newer revision has declared does not change. Limits that are not named stay.

        Returns:
            The names of the limits whose declared numbers have changed.
        """
        ...

    async def set(self, name: LimitName, limit: Limit, *, now: int) -> LimitRow:
        """Set numbers that count instead of the declared ones, until ``reset``; None keeps what was set before.

        They hold from the next claim on in every process: nothing that runs is stopped, and jobs that may start now are
        found at once.

        Returns:
            The limit as it is now.
        """
        ...

    async def reset(self, name: LimitName) -> bool:
        """Let the declared numbers count again; return False if none were set."""
        ...

    async def get(self, name: LimitName) -> LimitRow | None:
        """Return a limit by its name."""
        ...

    async def list(self, *, after: LimitName | None, limit: int) -> Sequence[LimitRow]:
        """Return limits with a name above ``after``, ordered by scope (lanes last) and name."""
        ...

    async def waits(self, jobs: Sequence[JobRow], *, now: int) -> Mapping[int, Wait]:
        """Return what holds the queued ones of these jobs back, by their ``seq``.

        A job that no limit holds back is missing. Of several reasons it is the first: the order of its lane, then a
        concurrency, then a rate; of a queue before a task before a lane.
        """
        ...

    async def lanes(self, *, cap: int) -> LaneCounts:
        """Count the lanes in each state, each up to ``cap``."""
        ...

    async def prune(self, *, before: int) -> int:
        """Delete the buckets that were full again before an instant; return their number.

        They are as good as none. If that instant lies back further than rounds wait for the lock, no token comes of it.
        """
        ...

    async def repair(self, *, now: int) -> int:
        """List lanes that the list lacks, and open those that wait for nothing; return the number.

        The list of lanes is derived from the jobs: if it was lost, no limit is broken, and after a repair no job is
        forgotten. If the clock was set back, a lane then waits for its rate no longer than from one start to the next.
        """
        ...
