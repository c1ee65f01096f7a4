"""Shows the last ten minutes beside the hour before, in four tiles."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from jobrunner.fastapi.dashboard import words
from jobrunner.fastapi.dashboard.charts import Spark, spark_line
from jobrunner.queue.stats import Stats, StatsBucket

_MINUTE = timedelta(minutes=1)
_SAME = 0.01
"""A change below this share is none."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure with its recent course."""

    name: str
    values: Sequence[tuple[str, str]]
    """The figures, each with what it is, such as ``p95``."""
    note: str
    spark: Spark
    bad: bool = False


def tiles_of(
    recent: Stats, before: Stats, series: Stats, now: datetime, *, bad: bool
) -> list[Tile]:
    """Return the four tiles of the overview.

    Args:
        recent: the last ten minutes.
        before: the hour before these.
        series: the last hour, by minute.
        now: the time of the page; the last minute of ``recent`` is not over.
        bad: something is failing: the failures are shown in red.
    """
    minutes = max((now - recent.since) / _MINUTE, 1.0)
    hour = (before.until - before.since) / _MINUTE
    new, old = recent.total, before.total
    failed = _failed_share(new)
    course = whole_minutes(series, now)
    return [
        Tile(
            "Done per minute",
            [(words.rate(new.succeeded / minutes), "")],
            _change(new.succeeded / minutes, old.succeeded / hour),
            _course(course, lambda one: one.succeeded, "Succeeded in each minute of the last hour"),
        ),
        Tile(
            "Failed attempts",
            [(_percent(failed), "")],
            f"{words.rate(new.failed / minutes)} a minute; {_percent(_failed_share(old))} the hour before",
            _course(
                course, lambda one: one.failed, "Failed in each minute of the last hour", bad=bad
            ),
            bad=bad and new.failed > 0,
        ),
        _durations(
            "Wait from due to start",
            (new.wait_p50, new.wait_p95),
            old.wait_p95,
            _course(
                course, lambda one: _seconds(one.wait_p95), "Wait in each minute, 95th percentile"
            ),
        ),
        _durations(
            "Run",
            (new.run_p50, new.run_p95),
            old.run_p95,
            _course(
                course, lambda one: _seconds(one.run_p95), "Run in each minute, 95th percentile"
            ),
        ),
    ]


def _durations(
    name: str,
    percentiles: tuple[timedelta | None, timedelta | None],
    before: timedelta | None,
    spark: Spark,
) -> Tile:
    half, most = percentiles
    note = (
        "nothing ended the hour before"
        if before is None
        else f"p95 {words.duration(before)} the hour before"
    )
    return Tile(name, [(words.duration(half), "p50"), (words.duration(most), "p95")], note, spark)


def whole_minutes(series: Stats, now: datetime) -> Sequence[StatsBucket]:
    """Return the minutes that are over; the present one would end each line in a fall."""
    return [one for one in series.buckets if one.start + _MINUTE <= now]


def _course(
    series: Sequence[StatsBucket],
    value: Callable[[StatsBucket], float],
    label: str,
    *,
    bad: bool = False,
) -> Spark:
    return spark_line([value(one) for one in series], label, bad=bad)


def _failed_share(bucket: StatsBucket) -> float:
    return bucket.failed / max(1, bucket.failed + bucket.succeeded)


def _seconds(value: timedelta | None) -> float:
    return 0.0 if value is None else value.total_seconds()


def _percent(share: float) -> str:
    if share == 0:
        return "0 %"
    return f"{share * 100:.2f} %" if share < 0.01 else f"{share * 100:.1f} %"  # noqa: PLR2004


def _change(new: float, old: float) -> str:
    if not old:
        return "none in the hour before" if new else "none in the hour before either"
    change = new / old - 1
    if abs(change) < _SAME:
        return "as in the hour before"
    if change > 1:
        return f"{new / old:.1f} times the hour before"
    return (
        f"{abs(change):.0%} ".replace("%", " %")
        + ("more" if change > 0 else "less")
        + " than the hour before"
    )
