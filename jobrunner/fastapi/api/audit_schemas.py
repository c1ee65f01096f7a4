"""Bodies and filters of the route of the audit log."""

from typing import Annotated

from pydantic import ConfigDict, Field

from jobrunner.core.audit import Action, AuditEntry
from jobrunner.core.response_models import ResponseModel
from jobrunner.fastapi.api.schemas import COMPLETE, Cursor, Limit, RequestModel
from jobrunner.queue.filters import DEFAULT_ROWS


class AuditQuery(RequestModel):
    """Filters of the audit log; an entry must match all of them."""

    actor: Annotated[
        Annotated[str, Field(max_length=500)] | None, Field(description="Only acts of this actor.")
    ] = None
    action: Annotated[Action | None, Field(description="Only acts of this kind.")] = None
    limit: Limit = DEFAULT_ROWS
    cursor: Cursor = None


class AuditEntryBody(
    ResponseModel,
    of=AuditEntry,
    shows=("id", "at", "actor", "action", "target", "filter", "count", "reason"),
):
    """One act of an operator."""

    model_config = ConfigDict(title="AuditEntry")


class AuditPageBody(ResponseModel):
    """A page of the audit log, newest first."""

    model_config = ConfigDict(title="AuditPage")

    items: list[AuditEntryBody]
    next_cursor: str | None = Field(
        description="The cursor of the next page; null on the last page."
    )
    complete: bool = Field(description=COMPLETE)
