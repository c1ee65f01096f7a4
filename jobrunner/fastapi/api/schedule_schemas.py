"""Bodies and filters of the routes of schedules; durations are seconds."""

from typing import Any

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from jobrunner.core.job import ID
from jobrunner.core.response_models import ResponseModel
from jobrunner.core.schedule import Misfire, Overlap
from jobrunner.fastapi.api.schemas import (
    MOMENT,
    Cursor,
    Instant,
    Limit,
    Name,
    RequestModel,
    Seconds,
    Task,
)
from jobrunner.queue.filters import DEFAULT_ROWS
from jobrunner.queue.schedules import Schedule, ScheduleTick
from jobrunner.tasks.recurrence import MAX_CRON_CHARS, MAX_ZONE_CHARS

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
    """Filters of a list of schedules."""

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
    """A schedule in a list, without its arguments."""

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
    """A page of schedules, sorted by id."""

    model_config = ConfigDict(title="SchedulePage")

    items: list[ScheduleSummaryBody]
    next_cursor: str | None = Field(
        description="The cursor of the next page; null on the last page."
    )


class UpsertBody(RequestModel):
    """A schedule to store: exactly one of `cron`, `every` and `run_at`."""

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

    task: Name = Field(description="The stored name of the task.")
    cron: str | None = Field(
        default=None,
        max_length=MAX_CRON_CHARS,
        description="A cron expression: five fields, or a name such as `@daily`.",
    )
    timezone: str | None = Field(
        default=None,
        max_length=MAX_ZONE_CHARS,
        description="The time zone of `cron`; by default the time zone of the runner.",
    )
    every: Seconds | None = Field(
        default=None, description="The seconds between two ticks, at least 1."
    )
    run_at: Instant | None = Field(default=None, description="The time of a single tick.")
    args: dict[str, Any] | list[Any] = Field(
        default_factory=dict, description="The arguments of the jobs, by name or in order."
    )
    misfire: Misfire = Field(
        default="latest",
        description="How missed ticks are handled. `latest`: one job, for the last missed tick. `all`: one job for each"
        " missed tick, at most for the newest `cap`. `skip`: no job for a tick that is later than `grace` (60 seconds"
        " by default).",
    )
    grace: Seconds | None = Field(
        default=None, description="The seconds after which a tick is too late to make a job."
    )
    cap: int = Field(
        default=100, ge=1, le=400, description="The most jobs for missed ticks with `misfire: all`."
    )
    overlap: Overlap = Field(
        default="allow", description="`skip`: no job while a job of the schedule is unfinished."
    )
    jitter: Seconds = Field(
        default=0, description="A job starts up to this many seconds after its tick, at random."
    )
    start: Instant | None = Field(default=None, description="No tick before this time.")
    end: Instant | None = Field(default=None, description="No tick after this time.")


class TickQuery(RequestModel):
    """The part of the ticks that is listed."""

    before: Instant | None = Field(
        default=None,
        description="Only entries with an `at` before this time: the `at` of the last one continues the list.",
    )
    limit: Limit = DEFAULT_ROWS


class TickBody(ResponseModel, of=ScheduleTick, shows=("at", "until", "count", "outcome", "job")):
    """One tick, or a run of ticks that made no job."""

    model_config = ConfigDict(title="Tick")


class TicksBody(ResponseModel):
    """The recorded ticks of a schedule, newest first."""

    model_config = ConfigDict(title="Ticks")

    items: list[TickBody]
