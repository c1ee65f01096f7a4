"""The pages of schedules: the list, and one with its ticks."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from starlette.responses import Response

from jobrunner.core.clock import from_us
from jobrunner.core.errors import InvalidSchedule
from jobrunner.core.schedule import ScheduleRow, TickRow
from jobrunner.fastapi.dashboard import words
from jobrunner.fastapi.dashboard.forms import Form
from jobrunner.fastapi.dashboard.jobs import state_of
from jobrunner.fastapi.dashboard.pages import Pages
from jobrunner.fastapi.dashboard.visit import Visit
from jobrunner.queue.filters import read_cursor, write_cursor
from jobrunner.queue.schedules import Schedule
from jobrunner.tasks.recurrence import Recurrence
from jobrunner.tasks.ticks import recurrence_of

ROWS: Final = 50
SPARK: Final = 20
"""The ticks beside a schedule in the list."""
COMING: Final = 5
TICKS: Final = 50

_OUTCOMES: Final = {
    "fired": "made a job",
    "missed": "missed, a later tick was used",
    "late": "too late",
    "overlap": "skipped: a job was unfinished",
    "key": "skipped: a job had the key",
}
_MISFIRE: Final = {
    "latest": "one job for the last missed tick",
    "all": "a job for each missed tick",
    "skip": "no job for a tick that is too late",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One schedule in the list."""

    schedule: Schedule
    what: str
    """Its recurrence as it is written."""
    english: str
    state: str
    """The state of its last job; empty if there is none."""
    last: str
    ticks: Sequence[bool]
    """Its latest ticks, oldest first: True if a tick made a job."""

    @property
    def is_active(self) -> bool:
        """True if it makes jobs."""
        return not (self.schedule.paused or self.schedule.disabled)


@dataclass(frozen=True, slots=True)
class SchedulesView:
    """The list of schedules."""

    entries: Sequence[Entry]
    next: Schedule | None
    """The schedule on this page that ticks next."""
    cursor: str
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Tick:
    """One recorded tick, or several that made no job."""

    at: datetime
    until: datetime
    number: int
    outcome: str
    text: str
    job: str | None
    state: str


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """One schedule with its ticks."""

    entry: Entry
    coming: Sequence[datetime]
    ticks: Sequence[Tick]
    cursor: str
    next_cursor: str | None
    misfire: str
    source: str


async def _entry(visit: Visit, schedule: Schedule) -> Entry:
    store = visit.parts.store
    ticks = await store.schedules.ticks(schedule.id, limit=SPARK)
    state, last = "", "never yet"
    if schedule.last_job is not None:
        job = await store.jobs.get(schedule.last_job)
        state, last = ("", "deleted") if job is None else (state_of(job), state_of(job))
    return Entry(
        schedule=schedule,
        what=_written(schedule),
        english=_english(schedule),
        state=state,
        last=last,
        ticks=[tick.outcome == "fired" for tick in reversed(ticks)],
    )


def _written(schedule: Schedule) -> str:
    if schedule.cron is not None:
        zone = "" if schedule.timezone in {None, "UTC"} else f" {schedule.timezone}"
        return f"{schedule.cron}{zone}"
    if schedule.every is not None:
        return f"every {words.duration(schedule.every)}"
    return "once"


def _english(schedule: Schedule) -> str:
    text = schedule.description
    if schedule.timezone == "UTC":
        text = text.removesuffix(" (UTC)")
    return f"{text}; skips while one is unfinished" if schedule.overlap == "skip" else text


async def list_entries(visit: Visit, cursor: str | None) -> SchedulesView:
    """Read one page of schedules."""
    page = await visit.queue.schedules.list(limit=ROWS, cursor=cursor)
    upcoming = [one for one in page.items if one.next_at is not None]
    return SchedulesView(
        entries=[await _entry(visit, one) for one in page.items],
        next=min(upcoming, key=lambda one: one.next_at or visit.now, default=None),
        cursor=cursor or "",
        next_cursor=page.next_cursor,
    )


def _coming(row: ScheduleRow) -> list[datetime]:
    """Return the next ticks of a schedule."""
    if row.next is None or row.paused or row.disabled:
        return []
    try:
        recurrence: Recurrence = recurrence_of(row.definition.timing)
        found = [from_us(row.next)]
        while len(found) < COMING:
            following = recurrence.next_after(found[-1])
            end = row.definition.timing.end
            if following is None or (end is not None and following > from_us(end)):
                break
            found.append(following)
    except InvalidSchedule:
        # The calendar ends, or this process does not know the time zone.
        return [from_us(row.next)]
    return found


async def _tick(visit: Visit, row: TickRow) -> Tick:
    job = None if row.job is None else await visit.parts.store.jobs.get(row.job)
    return Tick(
        at=from_us(row.instant),
        until=from_us(row.until),
        number=row.number,
        outcome=row.outcome,
        text=_OUTCOMES[row.outcome],
        job=row.job,
        state="" if job is None else state_of(job),
    )


def add_schedules(pages: Pages) -> None:
    """Add the pages of schedules and their forms."""

    @pages.show("/schedules")
    async def list_schedules(visit: Visit) -> Response:
        view = await list_entries(visit, visit.asked("cursor") or None)
        return await visit.page("schedules.html", view, title="Schedules", section="schedules")

    @pages.show("/schedules/{id}")
    async def get_schedule(visit: Visit) -> Response:
        schedule = await visit.queue.schedules.get(visit.path("id"))
        row = await visit.parts.store.schedules.get(schedule.id)
        cursor = visit.asked("cursor")
        # One row more than the page shows if there is a next page.
        ticks = await visit.parts.store.schedules.ticks(
            schedule.id, before=read_cursor(cursor or None), limit=TICKS + 1
        )
        more = len(ticks) > TICKS
        view = ScheduleView(
            entry=await _entry(visit, schedule),
            coming=[] if row is None else _coming(row),
            ticks=[await _tick(visit, one) for one in ticks[:TICKS]],
            cursor=cursor,
            next_cursor=write_cursor(ticks[TICKS - 1].instant if more else None),
            misfire=_MISFIRE[schedule.misfire],
            source="declared in the code" if schedule.source == "code" else "stored at run time",
        )
        return await visit.page("schedule.html", view, title=schedule.id, section="schedules")

    _add_forms(pages)


def _add_forms(pages: Pages) -> None:
    def back(visit: Visit, form: Form, said: str) -> Response:
        where = "" if form.get("back") == "list" else f"/{visit.path('id')}"
        return visit.go(f"schedules{where}", said)

    @pages.do("/schedules/{id}/run")
    async def run_now(visit: Visit, form: Form) -> Response:
        id = visit.path("id")
        async with visit.act("schedules.run_now", target=id) as act:
            job = await visit.queue.schedules.run_now(id)
            act.count = 1 if job.created else 0
        return visit.go(f"jobs/{job.id}", "ran" if job.created else "ran-kept")

    @pages.do("/schedules/{id}/pause")
    async def pause(visit: Visit, form: Form) -> Response:
        id = visit.path("id")
        async with visit.act("schedules.pause", target=id):
            await visit.queue.schedules.pause(id)
        return back(visit, form, "schedule-paused")

    @pages.do("/schedules/{id}/resume")
    async def resume(visit: Visit, form: Form) -> Response:
        id = visit.path("id")
        async with visit.act("schedules.resume", target=id):
            await visit.queue.schedules.resume(id)
        return back(visit, form, "schedule-resumed")
