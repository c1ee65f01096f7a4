"""Bodies and filters of the routes of dead letters."""

from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, StrictBool, StrictInt, model_validator

from jobrunner.core.counts import ReplayCounts
from jobrunner.core.dead_letter import DeadLetter
from jobrunner.core.groups import DeadLetterGroup
from jobrunner.core.model import DeadReason
from jobrunner.core.response_models import ResponseModel
from jobrunner.fastapi.api.job_schemas import AttemptBody, BatchOf
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
    check_meant,
)
from jobrunner.queue.filters import DEFAULT_ROWS
from jobrunner.queue.replay import MINUTE_US

Group = Annotated[
    Annotated[str, Field(max_length=200, pattern=r"^[0-9a-f]+$")] | None,
    Field(description="Only dead letters of the group with this `fingerprint`."),
]
Reason = Annotated[DeadReason | None, Field(description="Only dead letters with this reason.")]


class _DeadLetterFilter(RequestModel):
    task: Task = None
    queue: QueueName = None
    reason: Reason = None
    tag: Tag = None
    group: Group = None
    batch: BatchOf = None
    since: Annotated[
        Instant | None, Field(description="Only jobs that died at this time or later.")
    ] = None
    until: Annotated[Instant | None, Field(description="Only jobs that died before this time.")] = (
        None
    )


class DeadLetterQuery(_DeadLetterFilter):
    """Filters of a list of dead letters; a dead letter must match all of them."""

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
        "trace_id",
        "group",
        "batch",
    ),
):
    """A dead letter in a list, with the arguments for a replay."""

    model_config = ConfigDict(title="DeadLetterSummary")


class DeadLetterBody(DeadLetterSummaryBody, of=DeadLetter, shows=("traceback", "history")):
    """A dead letter with its last traceback and its attempts."""

    model_config = ConfigDict(title="DeadLetter")

    history: tuple[AttemptBody, ...] = Field(description="The attempts, oldest first.")


class DeadLetterPageBody(ResponseModel):
    """A page of dead letters, most recent death first."""

    model_config = ConfigDict(title="DeadLetterPage")

    items: list[DeadLetterSummaryBody]
    next_cursor: str | None = Field(
        description="The cursor of the next page; null on the last page."
    )
    complete: bool = Field(description=COMPLETE)


class DeadLetterGroupBody(
    ResponseModel,
    of=DeadLetterGroup,
    shows=(
        "fingerprint",
        "task",
        "error_type",
        "error",
        "count",
        "first_died_at",
        "last_died_at",
        "newest_id",
        "deaths_per_hour",
        "retrying",
        "recent_deaths",
        "deaths_before",
        "since",
    ),
):
    """A group of dead letters that failed in the same way."""

    model_config = ConfigDict(title="DeadLetterGroup")


class DeadLetterGroupsBody(ResponseModel):
    """The groups of dead letters, most recent death first."""

    model_config = ConfigDict(title="DeadLetterGroups")

    items: list[DeadLetterGroupBody] = Field(
        description="At most 200; the groups without a dead letter come last, those with most jobs first."
    )
    ungrouped: int = Field(
        description="Dead letters of an older version that a worker has not grouped yet."
    )
    complete: bool = Field(
        description="False if there are more groups, or counting stopped after about 100 ms or 1,000 jobs that wait for"
        " a retry."
    )


class ReplayBody(RequestModel):
    """Options of a replay; without a body the arguments do not change."""

    model_config = ConfigDict(
        title="Replay",
        json_schema_extra={
            "examples": [{"args": {"email": "ada@example.com"}}, {"forget": ["charge"]}, {}]
        },
    )

    args: dict[str, Any] | None = Field(
        default=None,
        description="The arguments to change, by parameter name; the others keep their values. The replay is then a new"
        " job with a new id, linked to the dead letter. Without changes the same job runs again and keeps its id.",
    )
    forget: list[str] = Field(
        default=[],
        description="The names of steps, signals and waits that the job forgets, and so does again. Not allowed with"
        " changed arguments: a new job has no steps yet.",
    )


class ReplayFilterBody(_DeadLetterFilter):
    """Filters of a replay; a dead letter must match all of them."""

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
        description="Replay every dead letter. Required if there is no filter; not allowed with one.",
    )
    dry_run: StrictBool = Field(
        default=False, description="Only count what would be replayed; replay none."
    )
    per_minute: Annotated[StrictInt, Field(ge=1, le=MINUTE_US)] | None = Field(
        default=None,
        description="The number of jobs that become due per minute, the most recent death first. By default all are due"
        " at once.",
    )

    @model_validator(mode="after")
    def _meant(self) -> Self:
        check_meant(self, _DeadLetterFilter, everything=self.all, what="replay every dead letter")
        return self

    def where(self) -> dict[str, Any]:
        """Return the filters."""
        return self.model_dump(include=set(_DeadLetterFilter.model_fields))


class ReplayedBody(
    ResponseModel, of=ReplayCounts, shows=("replayed", "conflicts", "invalid", "checked")
):
    """The counts of a replay by filter; with `dry_run`, of what would be replayed."""

    model_config = ConfigDict(
        title="Replayed",
        json_schema_extra={
            "examples": [
                {
                    "matched": 13,
                    "replayed": 11,
                    "conflicts": 1,
                    "invalid": 1,
                    "checked": 13,
                    "dry_run": False,
                }
            ]
        },
    )

    matched: int = Field(
        description="The number of dead letters that match; counted up to a million."
    )
    dry_run: bool
