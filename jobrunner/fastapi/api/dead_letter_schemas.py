"""Bodies and filters of the dead letters' routes."""

from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, StrictBool, model_validator

from jobrunner.core.job import DeadLetter
from jobrunner.core.model import DeadReason
from jobrunner.core.response_models import ResponseModel
from jobrunner.fastapi.api.job_schemas import AttemptBody
from jobrunner.fastapi.api.schemas import (
    COMPLETE,
    MOMENT,
    Cursor,
    Instant,
    Limit,
    QueueName,
    RequestModel,
    Tag,
    Task,
)
from jobrunner.queue.filters import DEFAULT_ROWS

Reason = Annotated[DeadReason | None, Field(description="Only those that died of this.")]


class _DeadLetterFilter(RequestModel):
    task: Task = None
    queue: QueueName = None
    reason: Reason = None
    tag: Tag = None
    since: Annotated[Instant | None, Field(description="Only died at this instant or later.")] = (
        None
    )
    until: Annotated[Instant | None, Field(description="Only died before this instant.")] = None


class DeadLetterQuery(_DeadLetterFilter):
    """Which dead letters a list means: those to which everything given applies."""

    limit: Limit = DEFAULT_ROWS
    cursor: Cursor = None


class DeadLetterSummaryBody(
    ResponseModel,
    of=DeadLetter,
    shows=(
        "id",
        "task",
        "queue",
        "reason",
        "error_type",
        "error",
        "args",
        "attempt",
        "created_at",
        "died_at",
        "key",
        "tag",
        "replays",
        "replay_of",
        "replayed_as",
        "chain",
        "after",
    ),
):
    """A dead letter in a list, with the arguments that a replay would run with."""

    model_config = ConfigDict(title="DeadLetterSummary")


class DeadLetterBody(DeadLetterSummaryBody, of=DeadLetter, shows=("traceback", "history")):
    """A dead letter, whole."""

    model_config = ConfigDict(title="DeadLetter")

    history: tuple[AttemptBody, ...] = Field(description="Its attempts, oldest first.")


class DeadLetterPageBody(ResponseModel):
    """Some dead letters, last died first, and where the next ones are."""

    model_config = ConfigDict(title="DeadLetterPage")

    items: list[DeadLetterSummaryBody]
    next_cursor: str | None = Field(description="For the page after; null on the last one.")
    complete: bool = Field(description=COMPLETE)


class ReplayBody(RequestModel):
    """How to replay a dead letter; nothing at all means as it was."""

    model_config = ConfigDict(
        title="Replay",
        json_schema_extra={"examples": [{"args": {"email": "ada@example.com"}}, {}]},
    )

    args: dict[str, Any] | None = Field(
        default=None,
        description="Arguments to change, by parameter name; the others stay. The replay is then a new job, with"
        " a new id, linked to the dead letter. Without changes the same job runs again, under its own id.",
    )


class ReplayFilterBody(_DeadLetterFilter):
    """Which dead letters to replay: those to which everything given applies."""

    model_config = ConfigDict(
        title="ReplayFilter",
        json_schema_extra={
            "examples": [
                {"task": "send_welcome_email", "reason": "exhausted", "dry_run": True},
                {"since": MOMENT},
                {"all": True},
            ]
        },
    )

    all: StrictBool = Field(
        default=False,
        description="Every dead letter; it has to be said, and takes no filter beside it.",
    )
    dry_run: StrictBool = Field(default=False, description="Only count them.")

    @model_validator(mode="after")
    def _meant(self) -> Self:
        filtered = any(getattr(self, name) is not None for name in _DeadLetterFilter.model_fields)
        if self.all and filtered:
            raise ValueError('either a filter or {"all": true}, not both')
        if not self.all and not filtered:
            raise ValueError('no filter given: to replay every dead letter, say {"all": true}')
        return self


class ReplayedBody(ResponseModel):
    """What a replay by filter did."""

    model_config = ConfigDict(
        title="Replayed",
        json_schema_extra={"examples": [{"matched": 12, "replayed": 11, "dry_run": False}]},
    )

    matched: int = Field(description="Dead letters that the filter met; counted up to a million.")
    replayed: int = Field(
        description="Of these, put back; those whose key an unfinished job holds stay where they are."
    )
    dry_run: bool
