"""The question before all jobs that match a filter are cancelled, and its form."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from starlette.responses import Response

from jobrunner.fastapi.dashboard import urls, words
from jobrunner.fastapi.dashboard.forms import Form
from jobrunner.fastapi.dashboard.pages import Pages
from jobrunner.fastapi.dashboard.search import WORDS, meant
from jobrunner.fastapi.dashboard.visit import Visit
from jobrunner.queue.filters import CancelFilter, cancel_filter
from jobrunner.store.job_protocol import CancelPlan

FILTERS: Final = ("state", *WORDS)
NOTHING: Final = CancelPlan(0, 0)
COUNT_S: Final = 0.1
"""Counting ends after about so many seconds, and at ``COUNT_CAP`` jobs."""


@dataclass(frozen=True, slots=True)
class CancelAllView:
    """The question."""

    filters: Mapping[str, str]
    """The filters that are set; none for all unfinished jobs."""
    plan: CancelPlan
    until: str
    """The time of the count: what is enqueued later is not cancelled."""
    back: str

    @property
    def number(self) -> str:
        """The number of jobs, such as ``12 jobs`` or ``more than 10,000 jobs``."""
        number = self.plan.cancelled + self.plan.requested
        if self.plan.complete:
            return words.count_of(number, "job")
        return f"more than {min(number, words.COUNT_CAP):,} jobs" if number else "all that match"


def counted(filters: Mapping[str, str], until: datetime) -> dict[str, Any]:
    """Return the filters of the jobs that were counted at a time."""
    return {**meant(filters, until), "until": until}


def fixed(filters: Mapping[str, str], now: datetime) -> dict[str, str]:
    """Return the filters with an instant in place of a duration.

    So they mean the same when the form is sent.
    """
    since = meant(filters, now).get("since")
    return {**filters, "since": since.isoformat()} if since is not None else dict(filters)


def add_cancel_all(pages: Pages) -> None:
    """Add the question and its form."""

    @pages.show("/jobs/cancel-all", acting=True)
    async def ask_cancel_all(visit: Visit) -> Response:
        asked = {name: visit.asked(name) for name in FILTERS if visit.asked(name)}
        filters = fixed(asked, visit.now)
        where = cancel_filter(cast("CancelFilter", counted(filters, visit.now)))
        plan = await visit.parts.store.jobs.plan_cancel_all(
            where, cap=words.COUNT_CAP, seconds=COUNT_S
        )
        back = urls.with_query("jobs", asked)
        if plan == NOTHING:
            return visit.go(back, "none-matches")
        view = CancelAllView(filters, plan, visit.now.isoformat(), back)
        return await visit.page(
            "cancel_all.html", view, title="Cancel jobs", section="jobs", live=False
        )

    @pages.do("/jobs/cancel-all")
    async def cancel_all(visit: Visit, form: Form) -> Response:
        filters = {name: form.get(name) for name in FILTERS if form.get(name)}
        where = cast("CancelFilter", counted(filters, form.until()))
        async with visit.act("cancel_all", filter=where, reason=form.get("reason")) as act:
            counts = await visit.queue.cancel_all(**where)
            act.count = counts.cancelled + counts.requested
        return visit.go(urls.with_query("jobs", filters), "many", act.count)
