"""The facts about one job or dead letter, as lines with a name."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from jobrunner.core.clock import from_us
from jobrunner.core.limits import Wait
from jobrunner.core.model import AttemptRow, JobRow
from jobrunner.core.progress import progress_of
from jobrunner.core.workflows import ParkedWait
from jobrunner.fastapi.dashboard import urls, words
from jobrunner.fastapi.dashboard.visit import Visit

REASONS: Final = {
    "exhausted": "out of attempts",
    "buried": "the task gave it up with Bury",
    "not_retryable": "the error is none to retry",
    "lost": "its processes died under it",
    "unknown_task": "no worker knew its task",
    "invalid_args": "its arguments do not fit the task",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One line about a job."""

    name: str
    text: str = ""
    at: datetime | None = None
    note: str = ""
    link: str = ""
    code: bool = False


async def worker_of(visit: Visit, attempts: Sequence[AttemptRow]) -> Fact | None:
    """Return the worker of the last attempt: host, process and revision, or its id if it has left."""
    if not attempts:
        return None
    id, note = attempts[-1].worker, "of the last attempt"
    for one in await visit.parts.store.workers.list():
        if one.worker == id:
            revision = f"revision {one.revision} · " if one.revision is not None else ""
            return Fact("Worker", f"{one.host}:{one.pid}", link="queues", note=revision + note)
    return Fact("Worker", f"{id:x}", code=True, note=f"{note}; it has left")


def facts_of(
    row: JobRow,
    attempts: Sequence[AttemptRow],
    limit: int | None,
    worker: Fact | None,
    wait: Wait | ParkedWait | None,
) -> list[Fact]:
    """Return all facts about a job, in the order of the page."""

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
    if worker is not None:
        facts.append(worker)
    if wait is not None:
        facts.append(Fact("Waits for", wait.text))
    progress = progress_of(row.progress)
    if progress is not None and row.state != "running":
        facts.append(Fact("Progress", str(progress), note="of the last attempt"))
    facts += _ties(row)
    return facts


def _ties(row: JobRow) -> list[Fact]:
    """Return the facts that tie a job to others."""
    facts: list[Fact] = []
    if row.key is not None:
        facts.append(Fact("Key", row.key, code=True))
    if row.tag is not None:
        facts.append(Fact("Tag", row.tag, link=urls.with_query("jobs", {"tag": row.tag})))
    if row.batch is not None:
        facts.append(Fact("Batch", row.batch, link=f"batches/{row.batch}", code=True))
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
