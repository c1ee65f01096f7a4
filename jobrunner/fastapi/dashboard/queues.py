"""The page of queues, workers and the storage."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from starlette.responses import Response

from jobrunner.core.audit import AuditEntry
from jobrunner.core.health import QueueInfo, WorkerInfo
from jobrunner.fastapi.dashboard import words
from jobrunner.fastapi.dashboard.charts import Spark, spark_line
from jobrunner.fastapi.dashboard.forms import Form
from jobrunner.fastapi.dashboard.pages import Pages
from jobrunner.fastapi.dashboard.tiles import whole_minutes
from jobrunner.fastapi.dashboard.visit import Visit
from jobrunner.worker.settings import Settings

LONG_LAG: Final = timedelta(seconds=0.5)
"""A loop that is blocked for so long deserves attention."""
LONG_WAIT: Final = timedelta(minutes=1)
"""A due job that has waited longer deserves attention."""
RECENT: Final = timedelta(minutes=10)
SERIES: Final = timedelta(hours=1)
MOST_LINES: Final = 40
"""Each line costs a query; further queues have none."""
MOST_PAUSES: Final = 50
ACT_TAKES: Final = timedelta(minutes=1)
"""The longest time from the entry of an act in the audit log to the act; a store may be busy."""
LITTLE_ROOM: Final = 256 * 1024 * 1024


def _share(running: int, slots: int) -> int:
    """Return the busy slots in percent."""
    return min(round(100 * running / slots), 100) if slots else 0


def _look(share: int) -> str:
    return "full" if share >= 100 else ""  # noqa: PLR2004 - percent


@dataclass(frozen=True, slots=True)
class QueueView:
    """One queue."""

    info: QueueInfo
    share: int
    oldest: str
    late: bool
    can_change: bool
    """True if this process has the queue, so that it can pause it."""

    @property
    def look(self) -> str:
        """The class of its gauge."""
        return _look(self.share)


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One queue with its recent statistics."""

    view: QueueView
    paused_by: str
    """The actor that paused it, if the audit log has the act."""
    wait: str
    """Median and 95th percentile of the last ten minutes."""
    rate: str
    """Jobs done per minute, in the last ten minutes."""
    spark: Spark


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One process."""

    info: WorkerInfo
    slots: int
    share: int
    queues: str
    tasks: int
    lag: timedelta | None
    """The longest delay of its event loop between its last two beats."""

    @property
    def is_lagging(self) -> bool:
        """True if its loop was blocked for long, as by a blocking call."""
        return self.lag is not None and self.lag >= LONG_LAG

    @property
    def look(self) -> str:
        """The class of its gauge."""
        return _look(self.share)


@dataclass(frozen=True, slots=True)
class Storage:
    """The files of the store."""

    path: str
    file: int
    log: int
    checkpoint_at: datetime
    """Between two checkpoints, only the log is written."""
    free: int

    @property
    def is_tight(self) -> bool:
        """True if the disk is nearly full."""
        return self.free < LITTLE_ROOM


@dataclass(frozen=True, slots=True)
class QueuesView:
    """The page."""

    queues: Sequence[QueueRow]
    workers: Sequence[WorkerView]
    storage: Storage | None
    kept: str
    busy: int
    slots: int


async def read_queues(visit: Visit) -> list[QueueView]:
    """Read the queues of all workers."""
    known = visit.parts.names
    found = []
    for info in (await visit.queue.queues.list()).items:
        waited = timedelta(0) if info.oldest_due_at is None else visit.now - info.oldest_due_at
        found.append(
            QueueView(
                info=info,
                share=_share(info.running, info.slots),
                oldest="–" if info.oldest_due_at is None else words.duration(waited),
                late=waited > LONG_WAIT and not info.paused,
                can_change=info.name in known,
            )
        )
    return found


async def _rows(visit: Visit, queues: Sequence[QueueView]) -> list[QueueRow]:
    """Return the queues with their statistics and who has paused them."""
    stats, now = visit.queue.stats, visit.now
    recent = await stats(by="queue", since=now - RECENT, until=now)
    hour = await stats(by="queue", since=now - SERIES, until=now)
    of_queue = {one.queue: one for one in recent.buckets}
    minutes = max((now - recent.since) / timedelta(minutes=1), 1.0)
    active = [one.queue for one in hour.buckets]
    pauses = await _pauses(visit) if any(one.info.paused for one in queues) else []
    found = []
    for view in queues:
        name = view.info.name
        values = [] if name in active else [0, 0]
        if name in active[:MOST_LINES]:
            course = await stats(since=now - SERIES, until=now, queue=name)
            values = [one.succeeded for one in whole_minutes(course, now)]
        one = of_queue.get(name)
        found.append(
            QueueRow(
                view=view,
                paused_by=_paused_by(view.info, pauses),
                wait="–" if one is None else words.pair(one.wait_p50, one.wait_p95),
                rate="0" if one is None else words.rate(one.succeeded / minutes),
                spark=spark_line(values, f"{name}: succeeded in each minute of the last hour"),
            )
        )
    return found


async def _pauses(visit: Visit) -> Sequence[AuditEntry]:
    return (await visit.queue.audit.list(action="queues.pause", limit=MOST_PAUSES)).items


def _paused_by(info: QueueInfo, pauses: Sequence[AuditEntry]) -> str:
    """Return who paused a queue; empty if the audit log does not have it.

    An entry is stored just before its act. The application's own pauses have none.
    """
    if info.paused_at is None:
        return ""
    begin = info.paused_at - ACT_TAKES
    return next(
        (
            one.actor
            for one in pauses
            if one.target == info.name and begin <= one.at <= info.paused_at
        ),
        "",
    )


async def _workers(visit: Visit) -> list[WorkerView]:
    health = await visit.queue.health()
    tasks = {row.worker: len(row.tasks) for row in await visit.parts.store.workers.list()}
    lags = await visit.parts.store.workers.lags()
    return [
        WorkerView(
            info=info,
            slots=sum(info.queues.values()),
            share=_share(info.running, sum(info.queues.values())),
            queues=", ".join(f"{name} {slots}" for name, slots in sorted(info.queues.items())),
            tasks=tasks.get(info.id, 0),
            lag=timedelta(microseconds=lags[info.id]) if info.id in lags else None,
        )
        for info in health.workers
    ]


def storage_of(path: Path | None, now: datetime) -> Storage | None:
    """Return the sizes of the store's files; None if it has none, or they cannot be read."""
    if path is None:
        return None
    log = path.with_name(f"{path.name}-wal")
    try:
        file = path.stat()
        return Storage(
            path=str(path),
            file=file.st_size,
            # A checkpoint may end after the page has taken its time.
            checkpoint_at=min(datetime.fromtimestamp(file.st_mtime, UTC), now),
            log=log.stat().st_size if log.exists() else 0,
            free=shutil.disk_usage(path.parent).free,
        )
    except OSError:
        return None


