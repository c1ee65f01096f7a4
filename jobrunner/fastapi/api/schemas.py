"""Types that the bodies and filters of the jobs router share.

Requests refuse unknown fields, and values that Pydantic's lax mode would convert to something else.  Responses do not
hold a job's arguments, except for dead letters, which people edit and replay.
"""

import re
from datetime import datetime
from typing import Annotated

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)

from jobrunner.queue.filters import MOST_ROWS

MOMENT = "2026-11-22T08:00:00Z"

COMPLETE = (
    "False if the search stopped early, so that the page has fewer entries than `limit`, or none. Follow `next_cursor`"
    " to continue. A page ends after about 100 ms if few of many entries match."
)


def _written_as_iso(value: object) -> object:
    # Pydantic would read 20261122 as seconds since 1970, which is another day.
    if not isinstance(value, datetime | str) or (
        isinstance(value, str) and not re.match(r"\d{4}-\d\d-\d\d", value)
    ):
        raise ValueError(
            f"write the time as ISO 8601 with its offset from UTC, as in {MOMENT} (in a URL, + is %2B)"
        )
    return value


Instant = Annotated[AwareDatetime, BeforeValidator(_written_as_iso)]
Name = Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z_][A-Za-z0-9_.:-]*$")]
"""A valid name of a task or a queue; a filter with any other name could match nothing."""
NO_CONTROLS = r"^[^\x00-\x1f\x7f-\x9f]+$"
Number = Annotated[str, BeforeValidator(str)]
"""The 63-bit number of a worker, as text: JavaScript keeps only 53 bits of a number."""

Task = Annotated[Name | None, Field(description="Only entries of this task (its stored name).")]
QueueName = Annotated[Name | None, Field(description="Only entries of this queue.")]
Tag = Annotated[
    Annotated[str, Field(max_length=200, pattern=NO_CONTROLS)] | None,
    Field(description="Only entries with this tag."),
]
Cursor = Annotated[
    Annotated[str, Field(max_length=500)] | None,
    Field(description="The `next_cursor` of the previous page."),
]
Seconds = Annotated[float, Field(allow_inf_nan=False, strict=True, ge=0)]
Limit = Annotated[int, Field(ge=1, le=MOST_ROWS, description="The most entries on a page.")]


class RequestModel(BaseModel):
    """A query or a body that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid")


def check_meant(body: BaseModel, filters: type[BaseModel], *, everything: bool, what: str) -> None:
    """Check that a body has either a filter or ``all``.

    So nobody means all by mistake.

    Args:
        body: the body.
        filters: the model with the fields that are filters.
        everything: the body's ``all``.
        what: the effect of ``all``, for the error.

    Raises:
        ValueError: The body has both or neither.
    """
    filtered = any(getattr(body, name) is not None for name in filters.model_fields)
    if everything and filtered:
        raise ValueError('either a filter or {"all": true}, not both')
    if not everything and not filtered:
        raise ValueError(f'no filter given: to {what}, say {{"all": true}}')
