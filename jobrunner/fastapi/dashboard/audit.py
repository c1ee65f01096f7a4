"""The page of the audit log: who changed what, how many, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast

from starlette.responses import Response

from jobrunner.core.audit import ACTIONS, Action, AuditEntry
from jobrunner.fastapi.dashboard import urls, words
from jobrunner.fastapi.dashboard.pages import Pages
from jobrunner.fastapi.dashboard.visit import Visit

ROWS: Final = 50
FILTERS: Final = ("actor", "action")

_VERBS: Final[Mapping[Action, tuple[str, str]]] = {
    "cancel": ("Cancelled", "job"),
    "cancel_all": ("Cancelled", "job"),
    "reschedule": ("Rescheduled", "job"),
    "reschedule_all": ("Rescheduled", "job"),
    "signal": ("Signalled", "job"),
    "arguments.show": ("Saw the arguments of", "job"),
    "dead_letters.replay": ("Replayed", "dead letter"),
    "dead_letters.replay_edited": ("Replayed with other arguments", "dead letter"),
    "dead_letters.replay_all": ("Replayed", "dead letter"),
    "dead_letters.delete": ("Deleted", "dead letter"),
    "dead_letters.delete_all": ("Deleted", "dead letter"),
    "batches.cancel": ("Cancelled", "batch"),
    "batches.retry": ("Retried", "batch"),
    "queues.pause": ("Paused", "queue"),
    "queues.resume": ("Resumed", "queue"),
    "limits.set": ("Set", "limit"),
    "limits.reset": ("Reset", "limit"),
    "schedules.upsert": ("Stored", "schedule"),
    "schedules.remove": ("Removed", "schedule"),
    "schedules.run_now": ("Ran now", "schedule"),
    "schedules.pause": ("Paused", "schedule"),
    "schedules.resume": ("Resumed", "schedule"),
}
"""Verb and object of each act."""


@dataclass(frozen=True, slots=True)
class Change:
    """One entry in words."""

    id: int
    at: datetime
    actor: str
    what: str
    target: str
    """The id or name of what was changed, or the filters."""
    address: str
    """The page of the target; empty if there is none."""
    state: str
    """`end unknown` if it runs or was broken off, `no effect` if nothing was changed; else empty."""
    reason: str


@dataclass(frozen=True, slots=True)
class AuditView:
    """The page."""

    filters: Mapping[str, str]
    actions: Mapping[str, str]
    """Each kind of act, with its name for people."""
    changes: Sequence[Change]
    cursor: str
    next_cursor: str | None
    complete: bool


def change_of(entry: AuditEntry) -> Change:
    """Return an entry in words."""
    verb, noun = _VERBS[entry.action]
    if entry.filter is None:
        what, target = f"{verb} {noun}", entry.target or ""
    else:
        number = f"{noun}s" if entry.count is None else words.count_of(entry.count, noun)
        what = f"{verb} {number}"
        target = ", ".join(f"{name} {value}" for name, value in entry.filter.items()) or "all"
    return Change(
        id=entry.id,
        at=entry.at,
        actor=entry.actor,
        what=what,
        target=target,
        address=_address(noun, entry.target) if entry.target else "",
        state=_state(entry),
        reason=entry.reason or "",
    )


def _state(entry: AuditEntry) -> str:
    if entry.count is None:
        return "end unknown"
    # An act on many may have found none.
    return "no effect" if entry.count == 0 and entry.filter is None else ""


def _address(noun: str, target: str) -> str:
    match noun:
        case "queue":
            return "queues"
        case "batch":
            return f"batches/{urls.segment(target)}"
        case "limit":
            return "limits"
        case "schedule":
            return f"schedules/{urls.segment(target)}"
        case _:
            return f"jobs/{urls.segment(target)}"


async def last_changes(visit: Visit, number: int) -> list[Change]:
    """Return the newest entries."""
    return [change_of(one) for one in (await visit.queue.audit.list(limit=number)).items]


def add_audit(pages: Pages) -> None:
    """Add the page of the audit log."""

    @pages.show("/audit")
    async def list_changes(visit: Visit) -> Response:
        filters = {name: visit.asked(name) for name in FILTERS}
        cursor = visit.asked("cursor")
        page = await visit.queue.audit.list(
            limit=ROWS,
            cursor=cursor or None,
            actor=filters["actor"] or None,
            action=cast("Action | None", filters["action"] or None),
        )
        view = AuditView(
            filters=filters,
            actions={action: " ".join(_VERBS[action]) for action in ACTIONS},
            changes=[change_of(entry) for entry in page.items],
            cursor=cursor,
            next_cursor=page.next_cursor,
            complete=page.complete,
        )
        return await visit.page("audit.html", view, title="Audit log", section="audit")