def _kept(settings: Settings) -> str:
    """Return how long jobs are kept."""
    finished = words.duration(settings.retention_us)
    most = words.count_of(settings.keep_finished, "job")
    dead = words.duration(settings.dead_letter_retention_us)
    return f"finished jobs {finished}, at most {most}; dead letters {dead}"


def add_queues(pages: Pages) -> None:
    """Add the page of queues and its forms."""

    @pages.show("/queues")
    async def list_queues(visit: Visit) -> Response:
        queues = await read_queues(visit)
        view = QueuesView(
            queues=await _rows(visit, queues),
            workers=await _workers(visit),
            storage=storage_of(getattr(visit.parts.store, "path", None), visit.now),
            kept=_kept(visit.site.settings),
            busy=sum(one.info.running for one in queues),
            slots=sum(one.info.slots for one in queues),
        )
        return await visit.page("queues.html", view, title="Queues and workers", section="queues")

    @pages.do("/queues/{name}/pause")
    async def pause(visit: Visit, form: Form) -> Response:
        name = visit.path("name")
        async with visit.act("queues.pause", target=name):
            await visit.queue.queues.pause(name)
        return visit.go("queues", "paused")

    @pages.do("/queues/{name}/resume")
    async def resume(visit: Visit, form: Form) -> Response:
        name = visit.path("name")
        async with visit.act("queues.resume", target=name):
            await visit.queue.queues.resume(name)
        return visit.go("queues", "resumed")
