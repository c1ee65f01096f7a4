"""Defines limits as plain values: how many jobs run at a time, how often they start, and how many wait."""

from typing import Final, Literal, NamedTuple

from jobrunner.core.clock import from_us

LimitScope = Literal["queue", "task", "lanes", "lane"]
"""The jobs that a limit counts: of a queue, of a task, of each lane of a task, or of one lane."""

MAX_LIMIT: Final = 1_000_000
"""The largest concurrency, rate and burst."""
MAX_WAITING: Final = 100_000
"""The largest ``max_waiting``: each call that stores jobs counts the waiting ones, which takes 5 ms for as many."""


class RateLimit(NamedTuple):
    """A rate: so many starts in ``per`` microseconds, evenly spaced after a burst."""

    starts: int
    per: int
    burst: int = 1
    """The starts that an unused limit allows at once."""


class Limit(NamedTuple):
    """The numbers of one limit; None for no limit."""

    concurrency: int | None = None
    rate: RateLimit | None = None
    max_waiting: int | None = None
    """The most jobs that are due and wait in a queue."""

    def overridden(self, by: "Limit") -> "Limit":
        """Return this limit with the numbers that another one sets."""
        return Limit(
            self.concurrency if by.concurrency is None else by.concurrency,
            self.rate if by.rate is None else by.rate,
            self.max_waiting if by.max_waiting is None else by.max_waiting,
        )


NO_LIMIT: Final = Limit()


class LimitName(NamedTuple):
    """Names a limit."""

    scope: LimitScope
    name: str
    """The queue, the task (for ``task`` and ``lanes``), or the lane."""


class LimitRow(NamedTuple):
    """A limit as stored."""

    name: LimitName
    declared: Limit
    """The numbers in the code."""
    revision: int | None
    """The application's revision that declared it; None if no code does."""
    set: Limit
    """The numbers that were set at run time."""
    set_at: int | None
    """The time at which they were set; None if none are."""

    @property
    def limit(self) -> Limit:
        """The numbers in force."""
        return self.declared.overridden(self.set)


class Wait(NamedTuple):
    """Says what a queued job waits for, if that is a limit."""

    reason: Literal["limit", "rate", "order"]
    name: str
    """The lane; or the scope and the name of a queue or task; or the id of the job that must end first."""
    running: int = 0
    limit: int = 0
    next_at: int = 0
    """The time of the next token."""

    @property
    def text(self) -> str:
        """The wait in words; times in UTC."""
        match self.reason:
            case "limit":
                return f"limit {self.name} {self.running}/{self.limit}"
            case "rate":
                return f"rate {self.name}, next {from_us(self.next_at):%Y-%m-%d %H:%M:%SZ}"
            case "order":
                return f"order: behind {self.name}"


def task_of_lane(lane: str) -> str:
    """Return the task of a lane; no name of a task contains a bracket."""
    return lane.partition("[")[0]
