"""The value that users read of an attempt, a run of a job."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from jobrunner.core.clock import from_us
from jobrunner.core.exports import exported
from jobrunner.core.model import AttemptOutcome, AttemptRow
from jobrunner.core.response_models import doc


@exported
@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a job, as an entry of ``job.history``.

    While it runs, ``finished_at`` and ``outcome`` are None.
    """

    attempt: int = field(metadata=doc("1 for the first run; a replay begins again at 1.", 1))
    started_at: datetime
    finished_at: datetime | None = field(metadata=doc("Null while it runs."))
    outcome: AttemptOutcome | None = field(metadata=doc("How it ended; null while it runs."))
    error_type: str | None = field(metadata=doc(example="smtplib.SMTPServerDisconnected"))
    error: str | None = field(metadata=doc(example="Connection unexpectedly closed"))
    traceback: str | None = field(metadata=doc("Shortened if it is very long."))
    worker: int = field(metadata=doc("The id of the worker that ran it."))


def history_of(attempts: Iterable[AttemptRow]) -> tuple[Attempt, ...]:
    """Return stored attempts in their public form."""
    return tuple(
        Attempt(
            attempt=row.attempt,
            started_at=from_us(row.started_at),
            finished_at=None if row.finished_at is None else from_us(row.finished_at),
            outcome=row.outcome,
            error_type=row.error_type,
            error=row.error,
            traceback=row.traceback,
            worker=row.worker,
        )
        for row in attempts
    )
