"""The query and the bodies of the statistics route."""

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from jobrunner.core.response_models import ResponseModel
from jobrunner.fastapi.api.schemas import MOMENT, Instant, QueueName, RequestModel, Task
from jobrunner.queue.stats import Stats, StatsBucket
from jobrunner.store.statistics import By, Per


class StatsQueryBody(RequestModel):
    """The window, the grouping and the filters of statistics."""

    model_config = ConfigDict(title="StatsQuery")

    per: Per = Field(
        default="minute",
        description="`minute` reads minutes, which are kept for 6 hours; `hour` hours, which are kept for 30 days.",
    )
    by: By = Field(
        default="time",
        description="A bucket for each minute or hour, each queue or each task.",
    )
    since: Annotated[
        Instant | None,
        Field(
            description="The begin of the window, rounded down to a minute or hour; by default an hour (of hours: a"
            " day) before its end."
        ),
    ] = None
    until: Annotated[
        Instant | None,
        Field(description="The end of the window, rounded up to a minute or hour; by default now."),
    ] = None
    queue: QueueName = None
    task: Task = None


_BUCKET: JsonDict = {
    "start": MOMENT,
    "queue": None,
    "task": None,
    "succeeded": 1200,
    "failed": 3,
    "dead": 0,
    "wait_p50": 0.004,
    "wait_p95": 0.1,
    "run_p50": 0.02,
    "run_p95": 0.3,
}


class StatsBucketBody(
    ResponseModel,
    of=StatsBucket,
    shows=(
        "start",
        "queue",
        "task",
        "succeeded",
        "failed",
        "dead",
        "wait_p50",
        "wait_p95",
        "run_p50",
        "run_p95",
    ),
):
    """The attempts that ended in a minute, an hour or a longer time."""

    model_config = ConfigDict(
        title="StatsBucket",
        ser_json_timedelta="float",
        json_schema_extra={"examples": [_BUCKET]},
    )


class StatsBody(ResponseModel, of=Stats, shows=("per", "by", "since", "until")):
    """The statistics of a window of time."""

    model_config = ConfigDict(
        title="Stats",
        ser_json_timedelta="float",
        json_schema_extra={
            "examples": [
                {
                    "per": "minute",
                    "by": "time",
                    "since": MOMENT,
                    "until": "2026-11-22T08:01:00Z",
                    "total": _BUCKET,
                    "buckets": [_BUCKET],
                }
            ]
        },
    )

    total: StatsBucketBody = Field(description="The sum of the whole window.")
    buckets: tuple[StatsBucketBody, ...] = Field(
        description="By time: one for each minute or hour, oldest first, also where nothing ended. By queue or task:"
        " one for each with something that ended, by name."
    )
