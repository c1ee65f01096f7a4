"""Bodies and filters of the schedules' routes. Durations are seconds."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from jobrunner.core.job import ID
from jobrunner.core.model import Misfire, Overlap
from jobrunner.core.response_models import ResponseModel
from jobrunner.fastapi.api.schemas import (
    MOMENT,
    Cursor,
    Instant,
    Limit,
    Name,
    RequestModel,
    Task,
)
from jobrunner.queue.filters import DEFAULT_ROWS
from jobrunner.queue.schedules import Schedule, ScheduleTick
from jobrunner.tasks.recurrence import MAX_CRON_CHARS, MAX_ZONE_CHARS

Seconds = Annotated[float, Field(allow_inf_nan=False, strict=True, ge=0)]

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


class ScheduleQuery(RequestModel):
    """Which schedules a list means."""

    task: Task = None
    limit: Limit = DEFAULT_ROWS
    cursor: Cursor = None


class ScheduleSummaryBody(
    ResponseModel,
    of=Schedule,
    shows=(
        "id",
        "task",
        "source",
        "description",
        "cron",
        "timezone",
        "every",
        "run_at",
        "misfire",
        "grace",
        "cap",
        "overlap",
        "jitter",
        "start",
        "end",
        "paused",
        "disabled",
        "next_at",
        "last_at",
        "last_job",
        "fired",
        "skipped",
        "revision",
    ),
):
    """A schedule in a list: without its arguments."""

    model_config = ConfigDict(
        title="ScheduleSummary",
        ser_json_timedelta="float",
        json_schema_extra={"examples": [_EXAMPLE]},
    )


class ScheduleBody(ScheduleSummaryBody, of=Schedule, shows=("args",)):
    """A schedule with its arguments."""

    model_config = ConfigDict(
        title="Schedule", json_schema_extra={"examples": [_EXAMPLE | {"args": {}}]}
    )


class SchedulePageBody(ResponseModel):
    """Some schedules by id, and where the next ones are."""

    model_config = ConfigDict(title="SchedulePage")

    items: list[ScheduleSummaryBody]
    next_cursor: str | None = Field(description="For the page after; null on the last one.")


class UpsertBody(RequestModel):
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


class TickBody(ResponseModel, of=ScheduleTick, shows=("at", "until", "count", "outcome", "job")):
    """One tick, or a run of ticks that made no job."""

    model_config = ConfigDict(title="Tick")


class TicksBody(ResponseModel):
    """The ticks of a schedule that are on record, newest first."""

    model_config = ConfigDict(title="Ticks")

    items: list[TickBody]
