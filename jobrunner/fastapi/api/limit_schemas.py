"""Bodies of the routes of limits; durations are seconds."""

from typing import Annotated, Final

from pydantic import ConfigDict, Field

from jobrunner.core.limits import MAX_LIMIT, MAX_WAITING
from jobrunner.core.response_models import ResponseModel
from jobrunner.fastapi.api.schemas import MOMENT, Limit, RequestModel
from jobrunner.queue.filters import DEFAULT_ROWS
from jobrunner.queue.limits import LimitInfo
from jobrunner.tasks.limits import MAX_KEY_CHARS

MAX_NAME: Final = 200 + MAX_KEY_CHARS + 2
"""The most characters of a lane's name."""
_Count = Annotated[int, Field(ge=1, le=MAX_LIMIT, strict=True)]


class LimitListQuery(RequestModel):
    """The page of a list of limits."""

    limit: Limit = DEFAULT_ROWS
    cursor: Annotated[
        Annotated[str, Field(max_length=MAX_NAME + 1)] | None,
        Field(description="The `next_cursor` of the previous page."),
    ] = None


class RateBody(ResponseModel):
    """A rate: at most so many starts in a time, evenly spaced."""

    model_config = ConfigDict(title="Rate")

    limit: int = Field(description="The number of starts.", examples=[100])
    per: float = Field(description="The time in which so many start, in seconds.", examples=[60])
    burst: int = Field(description="The starts that are allowed at once after a pause.")


class LimitBody(
    ResponseModel,
    of=LimitInfo,
    shows=("scope", "name", "concurrency", "rate_limit", "max_waiting", "set_at"),
):
    """A limit in force."""

    model_config = ConfigDict(
        title="Limit",
        json_schema_extra={
            "examples": [
                {
                    "scope": "task",
                    "name": "sync",
                    "concurrency": 4,
                    "rate_limit": {"limit": 100, "per": 60, "burst": 1},
                    "max_waiting": None,
                    "set_at": MOMENT,
                }
            ]
        },
    )

    rate_limit: RateBody | None = Field(
        description="The most jobs that start in a time; null for no limit."
    )


class LimitPageBody(ResponseModel):
    """A page of limits: of queues and tasks first, then of single lanes."""

    model_config = ConfigDict(title="LimitPage")

    items: list[LimitBody]
    next_cursor: str | None = Field(
        description="The cursor of the next page; null on the last page."
    )


class NewRateBody(RequestModel):
    """A rate to set."""

    model_config = ConfigDict(title="RateNew")

    limit: _Count = Field(description="The number of starts.", examples=[100])
    per: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)] = Field(
        1, description="The time in which so many start, in seconds.", examples=[60]
    )
    burst: _Count = Field(1, description="The starts that are allowed at once after a pause.")


class NewLimitBody(RequestModel):
    """Numbers to set; one that is missing or null does not change."""

    model_config = ConfigDict(
        title="LimitNew",
        json_schema_extra={
            "examples": [{"concurrency": 4}, {"rate_limit": {"limit": 100, "per": 60}}]
        },
    )

    concurrency: _Count | None = Field(None, description="The most jobs that run at a time.")
    rate_limit: NewRateBody | None = Field(None, description="The most jobs that start in a time.")
    max_waiting: Annotated[int, Field(ge=1, le=MAX_WAITING, strict=True)] | None = Field(
        None, description="The most jobs that are due and wait in a queue."
    )
