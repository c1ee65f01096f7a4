"""Reads the jobs of a tester's stores: ``Run``, and the records behind it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, Generic, TypeVar

from jobrunner.core.job import Job, job_of
from jobrunner.core.model import AttemptRow, DeadReason, JobRow, State
from jobrunner.queue.enqueuer import Enqueuer
from jobrunner.queue.results import result_in
from jobrunner.tasks.task import Task

R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True)
class Run(Generic[R_co]):
    """The fate of one job, as ``perform``, ``replay`` and ``runs`` return it."""

    job: Job[R_co]
    """The job, with its arguments and its history."""
    state: State
    """``"succeeded"``, ``"dead"``, ``"cancelled"`` or ``"expired"``; another one if the job has not ended."""
    outcomes: list[str]
    """The outcome of each attempt, oldest first: ``"succeeded"``, ``"failed"``, ``"timed_out"``, ``"snoozed"`` …"""
    waits: list[float]
    """The seconds between the end of each attempt and the start of the next one."""
    result: R_co | None
    """The value that the task returned; None if it has not succeeded."""
    reason: DeadReason | None
    """The reason of a dead letter, such as ``"exhausted"`` or ``"buried"``; None if the job is none."""
    error_type: str | None
    """The type of the last attempt's error."""
    error: str | None
    """The message of the last attempt's error."""

    @property
    def id(self) -> str:
        """The job's id."""
        return self.job.id

    @property
    def task(self) -> str:
        """The task's stored name."""
        return self.job.task

    @property
    def args(self) -> dict[str, Any]:
        """The arguments by parameter name."""
        return self.job.args

    @property
    def scheduled_for(self) -> datetime | None:
        """The tick of the schedule that made the job; None if none did."""
        return self.job.scheduled_for

    def __repr__(self) -> str:
        ended = f"{self.state} ({self.reason})" if self.reason else self.state
        why = f", {self.error_type}: {self.error}" if self.error_type else ""
        return f"<Run {self.task} {ended}, attempts: {', '.join(self.outcomes) or 'none'}{why}>"


@dataclass(frozen=True)
class Record:
    """A stored job as the tester reads it, with its runner."""

    row: JobRow
    attempts: Sequence[AttemptRow]
    owner: Enqueuer

    @property
    def args(self) -> dict[str, Any]:
        """The stored arguments, as plain JSON values."""
        loaded: dict[str, Any] = json.loads(self.row.args)
        return loaded

    def is_of(self, task: Task[..., Any]) -> bool:
        """Return whether the job is one of the task."""
        known = self.owner.parts.tasks.get(self.row.task)
        return known is task.spec or task.spec.is_same(known)

    def job(self) -> Job[Any]:
        """Return the job in its public form, with arguments and history."""
        return job_of(self.row, self.attempts, self.owner.reader, args=self.row.args)

    def run(self, *, after: int = 0) -> Run[Any]:
        """Return what became of the job, without its first ``after`` attempts."""
        row, attempts = self.row, self.attempts[after:]
        last = attempts[-1] if attempts else None
        return Run(
            job=self.job(),
            state=row.state,
            outcomes=[one.outcome or "running" for one in attempts],
            waits=[
                (later.started_at - (earlier.finished_at or later.started_at)) / 1_000_000
                for earlier, later in pairwise(attempts)
            ],
            result=(
                result_in(row, self.owner.parts.tasks)
                if row.state == "succeeded" and row.result_omitted is None
                else None
            ),
            reason=row.reason,
            error_type=None if last is None else last.error_type,
            error=None if last is None else last.error,
        )
