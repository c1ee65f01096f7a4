"""The page of queues, workers and the storage."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from starlette.responses import Response

from jobrunner.core.job import QueueInfo, WorkerInfo
from jobrunner.fastapi.dashboard import words
from jobrunner.fastapi.dashboard.forms import Form
from jobrunner.fastapi.dashboard.pages import Pages
from jobrunner.fastapi.dashboard.visit import Visit

LONG_WAIT: Final = timedelta(minutes=1)
"""A due job that has waited longer deserves attention."""
LITTLE_ROOM: Final = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class QueueView:
    """One queue."""

    info: QueueInfo
    share: int
    """Busy slots in percent."""
    oldest: str
    late: bool
    can_change: bool
    """True if this process has the queue, so that it can pause it."""

    @property
    def look(self) -> str:
        """The class of its gauge."""
        return "full" if self.share >= 100 else ""  # noqa: PLR2004 - percent


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One process."""

    info: WorkerInfo
    slots: int
    queues: str
    tasks: int


@dataclass(frozen=True, slots=True)
class Storage:
    """The files of the store."""

    path: str
    file: int
    log: int
    free: int

    @property
    def is_tight(self) -> bool:
        """True if the disk is nearly full."""
        return self.free < LITTLE_ROOM


@dataclass(frozen=True, slots=True)
class QueuesView:
    """The page."""

    queues: Sequence[QueueView]
    workers: Sequence[WorkerView]
    storage: Storage | None
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
                share=min(round(100 * info.running / info.slots), 100) if info.slots else 0,
                oldest="–" if info.oldest_due_at is None else words.duration(waited),
                late=waited > LONG_WAIT and not info.paused,
                can_change=info.name in known,
            )
        )
    return found


async def _workers(visit: Visit) -> list[WorkerView]:
    health = await visit.queue.health()
    tasks = {row.worker: len(row.tasks) for row in await visit.parts.store.workers.list()}
    return [
        WorkerView(
            info=info,
            slots=sum(info.queues.values()),
            queues=", ".join(f"{name} {slots}" for name, slots in sorted(info.queues.items())),
            tasks=tasks.get(info.id, 0),
        )
        for info in health.workers
    ]


def storage_of(path: Path | None) -> Storage | None:
    """Return the sizes of the store's files; None if it has none, or they cannot be read."""
    if path is None:
        return None
    log = path.with_name(f"{path.name}-wal")
    try:
        return Storage(
            path=str(path),
            file=path.stat().st_size,
            log=log.stat().st_size if log.exists() else 0,
            free=shutil.disk_usage(path.parent).free,
        )
    except OSError:
        return None


def add_queues(pages: Pages) -> None:
    """Add the page of queues and its forms."""

    @pages.show("/queues")
    async def list_queues(visit: Visit) -> Response:
        queues = await read_queues(visit)
        view = QueuesView(
            queues=queues,
            workers=await _workers(visit),
            storage=storage_of(getattr(visit.parts.store, "path", None)),
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
