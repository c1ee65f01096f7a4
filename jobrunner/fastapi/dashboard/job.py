"""The page of one job or dead letter: its chain, its life, its attempts, its arguments, and what can be done."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from markupsafe import Markup
from starlette.responses import Response

from jobrunner.core.clock import from_us, to_us
from jobrunner.core.errors import AlreadyReplayed, InvalidArguments, JobNotFound
from jobrunner.core.job import steps_of
from jobrunner.core.limits import Wait
from jobrunner.core.model import UNFINISHED, AttemptRow, JobRow, MemoKind
from jobrunner.core.workflows import ParkedWait
from jobrunner.fastapi.dashboard import arguments, words
from jobrunner.fastapi.dashboard.facts import REASONS, Fact, facts_of, worker_of
from jobrunner.fastapi.dashboard.forms import Form
from jobrunner.fastapi.dashboard.frames import Piece, pieces_of
from jobrunner.fastapi.dashboard.jobs import Row, limit_of, row_of, state_of
from jobrunner.fastapi.dashboard.life import Life, life_of
from jobrunner.fastapi.dashboard.links import JobLink
from jobrunner.fastapi.dashboard.pages import Pages
from jobrunner.fastapi.dashboard.visit import Visit
from jobrunner.queue.filters import checked_id
from jobrunner.queue.results import no_job, waits_of

MOST_ATTEMPTS: Final = 50


@dataclass(frozen=True, slots=True)
class Link:
    """One job of a chain."""

    row: Row
    current: bool


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt."""

    attempt: int
    outcome: str
    started_at: datetime
    took: str
    error: str
    then: str
    """The wait until the next attempt."""
    pieces: Sequence[Piece]
    open: bool
    key: str


@dataclass(frozen=True, slots=True)
class Values:
    """The arguments and the result, as far as the viewer sees them."""

    arguments: Markup
    result: Markup | None
    result_omitted: str | None
    copied: str
    """The arguments as text to copy; empty while they are hidden."""
    is_shown: bool
    has_result: bool


@dataclass(frozen=True, slots=True)
class StepLine:
    """A finished step of a job, or another memo of it."""

    kind: str
    name: str
    at: datetime
    timed_out: bool


@dataclass(frozen=True, slots=True)
class JobView:
    """One job or dead letter."""

    row: Row
    summary: str
    ended_at: datetime | None
    chain: Sequence[Link]
    life: Life | None
    tries: Sequence[Try]
    earlier: int
    """Attempts that are not shown."""
    limit: int | None
    steps: Sequence[StepLine]
    facts: Sequence[Fact]
    values: Values
    links: Sequence[JobLink]
    command: str
    is_dead: bool
    replayed_as: str | None
    can_cancel: bool
    can_run: bool
    """True if it waits for its time, so that it can be made due now."""

    def started_at(self, us: int) -> datetime:
        """Return a time of the bar."""
        return from_us(us)


async def stored(visit: Visit) -> JobRow:
    """Read the job that the path names.

    Raises:
        JobNotFound: No job has this id.
    """
    id = visit.path("id").lower()
    row = await visit.parts.store.jobs.get(checked_id(id))
    if row is None:
        raise no_job(id)
    return row


