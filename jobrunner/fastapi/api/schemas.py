"""What goes over the wire: bodies and filters of the jobs router.

Requests refuse what they do not know, and what JSON's lax mode would take for something else.  Answers never hold a
job's arguments, but for dead letters, which are edited and replayed.
"""

import re
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    model_validator,
)

from jobrunner.core.job import (
    ID,
    Attempt,
    DeadLetter,
    Health,
    Job,
    JobFields,
    Payload,
    QueueInfo,
    WorkerInfo,
)
from jobrunner.core.model import DeadReason
from jobrunner.core.response_models import ResponseModel

FOLLOWER_ID = "01936d2c-7a40-7c3e-9d55-7a1d2e3f4b5c"
MOMENT = "2026-11-22T08:00:00Z"

PAGE_LIMIT = 200
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
Key = Annotated[
    Annotated[str, Field(max_length=500, pattern=NO_CONTROLS)] | None,
    Field(description="Only with this key."),
]
Reason = Annotated[DeadReason | None, Field(description="Only those that died of this.")]
Cursor = Annotated[
    Annotated[str, Field(max_length=500)] | None,
    Field(description="`next_cursor` of the page before."),
]
Limit = Annotated[int, Field(ge=1, le=PAGE_LIMIT, description="Entries on a page, at most.")]


class RequestModel(BaseModel):
    """A query or a body that refuses fields it does not know."""

    model_config = ConfigDict(extra="forbid")


# -- jobs ---------------------------------------------------------------------------------------------


class JobQuery(RequestModel):
    """Which jobs a list means: those to which everything given applies."""

    task: Task = None
    queue: QueueName = None
    state: Annotated[
        Literal["scheduled", "queued", "running", "blocked", "succeeded", "cancelled", "expired"]
        | None,
        Field(
            description="Only in this state. `blocked` ones wait for the job before them in a chain. Dead jobs are"
            " listed as dead letters."
        ),
    ] = None
    tag: Tag = None
    key: Key = None
    since: Annotated[
        Instant | None, Field(description="Only created at this instant or later.")
    ] = None
    until: Annotated[Instant | None, Field(description="Only created before this instant.")] = None
    limit: Limit = 50
    cursor: Cursor = None


class AttemptBody(
    ResponseModel,
    of=Attempt,
    shows=(
        "attempt",
        "started_at",
        "finished_at",
        "outcome",
        "error_type",
        "error",
        "traceback",
        "worker",
    ),
):
    """One run of a job."""

    model_config = ConfigDict(title="Attempt")

    worker: Number = Field(description="The process that ran it.", examples=["4611686018427387905"])


class JobSummaryBody(
    JobFields,
    of=Job,
    shows=("key", "tag", "replay_of", "replays", "schedule", "scheduled_for", "chain", "after"),
):
    """A job in a list: never its arguments."""

    model_config = ConfigDict(
        title="JobSummary",
        json_schema_extra={
            "examples": [
                {
                    "id": ID,
                    "task": "send_welcome_email",
                    "queue": "mail",
                    "state": "queued",
                    "run_at": MOMENT,
                    "created_at": MOMENT,
                    "attempt": 0,
                    "key": None,
                    "tag": "sign-up",
                    "replay_of": None,
                    "replays": 0,
                    "schedule": None,
                    "scheduled_for": None,
                    "chain": None,
                    "after": None,
                },
                {
                    "id": FOLLOWER_ID,
                    "task": "notify_warehouse",
                    "queue": "default",
                    "state": "blocked",
                    "run_at": MOMENT,
                    "created_at": MOMENT,
                    "attempt": 0,
                    "key": None,
                    "tag": None,
                    "replay_of": None,
                    "replays": 0,
                    "schedule": None,
                    "scheduled_for": None,
                    "chain": ID,
                    "after": ID,
                },
            ]
        },
    )


class JobDetailBody(JobSummaryBody):
    """A job with its attempts: never its arguments."""

    # The parent's example would lack the history.
    model_config = ConfigDict(title="JobDetail", json_schema_extra={})

    history: tuple[AttemptBody, ...] = Field(description="Its attempts, oldest first.")


class JobArgumentsBody(
    ResponseModel, of=Payload, shows=("id", "task", "args", "result", "result_omitted")
):
    """What a job was given and what it returned, as plain JSON values."""

    model_config = ConfigDict(title="JobArguments")


class JobPageBody(ResponseModel):
    """Some jobs, newest first, and where the next ones are."""

    model_config = ConfigDict(title="JobPage")

    items: list[JobSummaryBody]
    next_cursor: str | None = Field(description="For the page after; null on the last one.")
    complete: bool = Field(description=COMPLETE)


class CancelledBody(ResponseModel):
    """What a cancel did."""

    model_config = ConfigDict(
        title="Cancelled", json_schema_extra={"examples": [{"cancelled": True}]}
    )

    cancelled: bool = Field(
        description="True if the job will not run, or was running and has been asked to stop;"
        " false if it had finished or died before. Those behind it in its chain are cancelled with it."
    )


# -- dead letters -------------------------------------------------------------------------------------


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

    limit: Limit = 50
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


# -- queues and health --------------------------------------------------------------------------------


class QueueBody(
    ResponseModel,
    of=QueueInfo,
    shows=(
        "name",
        "slots",
        "paused",
        "queued",
        "scheduled",
        "blocked",
        "running",
        "oldest_due_at",
        "complete",
    ),
):
    """One queue, over all workers of the store."""

    model_config = ConfigDict(title="Queue")


class QueuesBody(ResponseModel):
    """Every queue that has jobs, slots or a pause."""

    model_config = ConfigDict(title="Queues")

    items: list[QueueBody]


class PausedBody(ResponseModel):
    """Whether a queue is paused now."""

    model_config = ConfigDict(
        title="Paused", json_schema_extra={"examples": [{"name": "mail", "paused": True}]}
    )

    name: str
    paused: bool = Field(description="While paused, none of its jobs starts; running ones go on.")


class WorkerBody(
    ResponseModel,
    of=WorkerInfo,
    shows=("id", "pid", "host", "started_at", "beat_at", "stalled", "queues"),
):
    """One process that runs jobs on the store."""

    model_config = ConfigDict(title="Worker")

    id: Number = Field(examples=["4611686018427387905"])


class HealthBody(
    ResponseModel,
    of=Health,
    shows=(
        "status",
        "problems",
        "ready",
        "working",
        "running",
        "stuck_threads",
        "unknown_tasks",
        "workers",
        "version",
    ),
):
    """Whether the promises are being kept just now, and what stands in the way."""

    model_config = ConfigDict(
        title="Health",
        json_schema_extra={
            "examples": [
                {
                    "status": "ok",
                    "problems": [],
                    "ready": True,
                    "working": True,
                    "running": 2,
                    "stuck_threads": [],
                    "unknown_tasks": {},
                    "workers": [],
                    "version": "0.1.0",
                }
            ]
        },
    )

    workers: tuple[WorkerBody, ...]
