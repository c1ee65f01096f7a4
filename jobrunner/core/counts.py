"""Defines the counts that verbs on many jobs return."""

from dataclasses import dataclass, field

from jobrunner.core.exports import exported
from jobrunner.core.response_models import doc


@exported
@dataclass(frozen=True, slots=True)
class CancelCounts:
    """The result of ``cancel_all``; with ``dry_run``, what it would do."""

    cancelled: int = field(
        metadata=doc(
            "Waiting jobs that were cancelled, with the jobs behind them in their chains.", 12
        )
    )
    requested: int = field(metadata=doc("Running jobs that were asked to stop.", 2))


@exported
@dataclass(frozen=True, slots=True)
class RescheduleCounts:
    """The result of ``reschedule_all``; with ``dry_run``, what it would do."""

    rescheduled: int = field(metadata=doc("Waiting jobs that are due at the new time.", 12))
    expiring: int = field(
        default=0,
        metadata=doc("Waiting jobs that stay as they are: they would expire before that time.", 1),
    )


@exported
@dataclass(frozen=True, slots=True)
class ReplayCounts:
    """The result of ``replay_all``; with ``dry_run``, what it would do."""

    replayed: int = field(metadata=doc("Dead letters that were put back.", 11))
    conflicts: int = field(
        metadata=doc(
            "Dead letters that stay because an unfinished job, or a dead letter that was put back before it,"
            " has their key.",
            1,
        )
    )
    invalid: int = field(
        default=0,
        metadata=doc(
            "Dead letters that stay because their arguments do not fit the present signature of their task.",
            1,
        ),
    )
    checked: int = field(
        default=0,
        metadata=doc(
            "Dead letters whose arguments were checked, the most recent deaths first. A dry run stops at 1,000; without"
            " the application's tasks none is checked.",
            13,
        ),
    )

    @property
    def partly_checked(self) -> bool:
        """True if some arguments were not checked, so that more may be invalid."""
        return self.checked < self.replayed + self.conflicts + self.invalid
