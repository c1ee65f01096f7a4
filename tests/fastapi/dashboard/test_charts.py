"""The coordinates of sparklines and bar charts."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from jobrunner.fastapi.dashboard.charts import (
    CHART_HEIGHT,
    SPARK_HEIGHT,
    bar_chart,
    round_top,
    spark_bars,
    spark_line,
)
from jobrunner.fastapi.dashboard.zone import Clock

NOW = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CLOCK = Clock(NOW)


def minutes(*counts: tuple[int, int]) -> list[tuple[datetime, int, int]]:
    begin = NOW - len(counts) * MINUTE
    return [(begin + index * MINUTE, *one) for index, one in enumerate(counts)]


def test_line_goes_from_edge_to_edge_and_its_top_is_the_largest_value() -> None:
    assert spark_line([0, 5, 10], "x").line == "0.0 23.0L50.0 12.5L100.0 2.0"


@pytest.mark.parametrize("values", [[], [0], [0, 0, 0], [7]])
def test_line_of_few_or_empty_values_stays_inside(values: list[float]) -> None:
    points = [point for point in spark_line(values, "x").line.split("L") if point]

    assert len(points) == len(values)
    assert all(0 <= float(point.split()[1]) <= SPARK_HEIGHT for point in points)


def test_bars_leave_out_zeros_and_keep_the_smallest_visible() -> None:
    chart = spark_bars([0, 1, 1000], "x")

    assert [height for _, height in chart.bars] == [1.5, 23.0]
    assert spark_bars([0] * 24, "x").bars == []


@pytest.mark.parametrize(
    ("value", "top"),
    [
        (0, 1),
        (1, 1),
        (3, 4),
        (7, 8),
        (10, 10),
        (11, 20),
        (1871, 2000),
        (2101, 4000),
        (99999, 100000),
    ],
)
def test_top_of_the_axis_is_a_round_number(value: int, top: int) -> None:
    assert round_top(value) == top


def test_bars_stand_on_each_other_and_fill_the_height() -> None:
    chart = bar_chart(minutes((6, 2), (0, 0)), [], CLOCK)

    full, empty = chart.bars
    assert (full.good, full.bad) == (102.0, 34.0)
    assert full.good + full.bad == CHART_HEIGHT - 14
    assert (empty.good, empty.bad) == (0, 0)
    assert chart.scale == ("8", "4", "0")


def test_marks_stand_at_their_moment_and_others_are_left_out() -> None:
    hour = minutes(*[(1, 0)] * 60)
    at = hour[30][0]
    chart = bar_chart(
        hour, [(at, "old"), (at + MINUTE / 2, "rev 2"), (hour[0][0] - MINUTE, "never")], CLOCK
    )

    (mark,) = chart.marks
    assert (mark.x, mark.text, mark.is_right) == (50.83, "rev 2", True)


def test_axis_is_in_the_viewers_zone_also_where_the_clocks_change() -> None:
    berlin = Clock(NOW, "Europe/Berlin", ZoneInfo("Europe/Berlin"))
    hour = minutes(*[(1, 0)] * 61)

    assert bar_chart(hour, [], CLOCK).axis == ["00:29", "00:44", "00:59", "01:14", "01:29"]
    # At 01:00 UTC the clocks of Berlin go from 02:00 to 03:00.
    assert bar_chart(hour, [], berlin).axis == ["01:29", "01:44", "01:59", "03:14", "03:29"]


def test_chart_of_nothing_has_no_bars() -> None:
    chart = bar_chart([], [(NOW, "x")], CLOCK)

    assert (chart.bars, chart.axis, chart.marks) == ([], [], [])
