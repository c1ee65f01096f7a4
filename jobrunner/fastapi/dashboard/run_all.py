"""The question before all jobs that match a filter run now, and its form."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from starlette.responses import Response

from jobrunner.core.clock import now_s, to_us
from jobrunner.core.model import Filter
from jobrunner.fastapi.dashboard import urls, words
from jobrunner.fastapi.dashboard.cancel_all import COUNT_S, FILTERS, counted, fixed
from jobrunner.fastapi.dashboard.forms import Form
from jobrunner.fastapi.dashboard.pages import Pages
from jobrunner.fastapi.dashboard.visit import Visit
from jobrunner.queue.filters import RescheduleFilter, reschedule_filter
from jobrunner.store.job_protocol import Count

PER_SLICE: Final = 1_000
"""The most jobs that one step of counting reads."""


@dataclass(frozen=True, slots=True)
class RunAllView:
    """The question."""

    filters: Mapping[str, str]
    """The filters that are set; none for all waiting jobs."""
    count: Count
    until: str
    """The time of the count: what is enqueued later stays as it is."""
    back: str

    @property
    def number(self) -> str:
        """The number of jobs, such as ``12 jobs`` or ``more than 10,000 jobs``."""
        if self.count.complete:
            return words.count_of(self.count.number, "job")
        number = min(self.count.number, words.COUNT_CAP)
        return f"more than {number:,} jobs" if number else "all that match"


async def _count(visit: Visit, where: Filter) -> Count:
    """Count the waiting jobs that match, up to the cap and a time."""
    number, before, end_s, now = 0, None, now_s() + COUNT_S, to_us(visit.now)
    while True:
        found = await visit.parts.store.jobs.reschedule_all(
            where, before=before, run_at=now, now=now, limit=PER_SLICE, dry_run=True
        )
        number += found.rescheduled
        before = found.cursor
        if before is None:
            return Count(number, complete=True)
        if number >= words.COUNT_CAP or now_s() >= end_s:
            return Count(number, complete=False)


def add_run_all(pages: Pages) -> None:
    """Add the question and its form."""

    @pages.show("/jobs/run-all", acting=True)
    async def ask_run_all(visit: Visit) -> Response:
        asked = {name: visit.asked(name) for name in FILTERS if visit.asked(name)}
        filters = fixed(asked, visit.now)
        where = cast("RescheduleFilter", counted(filters, visit.now))
        count = await _count(visit, reschedule_filter(where))
        back = urls.with_query("jobs", asked)
        if count == Count(0, complete=True):
            return visit.go(back, "none-waits")
        view = RunAllView(filters, count, visit.now.isoformat(), back)
        return await visit.page(
            "run_all.html", view, title="Run jobs now", section="jobs", live=False
        )

    @pages.do("/jobs/run-all")
    async def run_all(visit: Visit, form: Form) -> Response:
        filters = {name: form.get(name) for name in FILTERS if form.get(name)}
        where = cast("RescheduleFilter", counted(filters, form.until()))
        async with visit.act("reschedule_all", filter=where, reason=form.get("reason")) as act:
            act.count = (await visit.queue.reschedule_all(0, **where)).rescheduled
        return visit.go(urls.with_query("jobs", filters), "many-due", act.count)