async def read_job(visit: Visit, row: JobRow, *, show_values: bool = False) -> JobView:
    """Read all that the page of a job shows."""
    attempts = await visit.parts.store.jobs.attempts(row.seq)
    chain = await visit.parts.store.jobs.chain(row)
    limit = limit_of(visit, row)
    store = visit.parts.store
    wait = (await waits_of(store, [row], to_us(visit.now))).get(row.seq)
    steps = steps_of(await store.workflows.steps(row.seq))
    is_dead = row.state == "dead"
    open_here = is_dead and row.replayed_as is None
    return JobView(
        row=row_of(row, limit),
        summary=_summary(row, attempts, wait),
        ended_at=None if row.finished_at is None else from_us(row.finished_at),
        chain=[Link(row_of(one, None), one.id == row.id) for one in chain],
        life=life_of(row, attempts, to_us(visit.now)),
        tries=_tries(row, attempts[-MOST_ATTEMPTS:], visit.now),
        earlier=max(len(attempts) - MOST_ATTEMPTS, 0),
        limit=limit,
        steps=[StepLine(_KINDS[one.kind], one.name, one.at, one.timed_out) for one in steps],
        facts=facts_of(row, attempts, limit, await worker_of(visit, attempts), wait),
        values=_values(visit, row, show=show_values),
        links=visit.site.links.of(row, attempts),
        command=_command(row, open_here=open_here),
        is_dead=open_here,
        replayed_as=row.replayed_as,
        can_cancel=row.state in UNFINISHED and not row.cancel_requested,
        # A parked job would only wait again.
        can_run=row.state == "scheduled" and not isinstance(wait, ParkedWait),
    )


_KINDS: Final[Mapping[MemoKind, str]] = {
    "step": "step",
    "signal": "signal",
    "sleep": "sleep",
    "batch": "children",
    "cursor": "cursor",
}


_STATES: Final = {
    "queued": "Due, and waits for a free slot.",
    "blocked": "Waits for other jobs.",
    "blocked in a chain": "Waits until the job before it in the chain has ended.",
    "cancelled": "Was cancelled.",
    "expired": "Expired before it could start.",
}


def _summary(row: JobRow, attempts: Sequence[AttemptRow], wait: Wait | ParkedWait | None) -> str:
    if isinstance(wait, ParkedWait):
        return (
            f"{wait.text[0].upper()}{wait.text[1:]}." if not wait.needs else f"Waits: {wait.text}."
        )
    runs = words.count_of(len(attempts), "run")
    match row.state:
        case "dead":
            reason = REASONS[row.reason] if row.reason is not None else "given up"
            return f"{reason[0].upper()}{reason[1:]} after {runs}."
        case "succeeded":
            return f"Succeeded in {words.count_of(max(row.attempt, 1), 'attempt')}."
        case "running":
            asked = " It was asked to stop." if row.cancel_requested else ""
            return f"Attempt {row.attempt} is running.{asked}"
        case "scheduled":
            again = f"Waits for its next attempt, after {runs}."
            return again if row.retrying else "Waits for its time."
        case _:
            in_chain = row.state == "blocked" and row.after is not None
            return _STATES["blocked in a chain" if in_chain else row.state]


def _tries(row: JobRow, attempts: Sequence[AttemptRow], now: datetime) -> list[Try]:
    found: list[Try] = []
    for index, one in enumerate(attempts):
        ended = one.finished_at if one.finished_at is not None else to_us(now)
        is_last = index + 1 == len(attempts)
        then = ""
        if not is_last:
            then = f"then {words.duration(attempts[index + 1].started_at - ended)}"
        elif one.finished_at is None:
            then = "now"
        elif row.state in {"scheduled", "queued"}:
            then = "runs again"
        traceback = one.traceback
        found.append(
            Try(
                attempt=one.attempt,
                outcome=one.outcome or "running",
                started_at=from_us(one.started_at),
                took=words.duration(ended - one.started_at),
                error=f"{one.error_type}: {one.error}" if one.error_type else "",
                then=then or "last run",
                pieces=pieces_of(traceback) if traceback else (),
                open=is_last and traceback is not None,
                key=f"try-{one.lease}",
            )
        )
    return found[::-1]


def _values(visit: Visit, row: JobRow, *, show: bool) -> Values:
    stored_arguments = visit.redaction.value(json.loads(row.args))
    has_result = row.result is not None
    if not show:
        return Values(
            arguments.hidden(stored_arguments), None, row.result_omitted, "", False, has_result
        )
    result = None if row.result is None else visit.redaction.value(json.loads(row.result))
    return Values(
        arguments=arguments.coloured(stored_arguments),
        result=None if row.result is None else arguments.coloured(result),
        result_omitted=row.result_omitted,
        copied=arguments.written(stored_arguments),
        is_shown=True,
        has_result=has_result,
    )


