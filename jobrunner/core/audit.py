"""Defines the entries of the audit log, stored and public."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, get_args

from jobrunner.core.clock import from_us
from jobrunner.core.exports import exported
from jobrunner.core.response_models import doc

Action = Literal[
    "cancel",
    "cancel_all",
    "reschedule",
    "reschedule_all",
    "signal",
    "arguments.show",
    "dead_letters.replay",
    "dead_letters.replay_edited",
    "dead_letters.replay_all",
    "dead_letters.delete",
    "dead_letters.delete_all",
    "batches.cancel",
    "batches.retry",
    "queues.pause",
    "queues.resume",
    "limits.set",
    "limits.reset",
    "schedules.upsert",
    "schedules.remove",
    "schedules.run_now",
    "schedules.pause",
    "schedules.resume",
]
"""The names of the methods, and two more: a replay with edited arguments, and arguments shown on a page."""

ACTIONS: Final = get_args(Action)
UNKNOWN_ACTOR: Final = "unknown"
MAX_REASON: Final = 500
"""The most characters of a reason."""


class AuditRow(NamedTuple):
    """An entry of the audit log as it is stored; times in µs."""

    entry: int
    at: int
    actor: str
    action: Action
    target: str | None
    filter: str | None
    """JSON; None for an act on one target."""
    number: int | None
    """The number of things that it was done to; None until it has ended."""
    reason: str | None


@exported
@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One act of an operator, over HTTP or on the command line."""

    id: int = field(metadata=doc("Grows with each entry.", 41))
    at: datetime = field(metadata=doc("The time at which it began.", "2026-11-22T08:00:00Z"))
    actor: str = field(
        metadata=doc("Who did it; `unknown` if the application does not say.", "ada@example.org")
    )
    action: Action = field(metadata=doc("What was done, by the name of the method."))
    target: str | None = field(
        metadata=doc(
            "The id of the job, batch or schedule, or the name of the queue; of a limit also its scope. Null with a"
            " filter."
        )
    )
    filter: Mapping[str, Any] | None = field(
        metadata=doc(
            "The jobs or dead letters that were meant; empty for all of them. Null for an act on one target.",
            {"task": "send_welcome_email"},
        )
    )
    count: int | None = field(
        metadata=doc(
            "How many jobs, dead letters, batches, queues, limits or schedules it was done to: 0 if it was refused."
            " Null while it runs, and for good if its end is unknown, as after a crash.",
            12,
        )
    )
    reason: str | None = field(
        metadata=doc("The reason that was given.", "the mail server is back")
    )


def entry_of(row: AuditRow) -> AuditEntry:
    """Return an entry in its public form."""
    return AuditEntry(
        id=row.entry,
        at=from_us(row.at),
        actor=row.actor,
        action=row.action,
        target=row.target,
        filter=None if row.filter is None else json.loads(row.filter),
        count=row.number,
        reason=row.reason,
    )
