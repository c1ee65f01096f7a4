"""Specifies the statistics of a store: the attempts that ended, by minute and by hour."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, Protocol

from jobrunner.core.clock import SECOND_US
from jobrunner.core.histogram import Histogram
from jobrunner.store.measurements import Measurements

MINUTE_US: Final = 60 * SECOND_US
HOUR_US: Final = 60 * MINUTE_US
MINUTES_KEPT_US: Final = 6 * HOUR_US
HOURS_KEPT_US: Final = 30 * 24 * HOUR_US

Per = Literal["minute", "hour"]
"""The length of the time that a row of statistics covers."""
By = Literal["time", "queue", "task"]
"""The grouping of sums: one for each minute or hour, each queue or each task."""

LENGTH_US: Final[dict[Per, int]] = {"minute": MINUTE_US, "hour": HOUR_US}


class StatisticsRow(NamedTuple):
    """The attempts of a task that ended in one minute or hour."""

    start: int
    """The first microsecond of the minute or hour; in a sum of several, that of the first one that was asked for."""
    queue: str
    """Empty if the row is the sum of several queues."""
    task: str
    """Empty if the row is the sum of several tasks."""
    succeeded: int
    """Attempts that succeeded."""
    failed: int
    """Attempts that failed or timed out."""
    dead: int
    """Jobs that became dead letters."""
    wait: Histogram
    """The time from due to started of the attempts that succeeded, failed or timed out."""
    run: Histogram
    """The time from started to ended of the same attempts."""
    counts: Mapping[str, int] = {}
    """More to add to the counters of this queue and task, by name; the minutes and hours do not have it.

    With an empty queue and task these are counters of the workers, and the row has nothing else.
    """

    @property
    def key(self) -> tuple[int, str, str]:
        """The fields that identify a row."""
        return self[:3]


class Total:
    """Adds up rows in place."""

    __slots__ = ("counts", "dead", "failed", "run", "succeeded", "wait")

    def __init__(self, rows: Iterable[StatisticsRow] = ()) -> None:
        self.succeeded = self.failed = self.dead = 0
        self.wait = Histogram()
        self.run = Histogram()
        self.counts = Counter[str]()
        for row in rows:
            self.add(row)

    def add(self, row: StatisticsRow) -> None:
        """Add a row."""
        self.succeeded += row.succeeded
        self.failed += row.failed
        self.dead += row.dead
        self.wait.add(row.wait)
        self.run.add(row.run)
        self.counts.update(row.counts)

    def add_encoded(self, succeeded: int, failed: int, dead: int, wait: bytes, run: bytes) -> None:
        """Add a row whose histograms are encoded."""
        self.succeeded += succeeded
        self.failed += failed
        self.dead += dead
        self.wait.add_encoded(wait)
        self.run.add_encoded(run)

    def row(self, start: int, queue: str, task: str) -> StatisticsRow:
        """Return the sum under a key."""
        return StatisticsRow(
            *(start, queue, task, self.succeeded, self.failed, self.dead),
            *(self.wait, self.run, self.counts),
        )


class StatisticsStore(Protocol):
    """The statistics of a store.

    ``Round.statistics`` adds to them.  The store itself adds the dead letters that no attempt of a live worker made:
    those of ``recover`` and ``bury_waiting``.
    """

    async def read(
        self,
        *,
        per: Per,
        since: int,
        until: int,
        by: By,
        queue: str | None = None,
        task: str | None = None,
    ) -> Sequence[StatisticsRow]:
        """Return sums of the minutes or hours from ``since`` to ``until``.

        An hour has everything that was added to its minutes.

        Args:
            per: read minutes or hours.
            since: the start of the first minute or hour.
            until: the end of the last one.
            by: return a row for each minute or hour with something that ended, each queue or each task, in order.
            queue: add up this queue only; None for all queues.
            task: add up this task only; None for all tasks.
        """
        ...

    def measure(self) -> Measurements:
        """Return all counters and the present state, of one moment.

        Only a number of waiting jobs above 1,000 may be that of a few calls before, up to five minutes ago.

        It blocks the calling thread for some milliseconds, and may be any thread: monitoring systems call it where they
        like. The counters grow with each round that adds to them and never shrink; every process reads the same. One
        that would pass 64 bits begins at 0 again.

        Raises:
            StoreUnavailable: The store is not open.
        """
        ...

    async def roll_up(self, *, before: int) -> bool:
        """Add the oldest minute that is not part of its hour to it.

        Each minute is added once, however many processes call this. ``read`` returns the same before and after. What is
        added to the minute later is also added to its hour.

        Args:
            before: only a minute that begins before this time.

        Returns:
            True if a minute was added, so that there may be another one.
        """
        ...

    async def prune(self, *, minutes_before: int, hours_before: int, limit: int) -> int:
        """Delete one slice of the minutes and hours that begin before these times.

        A minute that was not rolled up stays.

        Returns:
            The number of deleted rows.
        """
        ...
