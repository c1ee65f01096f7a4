"""The page of one job or dead letter: its chain, its life, its attempts, its arguments, and what can be done."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from markupsafe import Markup
from starlette.responses import Response

from jobrunner.core.clock import from_us, to_us
from jobrunner.core.errors import AlreadyReplayed, JobNotFound
from jobrunner.core.model import UNFINISHED, AttemptRow, JobRow
from jobrunner.fastapi.dashboard import arguments, urls, words
from jobrunner.fastapi.dashboard.forms import Form
from jobrunner.fastapi.dashboard.frames import Piece, pieces_of
from jobrunner.fastapi.dashboard.jobs import Row, limit_of, row_of, state_of
from jobrunner.fastapi.dashboard.life import Life, life_of
from jobrunner.fastapi.dashboard.pages import Pages
from jobrunner.fastapi.dashboard.visit import Visit
from jobrunner.queue.filters import checked_id
from jobrunner.queue.results import no_job

MOST_ATTEMPTS: Final = 50

REASONS: Final = {
    "exhausted": "out of attempts",
    "buried": "the task gave it up with Bury",
    "not_retryable": "the error is none to retry",
    "lost": "its processes died under it",
    "unknown_task": "no worker knew its task",
    "invalid_args": "its arguments do not fit the task",
}


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
class Fact:
    """One line about a job."""

    name: str
    text: str = ""
    at: datetime | None = None
    note: str = ""
    link: str = ""
    code: bool = False


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
    facts: Sequence[Fact]
    values: Values
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
    is_dead = row.state == "dead"
    open_here = is_dead and row.replayed_as is None
    return JobView(
        row=row_of(row, limit),
        summary=_summary(row, attempts),
        ended_at=None if row.finished_at is None else from_us(row.finished_at),
        chain=[Link(row_of(one, None), one.id == row.id) for one in chain],
        life=life_of(row, attempts, to_us(visit.now)),
        tries=_tries(row, attempts[-MOST_ATTEMPTS:], visit.now),
        earlier=max(len(attempts) - MOST_ATTEMPTS, 0),
        limit=limit,
        facts=_facts(row, attempts, limit),
        values=_values(visit, row, show=show_values),
        command=_command(row, open_here=open_here),
        is_dead=open_here,
        replayed_as=row.replayed_as,
        can_cancel=row.state in UNFINISHED and not row.cancel_requested,
        can_run=row.state == "scheduled",
    )


_STATES: Final = {
    "queued": "Due, and waits for a free slot.",
    "blocked": "Waits until the job before it in the chain has ended.",
    "cancelled": "Was cancelled.",
    "expired": "Expired before it could start.",
}


def _summary(row: JobRow, attempts: Sequence[AttemptRow]) -> str:
    runs = words.count_of(len(attempts), "run")
    match row.state:
        case "dead":
            reason = REASONS[row.reason] if row.reason is not None else "given up"
            return f"{reason[0].upper()}{reason[1:]}, after {runs}."
        case "succeeded":
            return f"Succeeded in {words.count_of(max(row.attempt, 1), 'attempt')}."
        case "running":
            asked = " It was asked to stop." if row.cancel_requested else ""
            return f"Attempt {row.attempt} is running.{asked}"
        case "scheduled":
            again = f"Waits for its next attempt, after {runs}."
            return again if row.attempt else "Waits for its time."
        case _:
            return _STATES[row.state]


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


def _facts(row: JobRow, attempts: Sequence[AttemptRow], limit: int | None) -> list[Fact]:
    def moment(us: int | None) -> datetime | None:
        return None if us is None else from_us(us)

    first = attempts[0].started_at if attempts else None
    facts = [
        Fact(
            "Queue",
            row.queue,
            link=urls.with_query("jobs", {"queue": row.queue}),
            note=f"priority {row.priority}",
        ),
        Fact("Created", at=moment(row.created_at)),
        Fact("Due", at=moment(row.run_at)),
    ]
    if row.reason is not None:
        facts.insert(1, Fact("Reason", REASONS[row.reason], note=f"`{row.reason}`"))
    if first is not None and row.first_started_at is not None and not row.replays:
        waited = first - max(row.created_at, min(row.run_at, first))
        facts.append(Fact("First wait", words.duration(waited)))
    if row.finished_at is not None:
        facts.append(Fact("Died" if row.state == "dead" else "Ended", at=moment(row.finished_at)))
    if row.expires_at is not None:
        facts.append(Fact("Expires", at=moment(row.expires_at)))
    facts.append(
        Fact(
            "Attempts",
            f"{row.attempt} of {limit}" if limit is not None else str(row.attempt),
            note=f"{words.count_of(row.crashes, 'death')} of its process" if row.crashes else "",
        )
    )
    if row.timeout is not None:
        facts.append(Fact("Time-out", words.duration(row.timeout) if row.timeout else "none"))
    if attempts:
        facts.append(
            Fact("Worker", f"{attempts[-1].worker:x}", code=True, note="of the last attempt")
        )
    facts += _ties(row)
    return facts


def _ties(row: JobRow) -> list[Fact]:
    """Return the facts that tie a job to others."""
    facts: list[Fact] = []
    if row.key is not None:
        facts.append(Fact("Key", row.key, code=True))
    if row.tag is not None:
        facts.append(Fact("Tag", row.tag, link=urls.with_query("jobs", {"tag": row.tag})))
    if row.schedule is not None:
        tick = None if row.scheduled_for is None else from_us(row.scheduled_for)
        facts.append(Fact("Schedule", row.schedule, link=f"schedules/{urls.segment(row.schedule)}"))
        facts.append(Fact("Tick", at=tick))
    if row.replay_of is not None:
        facts.append(Fact("Replay of", row.replay_of, link=f"jobs/{row.replay_of}", code=True))
    if row.replayed_as is not None:
        facts.append(
            Fact("Replayed as", row.replayed_as, link=f"jobs/{row.replayed_as}", code=True)
        )
    facts.append(Fact("Replays", str(row.replays) if row.replays else "none"))
    return facts


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
