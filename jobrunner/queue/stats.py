"""Offers the statistics of ended attempts: sums by minute or hour, by queue and by task."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, TypedDict, get_args

from jobrunner.core.clock import from_us, now_us
from jobrunner.core.errors import InvalidOptions
from jobrunner.core.exports import exported
from jobrunner.core.response_models import doc
from jobrunner.core.units import instant_us
from jobrunner.queue.filters import check_choice, check_text
from jobrunner.store.protocol import Store
from jobrunner.store.statistics import (
    HOUR_US,
    HOURS_KEPT_US,
    LENGTH_US,
    MINUTES_KEPT_US,
    By,
    Per,
    StatisticsRow,
    Total,
)
from jobrunner.tasks.task import Task

_KEPT_US: Final[dict[Per, int]] = {"minute": MINUTES_KEPT_US, "hour": HOURS_KEPT_US}
_KEPT: Final[dict[Per, str]] = {
    "minute": 'minutes are kept for 6 hours: write per="hour"',
    "hour": "hours are kept for 30 days: write a later since=",
}
_DEFAULT_US: Final[dict[Per, int]] = {"minute": HOUR_US, "hour": 24 * HOUR_US}


class StatsQuery(TypedDict, total=False):
    """The options of ``stats``."""

    per: Per
    """``"minute"``: minutes, which are kept for 6 hours. ``"hour"``: hours, kept for 30 days. Default: ``"minute"``."""
    by: By
    """``"time"``: a bucket for each minute or hour. ``"queue"``, ``"task"``: one for each. Default: ``"time"``."""
    since: datetime | None
    """The begin of the window, rounded down to a minute or hour. Default: an hour (of hours: a day) before its end."""
    until: datetime | None
    """The end of the window, rounded up to a minute or hour. Default: now."""
    queue: str | None
    """Count this queue only."""
    task: Task[..., Any] | str | None
    """Count this task only."""


@exported
@dataclass(frozen=True, slots=True)
class StatsBucket:
    """The attempts that ended in a minute, an hour or a longer time.

    The percentiles are those of the attempts that succeeded or failed, at most a tenth off; None if there are none.
    """

    start: datetime = field(metadata=doc("Its first instant."))
    queue: str | None = field(metadata=doc("Null if it is the sum of all queues.", "mail"))
    task: str | None = field(metadata=doc("Null if it is the sum of all tasks."))
    succeeded: int = field(metadata=doc("Attempts that succeeded.", 1200))
    failed: int = field(
        metadata=doc("Attempts that failed or timed out, whether or not they were retried.", 3)
    )
    dead: int = field(metadata=doc("Jobs that became dead letters.", 0))
    wait_p50: timedelta | None = field(
        metadata=doc("The median time from due to started, in seconds.", 0.004)
    )
    wait_p95: timedelta | None = field(
        metadata=doc(
            "Of 100 attempts, 95 started at most so many seconds after they were due.", 0.1
        )
    )
    run_p50: timedelta | None = field(
        metadata=doc("The median time from started to ended, in seconds.", 0.02)
    )
    run_p95: timedelta | None = field(
        metadata=doc("Of 100 attempts, 95 ended at most so many seconds after they started.", 0.3)
    )


@exported
@dataclass(frozen=True, slots=True)
class Stats:
    """The statistics of a window of time."""

    per: Per
    by: By
    since: datetime = field(metadata=doc("The begin of the window."))
    until: datetime = field(metadata=doc("The end of the window; in the future if it is not over."))
    total: StatsBucket = field(metadata=doc("The sum of the whole window."))
    buckets: tuple[StatsBucket, ...] = field(
        metadata=doc(
            "By time: one for each minute or hour, oldest first, also where nothing ended. By queue or task: one"
            " for each with something that ended, by name."
        )
    )


async def stats_of(
    store: Store,
    *,
    per: Per = "minute",
    by: By = "time",
    since: datetime | None = None,
    until: datetime | None = None,
    queue: str | None = None,
    task: Task[..., Any] | str | None = None,
) -> Stats:
    """Read the statistics of a window; see ``JobQueue.stats``."""
    name = task.name if isinstance(task, Task) else task
    check_text("queue", queue)
    check_text("task", name)
    check_choice("per", per, get_args(Per))
    check_choice("by", by, get_args(By))
    begin, end = _window(per, since, until)
    rows = await store.statistics.read(
        per=per, since=begin, until=end, by=by, queue=queue, task=name
    )
    key = queue or "", name or ""
    total = Total(rows).row(begin, *key)
    if by == "time":
        found = {row.start: row for row in rows}
        starts = range(begin, end, LENGTH_US[per])
        rows = [found.get(start) or Total().row(start, *key) for start in starts]
    return Stats(
        per=per,
        by=by,
        since=from_us(begin),
        until=from_us(end),
        total=_bucket(total),
        buckets=tuple(map(_bucket, rows)),
    )


def _window(per: Per, since: datetime | None, until: datetime | None) -> tuple[int, int]:
    """Return the window in whole minutes or hours.

    Raises:
        InvalidOptions: It is empty, or longer than these are kept.
    """
    length = LENGTH_US[per]
    end = now_us() if until is None else instant_us(until, "until")
    end += -end % length
    begin = end - _DEFAULT_US[per] if since is None else instant_us(since, "since")
    begin -= begin % length
    if begin >= end:
        raise InvalidOptions(
            f"since={since!r} is not before until={until!r}: write an earlier since="
        )
    if end - begin > _KEPT_US[per] + 2 * length:
        raise InvalidOptions(
            f"since={since!r} is {(end - begin) / HOUR_US:,.0f} hours before the end of the window, and"
            f" {_KEPT[per]}"
        )
    return begin, end


def _bucket(row: StatisticsRow) -> StatsBucket:
    wait_p50, wait_p95 = map(_duration, row.wait.percentiles(0.5, 0.95))
    run_p50, run_p95 = map(_duration, row.run.percentiles(0.5, 0.95))
    return StatsBucket(
        start=from_us(row.start),
        queue=row.queue or None,
        task=row.task or None,
        succeeded=row.succeeded,
        failed=row.failed,
        dead=row.dead,
        wait_p50=wait_p50,
        wait_p95=wait_p95,
        run_p50=run_p50,
        run_p95=run_p95,
    )


def _duration(us: int | None) -> timedelta | None:
    return None if us is None else timedelta(microseconds=us)
