"""Tests the figures of the overview: rates, shares and changes, from given statistics."""

from datetime import UTC, datetime, timedelta

import pytest

from jobrunner.fastapi.dashboard.tiles import Tile, tiles_of
from jobrunner.queue.stats import Stats, StatsBucket

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def bucket(
    start: datetime,
    succeeded: int = 0,
    failed: int = 0,
    *,
    wait: float | None = None,
    run: float | None = None,
) -> StatsBucket:
    """Return what ended; the medians are half of the 95th percentiles."""
    wait_p95, run_p95 = (None if one is None else timedelta(seconds=one) for one in (wait, run))
    return StatsBucket(
        start=start,
        queue=None,
        task=None,
        succeeded=succeeded,
        failed=failed,
        dead=0,
        wait_p50=None if wait_p95 is None else wait_p95 / 2,
        wait_p95=wait_p95,
        run_p50=None if run_p95 is None else run_p95 / 2,
        run_p95=run_p95,
    )


def stats(total: StatsBucket, until: datetime, *buckets: StatsBucket) -> Stats:
    """Return statistics of the time from the total's start."""
    return Stats(
        per="minute", by="time", since=total.start, until=until, total=total, buckets=buckets
    )


def tiles(
    new: tuple[int, int], old: tuple[int, int], *, minutes: float = 10, bad: bool = False
) -> list[Tile]:
    """Return the tiles for what succeeded and failed in the last minutes, and in the hour before."""
    begin = NOW - minutes * MINUTE
    recent = stats(bucket(begin, *new), NOW)
    before = stats(bucket(begin - timedelta(hours=1), *old), begin)
    return tiles_of(recent, before, stats(bucket(NOW, 0, 0), NOW), NOW, bad=bad)


def test_names_and_units() -> None:
    found = tiles((0, 0), (0, 0))
    assert [one.name for one in found] == [
        "Done per minute",
        "Failed attempts",
        "Wait from due to start",
        "Run",
    ]
    assert [[unit for _, unit in one.values] for one in found] == [
        [""],
        [""],
        ["p50", "p95"],
        ["p50", "p95"],
    ]


@pytest.mark.parametrize(
    ("done", "shown"),
    [(0, "0"), (7, "0.7"), (10, "1"), (95, "9.5"), (1234, "123"), (98765, "9,876")],
)
def test_rate_is_per_minute_and_small_ones_have_a_decimal(done: int, shown: str) -> None:
    assert tiles((done, 0), (0, 0))[0].values == [(shown, "")]


def test_rate_of_a_shorter_time_is_not_diluted() -> None:
    assert tiles((40, 0), (0, 0), minutes=4)[0].values == [("10", "")]
    # In the first minute of all, the rate is that minute's.
    assert tiles((6, 0), (0, 0), minutes=0.1)[0].values == [("6", "")]


@pytest.mark.parametrize(
    ("new", "old", "note"),
    [
        (0, 0, "none in the hour before either"),
        (5, 0, "none in the hour before"),
        (100, 600, "as in the hour before"),
        (1000, 5960, "as in the hour before"),
        (150, 600, "50 % more than the hour before"),
        (25, 600, "75 % less than the hour before"),
        (0, 600, "100 % less than the hour before"),
        (200, 600, "100 % more than the hour before"),
        (420, 600, "4.2 times the hour before"),
    ],
)
def test_change_compares_rates_and_not_numbers(new: int, old: int, note: str) -> None:
    assert tiles((new, 0), (old, 0))[0].note == note


@pytest.mark.parametrize(
    ("succeeded", "failed", "share"),
    [
        (0, 0, "0 %"),
        (10, 0, "0 %"),
        (999, 1, "0.10 %"),
        (9999, 1, "0.01 %"),
        (99, 1, "1.0 %"),
        (2, 1, "33.3 %"),
        (0, 4, "100.0 %"),
    ],
)
def test_failures_are_a_share_of_the_attempts(succeeded: int, failed: int, share: str) -> None:
    tile = tiles((succeeded, failed), (0, 0))[1]
    assert tile.values == [(share, "")]
    assert tile.note.endswith("a minute; 0 % the hour before")


def test_failures_are_told_beside_those_of_the_hour_before() -> None:
    assert tiles((5, 5), (95, 5))[1].note == "0.5 a minute; 5.0 % the hour before"


def test_failures_are_red_only_while_something_is_failing() -> None:
    assert [one.bad for one in tiles((5, 5), (0, 0), bad=True)] == [False, True, False, False]
    assert not any(one.bad for one in tiles((5, 5), (0, 0)))
    assert not any(one.bad for one in tiles((5, 0), (0, 0), bad=True))


def test_waits_and_runs_are_beside_those_of_the_hour_before() -> None:
    begin = NOW - 10 * MINUTE
    recent = stats(bucket(begin, 1, 0, wait=4, run=0.5), NOW)
    before = stats(bucket(begin - timedelta(hours=1), 1, 0, wait=90), begin)
    _, _, wait, run = tiles_of(recent, before, stats(bucket(NOW), NOW), NOW, bad=False)
    assert wait.values == [("2.0 s", "p50"), ("4.0 s", "p95")]
    assert wait.note == "p95 1 min 30 s the hour before"
    assert [unit for _, unit in run.values] == ["p50", "p95"]
    assert run.note == "nothing ended the hour before"


def test_course_has_a_point_for_each_minute_and_its_highest_is_the_top() -> None:
    begin = NOW - 3 * MINUTE
    minutes = [bucket(begin + n * MINUTE, done, 0) for n, done in enumerate((0, 10, 5))]
    recent = stats(bucket(begin, 15, 0), NOW)
    series = stats(bucket(begin, 15, 0), NOW, *minutes)
    done, *_ = tiles_of(recent, recent, series, NOW, bad=False)
    heights = [float(point.split(" ")[1]) for point in done.spark.line.split("L")]
    assert len(heights) == 3
    assert heights[1] < heights[2] < heights[0]
    assert done.spark.label == "Succeeded in each minute of the last hour"
    # The minute that is not over is left out.
    earlier = NOW - timedelta(seconds=1)
    done, *_ = tiles_of(recent, recent, series, earlier, bad=False)
    assert done.spark.line.count("L") == 1
