"""The first page: whether all is well, what needs attention, and what happens now and next."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from starlette.responses import Response

from jobrunner.core.clock import MAX_US, from_us, to_us
from jobrunner.core.job import Health
from jobrunner.core.model import Filter
from jobrunner.fastapi.dashboard import urls, words
from jobrunner.fastapi.dashboard.dead_letters import Letter, letter_of
from jobrunner.fastapi.dashboard.pages import Pages
from jobrunner.fastapi.dashboard.queues import QueueView, read_queues
from jobrunner.fastapi.dashboard.visit import Visit
from jobrunner.queue.filters import MOST_ROWS
from jobrunner.queue.schedules import Schedule

RECENT: Final = timedelta(hours=1)
MOST_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that needs attention."""

    level: Literal["bad", "warn"]
    title: str
    text: str
    address: str
    button: str


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

    level: Literal["ok", "warn", "bad"]
    headline: str
    text: str
    troubles: Sequence[Trouble]
    queues: Sequence[QueueView]
    letters: Sequence[Letter]
    running: Sequence[Running]
    coming: Sequence[Schedule]


async def _troubles(visit: Visit, health: Health, queues: Sequence[QueueView]) -> list[Trouble]:
    found = []
    recent = Filter(since=to_us(visit.now - RECENT))
    died = await visit.parts.store.dead_letters.count(recent, cap=words.COUNT_CAP)
    if died:
        found.append(
            Trouble(
                "bad",
                f"{words.capped(died)} dead letter{'' if died == 1 else 's'} in the last hour",
                "They keep their arguments and their history, and can be replayed.",
                "dead",
                "Look and replay",
            )
        )
    for one in queues:
        if one.late:
            slots = f"{one.info.running} of {one.info.slots} slots busy"
            found.append(
                Trouble(
                    "warn",
                    f"Queue `{one.info.name}`: the oldest job has waited {one.oldest}",
                    f"{words.capped(one.info.queued)} queued, {slots}",
                    urls.with_query("jobs", {"state": "queued", "queue": one.info.name}),
                    "Show them",
                )
            )
        if one.info.paused:
            found.append(
                Trouble(
                    "warn",
                    f"Queue `{one.info.name}` is paused",
                    f"{words.capped(one.info.queued)} queued; none starts until it is resumed",
                    "queues",
                    "Queues",
                )
            )
    for task, due in health.unknown_tasks.items():
        found.append(
            Trouble(
                "warn",
                f"No live worker knows the task `{task}`",
                f"Its oldest job has waited {words.duration(visit.now - due)}",
                urls.with_query("jobs", {"state": "queued", "task": task}),
                "Show them",
            )
        )
    known = ("no worker knows ",)
    found += [
        Trouble(
            "warn", f"{text[:1].upper()}{text[1:]}", "Found by the health check", "queues", "Queues"
        )
        for text in health.problems
        if not text.startswith(known)
    ]
    return found


def _verdict(
    health: Health, troubles: Sequence[Trouble]
) -> tuple[Literal["ok", "warn", "bad"], str, str]:
    things = (
        f"{words.count_of(len(troubles), 'thing')} need{'s' if len(troubles) == 1 else ''} a look"
    )
    if health.status == "failed":
        return (
            "bad",
            "This worker has stopped",
            "It starts no more jobs. Its log says why; no job is lost.",
        )
    if health.status == "stopping":
        return "warn", "This process is stopping", "Running attempts get the grace of the settings."
    if any(one.level == "bad" for one in troubles):
        return "bad", things.capitalize(), "No job is lost."
    if troubles:
        return "warn", things.capitalize(), "Jobs are safe."
    return (
        "ok",
        "All is well",
        "No dead letter in the last hour, and no job waits longer than a minute.",
    )


async def _running(visit: Visit) -> list[Running]:
    page = await visit.parts.store.jobs.list(Filter(state="running"), before=None, limit=MOST_ROWS)
    rows = [row for row in page.rows if row.started_at is not None]
    found = []
    for row in sorted(rows, key=lambda row: row.started_at or 0)[:MOST_SHOWN]:
        spec = visit.parts.tasks.get(row.task)
        limit = row.timeout if row.timeout is not None else None if spec is None else spec.timeout
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
    troubles = await _troubles(visit, health, queues)
    level, headline, text = _verdict(health, troubles)
    letters = await visit.parts.store.dead_letters.list(Filter(), before=None, limit=MOST_SHOWN)
    return OverviewView(
        level=level,
        headline=headline,
        text=text,
        troubles=troubles,
        queues=queues,
        letters=[letter_of(row) for row in letters.rows],
        running=await _running(visit),
        coming=await _coming(visit),
    )


def add_overview(pages: Pages) -> None:
    """Add the first page."""

    @pages.show("/")
    async def overview(visit: Visit) -> Response:
        view = await read_overview(visit)
        return await visit.page(
            "overview.html",
            view,
            title=view.headline,
            section="overview",
            bad=view.level == "bad",
        )
