"""The types that bodies and filters of the jobs router have in common.

Requests refuse fields that they do not know, and values that JSON's lax mode would take for something else.  Responses
never hold a job's arguments, but for dead letters, which are edited and replayed.
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
    "False if looking stopped early, so that there are fewer entries than `limit`, perhaps none: `next_cursor` goes on"
    " from there. Where few of many entries fit, a page ends after about 100 ms."
)


def _written_as_iso(value: object) -> object:
    # Pydantic would read 20261122 as seconds since 1970, and so quietly mean another day.
    if not isinstance(value, datetime | str) or (
        isinstance(value, str) and not re.match(r"\d{4}-\d\d-\d\d", value)
    ):
        raise ValueError(
            f"write the time as ISO 8601 with its offset from UTC, as in {MOMENT} (in a URL, + is %2B)"
        )
    return value


Instant = Annotated[AwareDatetime, BeforeValidator(_written_as_iso)]
Name = Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z_][A-Za-z0-9_.:-]*$")]
"""What a task or a queue can be called; nothing else is stored, so nothing else is worth looking for."""
NO_CONTROLS = r"^[^\x00-\x1f\x7f-\x9f]+$"
Number = Annotated[str, BeforeValidator(str)]
"""A worker's 63-bit number: as text, since JavaScript's numbers end at 53 bits."""

Task = Annotated[Name | None, Field(description="Only of this task, by its stored name.")]
QueueName = Annotated[Name | None, Field(description="Only of this queue.")]
Tag = Annotated[
    Annotated[str, Field(max_length=200, pattern=NO_CONTROLS)] | None,
    Field(description="Only with this tag."),
]
Cursor = Annotated[
    Annotated[str, Field(max_length=500)] | None,
    Field(description="`next_cursor` of the page before."),
]
Limit = Annotated[int, Field(ge=1, le=MOST_ROWS, description="Entries on a page, at most.")]


class RequestModel(BaseModel):
    """A query or a body that refuses fields it does not know."""

    model_config = ConfigDict(extra="forbid")
