"""The values that users read of queues, workers and the health of a store."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from jobrunner.core.exports import exported
from jobrunner.core.response_models import doc


@exported
@dataclass(frozen=True, slots=True)
class QueueInfo:
    """The state of one queue, summed over all workers of the store."""

    name: str = field(metadata=doc(example="mail"))
    slots: int = field(metadata=doc("Slots of all live workers; 0 if none serves the queue.", 50))
    paused: bool = field(metadata=doc(example=False))
    queued: int = field(metadata=doc("Jobs that could start now.", 3))
    scheduled: int = field(metadata=doc("Jobs that wait for their time.", 120))
    blocked: int = field(metadata=doc("Jobs that wait for the one before them in a chain.", 4))
    running: int = field(metadata=doc(example=2))
    oldest_due_at: datetime | None = field(
        metadata=doc("When the queued job that has waited longest became due.")
    )
    complete: bool = field(
        default=True,
        metadata=doc(
            "False if counting stopped at 10,000 or because it took too long. Then `queued`, `scheduled` and"
            " `blocked` are lower bounds.",
            True,
        ),
    )
    paused_at: datetime | None = field(
        default=None, metadata=doc("When it was paused; null if it is not.")
    )


@exported
@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One process that runs jobs on the store."""

    id: int
    pid: int
    host: str
    started_at: datetime
    beat_at: datetime = field(metadata=doc("When its event loop last reported."))
    stalled: bool = field(
        metadata=doc("Alive, but its event loop has not reported for half a minute.")
    )
    """The loop is blocked, or the process is stopped (SIGSTOP)."""
    queues: dict[str, int] = field(metadata=doc("Its slots by queue.", {"default": 20}))
    revision: int | None = field(
        default=None, metadata=doc("The revision of its code, as `JobRunner(revision=)` has it.", 0)
    )
    running: int = field(default=0, metadata=doc("Its running attempts: its busy slots.", 3))


@exported
@dataclass(frozen=True, slots=True)
class Health:
    """The health of a runner and its store, with the problems found."""

    status: Literal["ok", "degraded", "stopping", "failed"] = field(
        metadata=doc(
            "`degraded`: jobs are safe, but something needs attention. `failed`: this worker has stopped."
        )
    )
    problems: tuple[str, ...] = field(metadata=doc("One sentence each."))
    ready: bool = field(
        metadata=doc(
            "Whether this process should receive work: it is not stopping, has not failed, and can write to the store."
        )
    )
    working: bool = field(metadata=doc("Whether this process runs jobs."))
    running: int = field(metadata=doc("Running attempts of this process."))
    stuck_threads: tuple[str, ...] = field(
        metadata=doc("Timed-out `def` attempts whose thread has not ended, as `task job-id`.")
    )
    unknown_tasks: dict[str, datetime] = field(
        metadata=doc(
            "Tasks that no live worker knows and that have waiting jobs, each with the time at which its oldest"
            " job became due."
        )
    )
    workers: tuple[WorkerInfo, ...]
    version: str
    error: str | None = field(
        default=None,
        metadata=doc(
            "The error that stopped this worker, or that its last write to the store met."
        ),
    )
    failing_chores: tuple[str, ...] = field(
        default=(), metadata=doc("Background chores whose last run failed, such as `prune`.")
    )
    failing_schedules: tuple[str, ...] = field(
        default=(), metadata=doc("One sentence for each schedule that cannot be fired.")
    )
    deadlocks: tuple[str, ...] = field(
        default=(),
        metadata=doc("One sentence for each set of queues whose slots all wait for other jobs."),
    )
    lanes: dict[str, int] = field(
        default_factory=dict,
        metadata=doc(
            "The lanes with queued jobs, up to 10,000 each: `open` ones may start jobs, `full` ones wait for a job"
            " to end, `empty` ones for their rate.",
            {"open": 3, "full": 41, "empty": 0},
        ),
    )
