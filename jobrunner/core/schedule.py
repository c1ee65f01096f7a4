"""Defines schedules, their ticks and their changes as plain values, without I/O.

Times are microseconds since 1970 in UTC, durations microseconds, arguments and options JSON text.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from jobrunner.core.model import Enqueue, Enqueued

Misfire = Literal["latest", "all", "skip"]
Overlap = Literal["allow", "skip"]
ScheduleSource = Literal["code", "stored"]
TickOutcome = Literal["fired", "missed", "late", "overlap", "key"]
"""The result of a tick.

``fired`` made a job.  The others made none: a later tick was used instead (``missed``), its grace was over (``late``),
a job of the schedule was still unfinished (``overlap``), or an unfinished job had the schedule's key (``key``).
"""


class Timing(NamedTuple):
    """The timing of a schedule: exactly one of ``cron``, ``every`` and ``run_at``."""

    cron: str | None = None
    timezone: str | None = None
    every: int | None = None
    run_at: int | None = None
    start: int | None = None
    """The earliest time of a tick, and the first tick of an interval."""
    end: int | None = None
    """The latest time of a tick."""


class Definition(NamedTuple):
    """The task, timing and policies of a schedule, as declared or stored.

    A declared schedule equals a stored one if their definitions are equal.
    """

    task: str
    args: str
    timing: Timing
    options: str = "{}"
    """The options of its jobs that differ from the task's, as JSON."""
    misfire: Misfire = "latest"
    grace: int | None = None
    """The delay up to which a late tick still makes a job; None for no limit."""
    cap: int = 1
    """The most missed ticks that make a job each."""
    overlap: Overlap = "allow"
    jitter: int = 0


class ScheduleRow(NamedTuple):
    """A schedule as stored."""

    id: str
    source: ScheduleSource
    definition: Definition
    revision: int
    """The application's revision that declared it; 0 if it was made at run time."""
    edition: int
    """Grows by one with each change, but not with a tick."""
    paused: bool
    disabled: bool
    """True if the code declared it earlier and does not any longer."""
    created_at: int
    next: int | None
    """The next tick; None if no tick is left."""
    last: int | None = None
    """The last tick that was processed, with or without a job."""
    last_fired: int | None = None
    last_job: str | None = None
    fired: int = 0
    """The number of ticks that made a job."""
    skipped: int = 0
    """The number of ticks that made no job."""


class ScheduleChange(NamedTuple):
    """Replaces the schedule row ``seen`` by ``row``.

    ``seen`` is None for a new schedule, ``row`` is None to remove it.
    """

    seen: ScheduleRow | None
    row: ScheduleRow | None


class Tick(NamedTuple):
    """The decision about one tick, or about consecutive ticks without a job."""

    instant: int
    outcome: TickOutcome
    job: Enqueue | None = None
    until: int | None = None
    """The last of several consecutive ticks; None for a single tick."""
    number: int = 1
    """The number of ticks."""


class Fire(NamedTuple):
    """Advances a schedule to its next tick, with the jobs of due ticks."""

    seen: ScheduleRow
    next: int | None
    ticks: Sequence[Tick]
    """The decided ticks, oldest first."""


class Fired(NamedTuple):
    """The answer to a ``Fire``."""

    advanced: bool
    """False if the schedule had changed since it was read: then nothing was written."""
    jobs: Sequence[Enqueued] = ()
    skipped: Mapping[TickOutcome, int] = {}


class TickRow(NamedTuple):
    """One tick, or several consecutive ones without a job, as stored."""

    instant: int
    until: int
    number: int
    outcome: TickOutcome
    job: str | None
    at: int
    """The time at which it was processed."""
