"""The page that lists jobs: tabs by state, filters, and what to do with the selected ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, cast, get_args

from starlette.responses import Response

from jobrunner.core.clock import from_us, to_us
from jobrunner.core.errors import JobNotFound, JobNotWaiting
from jobrunner.core.limits import Wait
from jobrunner.core.model import FINISHED, Filter, JobRow
from jobrunner.core.progress import Progress, progress_of
from jobrunner.core.workflows import ParkedWait
from jobrunner.fastapi.dashboard import urls, words
from jobrunner.fastapi.dashboard.forms import Form
from jobrunner.fastapi.dashboard.pages import Pages
from jobrunner.fastapi.dashboard.search import (
    WORDS,
    Found,
    known_queues,
    known_tasks,
    meant,
    search,
)
from jobrunner.fastapi.dashboard.visit import Visit
from jobrunner.queue.filters import JobFilter, checked_id, job_filter, read_cursor, write_cursor
from jobrunner.queue.results import waits_of
from jobrunner.store.job_protocol import RowPage

ROWS: Final = 50
COUNT_S: Final = 0.05
"""Counting the jobs that match ends after so many seconds."""
Tab = Literal[
    "", "queued", "running", "retrying", "scheduled", "blocked", "succeeded", "cancelled", "expired", "dead",
]  # fmt: skip
TABS: Final = cast(tuple[Tab, ...], get_args(Tab))

_EMPTY: Final[Mapping[str, str]] = {
    "": "Jobs appear here as soon as the application enqueues one.",
    "queued": "Nothing waits for a slot: every due job has started.",
    "running": "No attempt runs at this moment.",
    "retrying": "No job waits for another attempt.",
    "scheduled": "No job waits for its time.",
    "blocked": "No job waits for another one or for a signal.",
    "succeeded": "Jobs that have succeeded are kept for the retention of the runner.",
    "cancelled": "No job was cancelled.",
    "expired": "No job was too late to start.",
    "dead": "No job has given up.",
}


@dataclass(frozen=True, slots=True)
class TabView:
    """One state above the list."""

    state: Tab
    name: str
    count: str
    current: bool
    hot: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One job in a list."""

    id: str
    task: str
    notes: str
    state: str
    attempt: str
    label: str
    at: datetime | None
    """The time that ``label`` speaks of."""
    created_at: datetime
    error: str
    progress: Progress | None
    """Of the attempt that runs."""


@dataclass(frozen=True, slots=True)
class JobsView:
    """The list of jobs."""

    state: Tab
    filters: Mapping[str, str]
    tabs: Sequence[TabView]
    tasks: Sequence[str]
    queues: Sequence[str]
    rows: Sequence[Row]
    matches: str
    """The number of jobs that match the filters, such as ``10,000+``; empty if that is not known."""
    cursor: str
    next_cursor: str | None
    complete: bool
    empty: str
    unknown: str
    """A search that found nothing."""
    alike: Sequence[str]
    """Tasks whose names contain it."""

    @property
    def chips(self) -> dict[str, str]:
        """The filters that are set."""
        return {name: value for name, value in self.filters.items() if value}

    @property
    def parameters(self) -> dict[str, str]:
        """The query of this list, without its page."""
        return {"state": self.state, **self.filters}

    def without(self, name: str) -> dict[str, str]:
        """Return the query without a filter."""
        return {key: value for key, value in self.parameters.items() if key != name}

    @property
    def cancellable(self) -> bool:
        """True if jobs of this list can be cancelled."""
        return self.state not in FINISHED


