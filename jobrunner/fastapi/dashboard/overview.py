"""The first page: whether all is well, what needs attention, and what happens now and next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from starlette.responses import Response

from jobrunner.core.clock import MAX_US, from_us, to_us
from jobrunner.core.groups import DeadLetterGroup
from jobrunner.core.model import Filter
from jobrunner.fastapi.dashboard import words
from jobrunner.fastapi.dashboard.audit import Change, last_changes
from jobrunner.fastapi.dashboard.charts import BarChart, bar_chart
from jobrunner.fastapi.dashboard.groups import GroupView, group_view
from jobrunner.fastapi.dashboard.pages import Pages
from jobrunner.fastapi.dashboard.queues import QueueView, read_queues, storage_of
from jobrunner.fastapi.dashboard.starts import read_starts, sentence_of
from jobrunner.fastapi.dashboard.tiles import Tile, tiles_of
from jobrunner.fastapi.dashboard.verdict import (
    BEFORE,
    LATEST,
    RECENT,
    Attempts,
    Facts,
    Failing,
    Start,
    Verdict,
    judge,
)
from jobrunner.fastapi.dashboard.visit import Visit
from jobrunner.queue.filters import MOST_ROWS
from jobrunner.queue.schedules import Schedule
from jobrunner.queue.stats import Stats

SERIES: Final = timedelta(hours=1)
DAY: Final = timedelta(hours=24)
MOST_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Running:
    """One running attempt."""

    id: str
    task: str
    queue: str
    attempt: int
    started_at: datetime
    late: bool
    limit: str


@dataclass(frozen=True, slots=True)
class OverviewView:
    """The first page."""

    verdict: Verdict
    started: str
    """The worker that had started shortly before the failures, in words."""
    tiles: Sequence[Tile]
    chart: BarChart
    has_stats: bool
    """True if an attempt has ended in the time of the chart."""
    groups: Sequence[GroupView]
    ungrouped: int
    queues: Sequence[QueueView]
    running: Sequence[Running]
    coming: Sequence[Schedule]
    changes: Sequence[Change]


@dataclass(frozen=True, slots=True)
class _Numbers:
    """The statistics of the page."""

    recent: Stats
    before: Stats
    latest: Stats
    series: Stats
    day: Stats

    @classmethod
    async def read(cls, visit: Visit) -> "_Numbers":
        now, stats = visit.now, visit.queue.stats
        begin = now - RECENT
        return cls(
            recent=await stats(by="task", since=begin, until=now),
            before=await stats(by="task", since=begin - BEFORE, until=begin),
            latest=await stats(by="task", since=now - LATEST, until=now),
            series=await stats(by="time", since=now - SERIES, until=now),
            day=await stats(per="hour", by="queue", since=now - DAY, until=now),
        )

    @property
    def usual_waits(self) -> Mapping[str, timedelta]:
        return {
            one.queue: one.wait_p95
            for one in self.day.buckets
            if one.queue is not None and one.wait_p95 is not None
        }


def _attempts(stats: Stats) -> Mapping[str, Attempts]:
    return {
        one.task: Attempts(one.succeeded, one.failed, one.dead)
        for one in stats.buckets
        if one.task is not None
    }


def _failing(group: DeadLetterGroup, now: datetime) -> Failing:
    return Failing(
        fingerprint=group.fingerprint,
        task=group.task,
        error=group_view(group).title,
        dead=group.count,
        retrying=group.retrying,
        recent=group.recent_deaths,
        before=group.deaths_before,
        since=group.since or now,
    )


def _marks(starts: Sequence[Start]) -> list[tuple[datetime, str]]:
    return [
        (one.at, f"rev {one.revision} started" if one.revision else "worker started")
        for one in starts
    ]


async def _running(visit: Visit) -> list[Running]:
    page = await visit.parts.store.jobs.list(Filter(state="running"), before=None, limit=MOST_ROWS)
    rows = [row for row in page.rows if row.started_at is not None]
    found = []
    for row in sorted(rows, key=lambda row: row.started_at or 0)[:MOST_SHOWN]:
        spec = visit.parts.tasks.get(row.task)
        limit = row.timeout
        if limit is None and spec is not None:
            limit = spec.options.timeout
        ran = to_us(visit.now) - (row.started_at or 0)
        found.append(
            Running(
                id=row.id,
                task=row.task,
                queue=row.queue,
                attempt=row.attempt,
                started_at=from_us(row.started_at or 0),
                late=bool(limit) and ran > 0.8 * (limit or 1),
                limit=f"of {words.duration(limit)}" if limit else "no time-out",
            )
        )
    return found


async def _coming(visit: Visit) -> list[Schedule]:
    tasks: set[str] = set(visit.parts.tasks)
    for worker in await visit.parts.store.workers.list():
        tasks.update(worker.tasks)
    due = await visit.parts.store.schedules.due(frozenset(tasks), now=MAX_US, limit=MOST_SHOWN)
    return [await visit.queue.schedules.get(row.id) for row in due]


async def read_overview(visit: Visit) -> OverviewView:
    """Read the first page."""
    health = await visit.queue.health()
    queues = await read_queues(visit)
    numbers = await _Numbers.read(visit)
    groups = await visit.queue.dead_letters.groups()
    storage = storage_of(getattr(visit.parts.store, "path", None), visit.now)
    starts = await read_starts(visit)
    verdict = judge(
        Facts(
            now=visit.now,
            health=health,
            queues=[one.info for one in queues],
            usual_waits=numbers.usual_waits,
            failing=[_failing(one, visit.now) for one in groups.items],
            recent=_attempts(numbers.recent),
            before=_attempts(numbers.before),
            latest=_attempts(numbers.latest),
            starts=starts,
            free_bytes=None if storage is None else storage.free,
        )
    )
    series = [(one.start, one.succeeded, one.failed) for one in numbers.series.buckets]
    return OverviewView(
        verdict=verdict,
        started=sentence_of(verdict.started, verdict.since),
        tiles=tiles_of(
            numbers.recent,
            numbers.before,
            numbers.series,
            visit.now,
            bad=verdict.since is not None,
        ),
        chart=bar_chart(series, _marks(starts), visit.clock),
        has_stats=any(good or bad for _, good, bad in series),
        groups=[group_view(one) for one in groups.items[:MOST_SHOWN]],
        ungrouped=groups.ungrouped,
        queues=queues,
        running=await _running(visit),
        coming=await _coming(visit),
        changes=await last_changes(visit, MOST_SHOWN),
    )


def add_overview(pages: Pages) -> None:
    """Add the first page."""

    @pages.show("/")
    async def overview(visit: Visit) -> Response:
        view = await read_overview(visit)
        return await visit.page(
            "overview.html",
            view,
            title=view.verdict.headline,
            section="overview",
            bad=view.verdict.level == "bad",
        )
