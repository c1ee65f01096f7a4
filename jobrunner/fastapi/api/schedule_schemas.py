"""What goes over the wire about schedules. Durations are seconds."""

from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict

from jobrunner.core.model import Misfire, Overlap, ScheduleSource, TickOutcome
from jobrunner.fastapi.api.schemas import (
    ID,
    MOMENT,
    Answer,
    Cursor,
    Instant,
    Limit,
    Name,
    Request,
    Task,
)
from jobrunner.queue.filters import DEFAULT_ROWS
from jobrunner.tasks.recurrence import MAX_CRON_CHARS, MAX_ZONE_CHARS


def _seconds(value: object) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else value


Seconds = Annotated[float, Field(allow_inf_nan=False, strict=True, ge=0)]
InSeconds = Annotated[float, BeforeValidator(_seconds)]

_EXAMPLE: JsonDict = {
    "id": "daily_report",
    "task": "daily_report",
    "source": "code",
    "description": "At 08:00 every day (Europe/Berlin)",
    "cron": "0 8 * * *",
    "timezone": "Europe/Berlin",
    "every": None,
    "run_at": None,
    "misfire": "latest",
    "grace": None,
    "cap": 100,
    "overlap": "allow",
    "jitter": 0,
    "start": None,
    "end": None,
    "paused": False,
    "disabled": False,
    "next_at": MOMENT,
    "last_at": "2026-11-21T08:00:00Z",
    "last_job": ID,
    "fired": 41,
    "skipped": 1,
    "revision": 0,
}


class ScheduleQuery(Request):
    """Which schedules a list means."""

    task: Task = None
    limit: Limit = DEFAULT_ROWS
    cursor: Cursor = None


class ScheduleSummaryBody(Answer):
    """A schedule in a list: without its arguments."""

    model_config = ConfigDict(title="ScheduleSummary", json_schema_extra={"examples": [_EXAMPLE]})

    id: str
    task: str = Field(description="The task's stored name.")
    source: ScheduleSource = Field(
        description="`code`: it stands above a task. `stored`: it was made at run time."
    )
    description: str = Field(description="When it ticks, in English.")
    cron: str | None
    timezone: str | None
    every: InSeconds | None = Field(description="Seconds between two ticks.")
    run_at: datetime | None = Field(description="Its only tick.")
    misfire: Misfire = Field(description="What becomes of ticks that were missed.")
    grace: InSeconds | None = Field(
        description="Seconds after which a tick is too late to make a job; null for never."
    )
    cap: int = Field(description="With `all`: how many missed ticks make a job, at most.")
    overlap: Overlap = Field(
        description="`skip`: a tick makes no job while one of the schedule's is unfinished."
    )
    jitter: InSeconds = Field(description="Seconds within which a job starts after its tick.")
    start: datetime | None
    end: datetime | None
    paused: bool
    disabled: bool = Field(description="It stood in the code, and stands there no more.")
    next_at: datetime | None = Field(
        description="The next tick; null while it is paused or disabled, and when none is to come."
    )
    last_at: datetime | None = Field(description="The last tick that made a job.")
    last_job: str | None = Field(description="That job's id.")
    fired: int = Field(description="Ticks that have made a job.")
    skipped: int = Field(description="Ticks that have made none.")
    revision: int = Field(description="Of the application that declared it.")


class ScheduleBody(ScheduleSummaryBody):
    """A schedule with its arguments."""

    model_config = ConfigDict(
        title="Schedule", json_schema_extra={"examples": [_EXAMPLE | {"args": {}}]}
    )

    args: dict[str, Any] = Field(description="What its jobs are called with, by parameter name.")


class SchedulePageBody(Answer):
    """Some schedules by id, and where the next ones are."""

    model_config = ConfigDict(title="SchedulePage")

    items: list[ScheduleSummaryBody]
    next_cursor: str | None = Field(description="For the page after; null on the last one.")


class UpsertBody(Request):
    """What a schedule is to do: one of `cron`, `every` and `run_at`, and what differs from the defaults."""

    model_config = ConfigDict(
        title="ScheduleUpsert",
        json_schema_extra={
            "examples": [
                {"task": "send_reminder", "cron": "0 8 * * 1-5", "timezone": "Europe/Berlin"},
                {"task": "send_reminder", "every": 300, "overlap": "skip"},
                {"task": "send_reminder", "run_at": MOMENT, "args": {"email": "ada@example.org"}},
            ]
        },
    )

    task: Name = Field(description="The task's stored name.")
    cron: str | None = Field(
        default=None,
        max_length=MAX_CRON_CHARS,
        description="Five fields, or `@daily` and its kin.",
    )
    timezone: str | None = Field(
        default=None,
        max_length=MAX_ZONE_CHARS,
        description="Of `cron`; the runner's if not given.",
    )
    every: Seconds | None = Field(default=None, description="Seconds, 1 at least.")
    run_at: Instant | None = Field(default=None, description="To tick once.")
    args: dict[str, Any] | list[Any] = Field(
        default_factory=dict, description="What its jobs are called with, by name or in order."
    )
    misfire: Misfire = Field(
        default="latest",
        description="What becomes of ticks that were missed: `latest` makes one job, for the last of them; `all` one"
        " for each, the newest `cap` at most; `skip` none for a tick later than `grace` (60 seconds if not given).",
    )
    grace: Seconds | None = Field(
        default=None, description="Seconds after which a tick is too late to make a job."
    )
    cap: int = Field(default=100, ge=1, le=400)
    overlap: Overlap = Field(
        default="allow", description="`skip`: no job while one of the schedule's is unfinished."
    )
    jitter: Seconds = Field(
        default=0, description="Seconds within which a job starts after its tick, by chance."
    )
    start: Instant | None = Field(default=None, description="No tick before it.")
    end: Instant | None = Field(default=None, description="No tick after it.")


class TickBody(Answer):
    """One tick, or a run of ticks that made no job."""

    model_config = ConfigDict(title="Tick")

    at: datetime = Field(examples=[MOMENT])
    until: datetime = Field(description="The last of the run; the tick itself if it is one.")
    count: int = Field(
        description="How many; an estimate where there were more than 20,000.", examples=[1]
    )
    outcome: TickOutcome = Field(
        description="`fired` made a job. None was made because a later tick stands for it (`missed`), its grace was"
        " over (`late`), a job of the schedule was unfinished (`overlap`) or an unfinished job held its key (`key`)."
    )
    job: str | None = Field(description="The id of the job that it made.")


class TicksBody(Answer):
    """The ticks of a schedule that are on record, newest first."""

    model_config = ConfigDict(title="Ticks")

    items: list[TickBody]