def row_of(
    row: JobRow, limit: int | None, error: str = "", wait: Wait | ParkedWait | None = None
) -> Row:
    """Return a job for a list.

    Args:
        row: the stored job.
        limit: the most attempts that it gets, if that is known.
        error: the last error of a job that is tried again.
        wait: the limit that holds it back, or what it waits for.
    """
    progress = progress_of(row.progress) if row.state == "running" else None
    notes = [
        *([str(progress)] if progress is not None else []),
        *([wait.text] if wait is not None else []),
        *([f"tag {row.tag}"] if row.tag is not None else []),
        *([f"key {row.key}"] if row.key is not None else []),
        *(["in a chain"] if row.chain is not None else []),
        *(["in a batch"] if row.batch is not None else []),
        *([f"replayed {words.count_of(row.replays, 'time')}"] if row.replays else []),
        *([f"schedule {row.schedule}"] if row.schedule is not None else []),
    ]
    label, at = _time_of(row)
    return Row(
        id=row.id,
        task=row.task,
        notes=" · ".join(notes) or f"queue {row.queue}",
        state=state_of(row),
        attempt=f"{row.attempt} of {limit}"
        if limit is not None and row.attempt
        else str(row.attempt),
        label=label,
        at=None if at is None else from_us(at),
        created_at=from_us(row.created_at),
        error=error or (f"{row.error_type}: {row.error}" if row.error_type else ""),
        progress=progress,
    )


def state_of(row: JobRow) -> str:
    """Return the state of a job; ``retrying`` if it waits for another attempt."""
    return "retrying" if row.retrying else row.state


def _time_of(row: JobRow) -> tuple[str, int | None]:
    match row.state:
        case "scheduled" | "queued":
            return "due", row.run_at
        case "running":
            return "started", row.started_at
        case "blocked":
            return "waits for others", None
        case _:
            return "ended", row.finished_at


def limit_of(visit: Visit, row: JobRow) -> int | None:
    """Return the most attempts that a job gets; None if it is not known."""
    if row.max_attempts is not None:
        return row.max_attempts
    spec = visit.parts.tasks.get(row.task)
    return None if spec is None else spec.options.policy.max_attempts


def filter_of(visit: Visit, state: Tab, filters: Mapping[str, str]) -> Filter:
    """Return the filter of a list.

    Raises:
        InvalidOptions: A filter has an invalid value.
    """
    where = meant(filters, visit.now)
    if state and state != "dead":  # dead letters have a list of their own
        where |= {"state": state}
    return job_filter(cast("JobFilter", where))


async def find(visit: Visit, state: Tab, where: Filter, cursor: str | None) -> RowPage:
    """Read one page of jobs or dead letters.

    Raises:
        InvalidCursor: The cursor does not come from a page.
    """
    store = visit.parts.store
    lists = store.dead_letters if state == "dead" else store.jobs
    return await lists.list(where, before=read_cursor(cursor), limit=ROWS)


async def _matches(visit: Visit, state: Tab, where: Filter, page: RowPage, cursor: str) -> str:
    """Return how many jobs match a filter; empty if that would take too long to count."""
    if not page.complete:
        return ""
    if not cursor and page.next is None:
        return words.number(len(page.rows))
    store = visit.parts.store
    counts = store.dead_letters if state == "dead" else store.jobs
    found = await counts.count(where, cap=words.COUNT_CAP, seconds=COUNT_S)
    return words.number(found.number) + ("" if found.complete else "+")


async def _rows(visit: Visit, page: RowPage) -> list[Row]:
    found = []
    waits = await waits_of(visit.parts.store, page.rows, to_us(visit.now))
    for row in page.rows:
        error = ""
        if row.retrying:
            attempts = await visit.parts.store.jobs.attempts(row.seq)
            last = next((one for one in reversed(attempts) if one.error_type), None)
            error = f"{last.error_type}: {last.error}" if last is not None else ""
        found.append(row_of(row, limit_of(visit, row), error, waits.get(row.seq)))
    return found


async def _tabs(visit: Visit, current: Tab, *, filtered: bool) -> list[TabView]:
    store = visit.parts.store
    counts: dict[str, int] = {}
    if not filtered:
        counts |= await store.jobs.counts(cap=words.COUNT_CAP)
        dead = await store.dead_letters.count(Filter(), cap=words.COUNT_CAP)
        counts["dead"] = dead.number
    return [
        TabView(
            state=state,
            name=state.capitalize() or "All",
            count=words.capped(counts[state]) if state in counts else "",
            current=state == current,
            hot=state == "dead" and counts.get(state, 0) > 0,
        )
        for state in TABS
    ]


