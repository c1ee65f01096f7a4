"""Computes the coordinates of sparklines and bar charts, which the templates write as SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from jobrunner.fastapi.dashboard import words
from jobrunner.fastapi.dashboard.zone import Clock

WIDTH: Final = 100.0
SPARK_HEIGHT: Final = 24
CHART_HEIGHT: Final = 150
_HEADROOM: Final = 14
"""Space above the bars, for the names of marks."""
_SMALLEST_BAR: Final = 1.5
_STEPS: Final = (1, 2, 4, 5, 6, 8, 10)
_AXIS_LABELS: Final = 5


@dataclass(frozen=True, slots=True)
class Spark:
    """A small line or bar chart of values at equal distances."""

    label: str
    """The chart in words, for those who do not see it."""
    line: str
    """The points of the line as an SVG path; empty for bars."""
    bars: Sequence[tuple[float, float]]
    """Position and height of each bar with a value."""
    bar_width: float
    bad: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """One minute of the chart; positions and widths in percent, heights in pixels."""

    x: float
    good: float
    """The height of the part that succeeded."""
    bad: float
    text: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment on the chart's axis, with its name."""

    x: float
    text: str

    @property
    def is_right(self) -> bool:
        """True if the name stands left of the line, where there is more room."""
        return self.x > WIDTH / 2


@dataclass(frozen=True, slots=True)
class BarChart:
    """Bars of succeeded and failed attempts over time."""

    label: str
    bars: Sequence[Bar]
    width: float
    """The width of one bar, in percent."""
    scale: Sequence[str]
    """The labels of the vertical axis: top, middle, zero."""
    axis: Sequence[str]
    marks: Sequence[Mark]


def spark_line(values: Sequence[float], label: str, *, bad: bool = False) -> Spark:
    """Return a line through the values, from left to right."""
    top = max(*values, 0.0, 1e-9) if values else 1.0
    step = WIDTH / max(1, len(values) - 1)
    points = [
        f"{index * step:.1f} {SPARK_HEIGHT - 1 - value / top * (SPARK_HEIGHT - 3):.1f}"
        for index, value in enumerate(values)
    ]
    return Spark(label, "L".join(points), (), 0, bad)


def spark_bars(values: Sequence[float], label: str, *, bad: bool = False) -> Spark:
    """Return a bar for each value that is not zero; the smallest ones stay visible."""
    top = max(values, default=0) or 1
    width = WIDTH / max(1, len(values))
    bars = [
        (round(index * width, 2), round(max(value / top * (SPARK_HEIGHT - 1), _SMALLEST_BAR), 1))
        for index, value in enumerate(values)
        if value
    ]
    return Spark(label, "", bars, round(width * 0.76, 2), bad)


def bar_chart(
    minutes: Sequence[tuple[datetime, int, int]],
    marks: Sequence[tuple[datetime, str]],
    clock: Clock,
) -> BarChart:
    """Return a chart of minutes, each with its succeeded and failed attempts.

    Args:
        minutes: first instant, succeeded, failed; without gaps, oldest first.
        marks: moments with their names; those outside of the minutes are left out.
        clock: the zone of the labels.
    """
    top = round_top(max((good + bad for _, good, bad in minutes), default=0))
    width = WIDTH / max(1, len(minutes))
    scale = (CHART_HEIGHT - _HEADROOM) / top
    bars = [
        Bar(
            round(index * width + width * 0.1, 2),
            round(good * scale, 1),
            round(bad * scale, 1),
            f"{clock.time_of_day(start)} · {good:,} succeeded, {bad:,} failed",
        )
        for index, (start, good, bad) in enumerate(minutes)
    ]
    return BarChart(
        label=f"Attempts that ended in each of the last {len(minutes)} minutes",
        bars=bars,
        width=round(width * 0.8, 2),
        scale=(words.number(top), words.number(top // 2) if top > 1 else "", "0"),
        axis=_axis([start for start, _, _ in minutes], clock),
        marks=_placed(marks, minutes),
    )


def round_top(value: int) -> int:
    """Return the next number at or above the value whose first digit divides well."""
    magnitude = 1
    while magnitude * 10 < value:
        magnitude *= 10
    return next((step * magnitude for step in _STEPS if step * magnitude >= value), value)


def _axis(starts: Sequence[datetime], clock: Clock) -> list[str]:
    if not starts:
        return []
    last = len(starts) - 1
    chosen = [starts[index * last // (_AXIS_LABELS - 1)] for index in range(_AXIS_LABELS)]
    return [clock.time_of_day(start) for start in chosen]


def _placed(
    marks: Sequence[tuple[datetime, str]], minutes: Sequence[tuple[datetime, int, int]]
) -> list[Mark]:
    """Place the marks between the bars; of several in one minute the last one stands for all."""
    if len(minutes) < 2:  # noqa: PLR2004 - one bar has no length
        return []
    begin, length = minutes[0][0], minutes[1][0] - minutes[0][0]
    found = {}
    for at, text in sorted(marks):
        minute = (at - begin) // length
        if 0 <= minute < len(minutes):
            found[minute] = Mark(round((at - begin) / length / len(minutes) * WIDTH, 2), text)
    return list(found.values())
