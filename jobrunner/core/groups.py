"""The groups of dead letters that users read."""

from dataclasses import dataclass, field
from datetime import datetime

from jobrunner.core.exports import exported
from jobrunner.core.response_models import doc


@exported
@dataclass(frozen=True, slots=True)
class DeadLetterGroup:
    """Dead letters that failed in the same way.

    They are of one task, with the same class of exception, raised at the same place of the application's code, and the
    same message when numbers, ids and quoted parts are left out. Jobs that wait for a retry after such a failure are
    counted too; a group may have such jobs only.
    """

    fingerprint: str = field(
        metadata=doc("16 hex digits; `group` of its dead letters.", "8c5ae6b1f2d09374")
    )
    """The ``group`` of its dead letters, and the filter ``group=``."""
    task: str = field(metadata=doc(example="send_welcome_email"))
    error_type: str | None = field(metadata=doc(example="smtplib.SMTPServerDisconnected"))
    error: str | None = field(
        metadata=doc("The message of the newest dead letter.", "Connection unexpectedly closed")
    )
    count: int = field(metadata=doc("Dead letters that were neither replayed nor deleted.", 12))
    first_died_at: datetime | None = field(
        metadata=doc("The first of these deaths; null without a dead letter.")
    )
    last_died_at: datetime | None = field(metadata=doc("The last of these deaths."))
    newest_id: str | None = field(metadata=doc("The id of the dead letter that died last."))
    deaths_per_hour: tuple[int, ...] = field(
        metadata=doc(
            "24 counts of these deaths, one for each of the last 24 hours, the oldest hour first; the last one ends"
            " now.",
            [0] * 22 + [3, 9],
        )
    )
    retrying: int = field(metadata=doc("Jobs that wait for a retry after such a failure.", 4))


@exported
@dataclass(frozen=True, slots=True)
class DeadLetterGroups:
    """The groups of dead letters, most recent death first."""

    items: list[DeadLetterGroup]
    """At most 200; the groups without a dead letter come last, those with most jobs first."""
    ungrouped: int
    """Dead letters that a version before the groups stored; a worker groups them within some minutes."""
    complete: bool = True
    """False if there are more groups, or counting stopped after about 100 ms or 1,000 jobs that wait for a retry."""
