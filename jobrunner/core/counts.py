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
