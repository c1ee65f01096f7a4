"""The value that users read of a dead letter."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from jobrunner.core.attempt import Attempt
from jobrunner.core.clock import from_us
from jobrunner.core.exports import exported
from jobrunner.core.job import ID
from jobrunner.core.model import DeadReason, JobRow
from jobrunner.core.response_models import doc
from jobrunner.core.tracing import trace_id_of


@exported
@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that will not run again by itself, kept with its error.

    ``jobs.dead_letters.replay(id)`` puts it back into its queue.
    """

    id: str = field(metadata=doc("The job's id.", ID))
    task: str = field(metadata=doc(example="send_welcome_email"))
    queue: str = field(metadata=doc(example="mail"))
    reason: DeadReason = field(metadata=doc("Why it will not run again by itself."))
    error_type: str | None = field(metadata=doc(example="smtplib.SMTPRecipientsRefused"))
    error: str | None = field(metadata=doc(example="550 no such user"))
    traceback: str | None = field(
        metadata=doc("The traceback of the last attempt; shortened if it is very long.")
    )
    args: dict[str, Any] = field(
        metadata=doc(
            "The arguments by parameter name.", {"email": "ada@example.org", "username": "ada"}
        )
    )
    """The stored arguments, as plain JSON values."""
    attempt: int = field(metadata=doc("Runs since it was enqueued or last replayed.", 5))
    created_at: datetime
    died_at: datetime
    key: str | None
    tag: str | None
    replays: int = field(metadata=doc("How often it was replayed before.", 0))
    replay_of: str | None = field(
        metadata=doc("The dead letter that it replayed with other arguments.")
    )
    replayed_as: str | None = field(metadata=doc("The job that replays it with other arguments."))
    chain: str | None = field(
        metadata=doc(
            "The id of the first job of its chain; null if it is in none. The job after it was unblocked when"
            " this one died."
        )
    )
    after: str | None = field(metadata=doc("The id of the job before it in the chain."))
    trace_id: str | None = field(
        default=None, metadata=doc("The OpenTelemetry trace in which it was enqueued.")
    )
    history: tuple[Attempt, ...] = ()
    """The attempts, oldest first. Only ``get`` loads them."""
    group: str | None = field(
        default=None,
        metadata=doc(
            "The fingerprint of its failure, equal in all dead letters that failed in the same way. Null in one of an"
            " older version until a worker has grouped it.",
            "8c5ae6b1f2d09374",
        ),
    )
    batch: str | None = field(
        default=None,
        metadata=doc("The id of the batch of which it is a member; null if it is in none."),
    )


def dead_letter_of(row: JobRow, history: tuple[Attempt, ...] = ()) -> DeadLetter:
    """Return a dead letter in its public form."""
    assert row.reason is not None  # noqa: S101 - every row of the table has one
    assert row.finished_at is not None  # noqa: S101 - as the line above
    return DeadLetter(
        id=row.id,
        task=row.task,
        queue=row.queue,
        reason=row.reason,
        error_type=row.error_type,
        error=row.error,
        traceback=row.traceback,
        args=json.loads(row.args),
        attempt=row.attempt,
        created_at=from_us(row.created_at),
        died_at=from_us(row.finished_at),
        key=row.key,
        tag=row.tag,
        replays=row.replays,
        replay_of=row.replay_of,
        replayed_as=row.replayed_as,
        chain=row.chain,
        after=row.after,
        trace_id=trace_id_of(row.trace),
        batch=row.batch,
        history=history,
        group=row.fingerprint,
    )