async def read_jobs(visit: Visit, found: Found | None = None) -> JobsView:
    """Read the list that the address asks for.

    Args:
        visit: the request.
        found: what a search for a word has found, if it was no filter.
    """
    asked = visit.asked("state")
    state: Tab = next((tab for tab in TABS if tab == asked), "")
    filters = {name: visit.asked(name) for name in WORDS}
    cursor = visit.asked("cursor")
    page, matches = RowPage([], None), ""
    if found is None:
        where = filter_of(visit, state, filters)
        page = await find(visit, state, where, cursor or None)
        if any(filters.values()):
            matches = await _matches(visit, state, where, page, cursor)
    return JobsView(
        state=state,
        filters=filters,
        tabs=await _tabs(visit, state, filtered=any(filters.values())),
        tasks=await known_tasks(visit),
        queues=await known_queues(visit),
        rows=await _rows(visit, page),
        matches=matches,
        cursor=cursor,
        next_cursor=write_cursor(page.next),
        complete=page.complete,
        empty=_EMPTY[state],
        unknown="" if found is None else found.unknown,
        alike=() if found is None else found.alike,
    )


@dataclass(frozen=True, slots=True)
class CancelView:
    """The question before jobs are cancelled."""

    rows: Sequence[Row]
    action: str
    back: str


def add_jobs(pages: Pages) -> None:
    """Add the list of jobs and the forms that change the selected ones."""

    @pages.show("/jobs")
    async def list_jobs(visit: Visit) -> Response:
        found: Found | None = None
        if visit.asked("q"):
            found = await search(visit)
            if found.address is not None:
                return visit.go(found.address)
        elif "" in visit.request.query_params.values():
            # The form sends empty fields too; the address is the filter, for people to keep and to pass on.
            return visit.go(urls.with_query("jobs", dict(visit.request.query_params)))
        view = await read_jobs(visit, found)
        return await visit.page("job_list.html", view, title="Jobs", section="jobs")

    _add_run_selected(pages)

    @pages.do("/jobs/cancel")
    async def cancel_selected(visit: Visit, form: Form) -> Response:
        ids = form.all("id")[:ROWS]
        back = _list_address(form.get("back"))
        if not ids:
            return visit.go(back, "none-selected")
        if "sure" not in form:
            rows = [await visit.parts.store.jobs.get(checked_id(id)) for id in ids]
            view = CancelView([row_of(row, None) for row in rows if row], "jobs/cancel", back)
            return await visit.page(
                "cancel.html", view, title="Cancel jobs", section="jobs", live=False
            )
        done = 0
        for id in ids:
            if await visit.parts.store.jobs.get(checked_id(id)) is None:
                continue  # it was deleted after its retention
            async with visit.act("cancel", target=id) as act:
                act.count = 0 if await visit.queue.cancel(id) is None else 1
            done += act.count
        return visit.go(back, "many", done)


def _add_run_selected(pages: Pages) -> None:
    @pages.do("/jobs/run")
    async def run_selected(visit: Visit, form: Form) -> Response:
        ids = form.all("id")[:ROWS]
        back = _list_address(form.get("back"))
        if not ids:
            return visit.go(back, "none-selected")
        done = 0
        for id in ids:
            try:
                async with visit.act("reschedule", target=id):
                    await visit.queue.reschedule(id, 0)
            except (JobNotFound, JobNotWaiting):
                continue  # it is asleep, or has started or ended since the page was read
            done += 1
        return visit.go(back, "many-due", done)


def _list_address(text: str) -> str:
    address = urls.own_address(text)
    return address if address.partition("?")[0] == "jobs" else "jobs"