def _command(row: JobRow, *, open_here: bool) -> str:
    if open_here:
        return f"jobrunner dead replay {row.id}"
    if row.state in UNFINISHED:
        return f"jobrunner jobs cancel {row.id}"
    return f"jobrunner jobs show {row.id} --args"


@dataclass(frozen=True, slots=True)
class ConfirmView:
    """A question before a job is changed."""

    row: Row
    question: str
    text: str
    button: str
    action: str


async def _show(visit: Visit, *, values: bool) -> Response:
    row = await stored(visit)
    if values:
        await arguments.record_shown(visit, row.id)
    view = await read_job(visit, row, show_values=values)
    return await visit.page(
        "job_page.html",
        view,
        title=row.task,
        section="dead" if view.is_dead else "jobs",
        live=not values,  # each poll would be an entry of the audit log
    )


def add_job(pages: Pages) -> None:
    """Add the page of one job, and the forms that change it."""

    @pages.show("/jobs/{id}")
    async def get_job(visit: Visit) -> Response:
        return await _show(visit, values=False)

    @pages.show("/jobs/{id}/arguments", seeing=True)
    async def get_arguments(visit: Visit) -> Response:
        return await _show(visit, values=True)

    @pages.do("/jobs/{id}/run")
    async def run_now(visit: Visit, form: Form) -> Response:
        id = visit.path("id").lower()
        async with visit.act("reschedule", target=id):
            await visit.queue.reschedule(id, 0)
        return visit.go(f"jobs/{id}", "due")

    _add_cancel(pages)
    _add_dead(pages)


def _add_cancel(pages: Pages) -> None:
    @pages.show("/jobs/{id}/cancel", acting=True)
    async def ask_cancel(visit: Visit) -> Response:
        row = await stored(visit)
        behind = (
            "" if row.chain is None else " The jobs behind it in its chain are cancelled with it."
        )
        text = (
            "It is running and will be asked to stop; it may still finish."
            if row.state == "running"
            else "It will not run."
        )
        view = ConfirmView(
            row_of(row, None), "Cancel this job?", text + behind, "Cancel the job", "cancel"
        )
        return await visit.page("confirm.html", view, title="Cancel", section="jobs", live=False)

    @pages.do("/jobs/{id}/cancel")
    async def cancel(visit: Visit, form: Form) -> Response:
        id = visit.path("id").lower()
        async with visit.act("cancel", target=id) as act:
            status = await visit.queue.cancel(id)
            act.count = 0 if status is None else 1
        return visit.go(f"jobs/{id}", status or "ended")


def _add_dead(pages: Pages) -> None:
    @pages.do("/jobs/{id}/replay")
    async def replay(visit: Visit, form: Form) -> Response:
        id = visit.path("id").lower()
        try:
            async with visit.act("dead_letters.replay", target=id):
                await visit.queue.dead_letters.replay(id)
        except InvalidArguments:
            return visit.go(f"jobs/{id}", "does-not-fit")
        except JobNotFound:
            # The second click of a double click; an id that never existed raises here.
            row = await stored(visit)
            raise AlreadyReplayed(
                f"the job is {state_of(row)}, and no dead letter any more"
            ) from None
        return visit.go(f"jobs/{id}", "replayed")

    @pages.show("/jobs/{id}/delete", acting=True)
    async def ask_delete(visit: Visit) -> Response:
        row = await stored(visit)
        view = ConfirmView(
            row_of(row, None),
            "Delete this dead letter?",
            "It is deleted with its arguments and its attempts, for good.",
            "Delete the dead letter",
            "delete",
        )
        return await visit.page("confirm.html", view, title="Delete", section="dead", live=False)

    @pages.do("/jobs/{id}/delete")
    async def delete(visit: Visit, form: Form) -> Response:
        id = visit.path("id").lower()
        async with visit.act("dead_letters.delete", target=id):
            await visit.queue.dead_letters.delete(id)
        return visit.go("dead", "deleted")
