"""Draws the life of a job as a bar: when it waited and when it ran."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from jobrunner.core.model import AttemptRow, JobRow

NARROWEST: Final = 0.6
"""The width of the shortest run, in percent: it must be seen."""
LABEL: Final = 13.0
"""The width that a label with a time needs, in percent."""
MOST_RUNS: Final = 60


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt in the bar, in percent of its width."""

    attempt: int
    x: float
    width: float
    look: str
    started_at: int
    named: bool
    """True if there is room for its number."""
    timed: bool
    """True if there is also room for its time."""


@dataclass(frozen=True, slots=True)
class Life:
    """The bar of one job."""

    runs: Sequence[Run]
    total: int
    """Microseconds from the first moment to the last one."""
    in_runs: int


def life_of(row: JobRow, attempts: Sequence[AttemptRow], now: int) -> Life | None:
    """Return the bar of a job; None if it has not run."""
    shown = attempts[-MOST_RUNS:]
    if not shown:
        return None
    # A job that waited for its time begins when it was due: the wait before is no part of the story.
    begin = min(shown[0].started_at, max(row.created_at, min(row.run_at, shown[0].started_at)))
    end = max(begin + 1, *(one.finished_at or now for one in shown))
    total = end - begin
    runs: list[Run] = []
    free = 0.0
    for index, one in enumerate(shown):
        x = min((one.started_at - begin) / total * 100, 100 - NARROWEST)
        width = max(((one.finished_at or now) - one.started_at) / total * 100, NARROWEST)
        following = shown[index + 1].started_at if index + 1 < len(shown) else end
        room = (following - begin) / total * 100 - x
        named = x >= free
        timed = named and room >= LABEL
        free = x + (LABEL if timed else 2.5) if named else free
        runs.append(
            Run(one.attempt, x, min(width, 100 - x), _look(one), one.started_at, named, timed)
        )
    in_runs = sum((one.finished_at or now) - one.started_at for one in shown)
    return Life(runs, total, in_runs)


def _look(one: AttemptRow) -> str:
    if one.outcome in {"failed", "timed_out", "lost"}:
        return "fail"
    return "calm" if one.outcome in {"snoozed", "released", "cancelled"} else "run"
