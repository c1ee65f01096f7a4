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

from jobrunner.core.job import CancelStatus, JobFields
from jobrunner.core.model import AttemptOutcome, DeadReason, State
from jobrunner.queue.filters import DEFAULT_ROWS, MOST_ROWS

ID = "01936d2c-7a40-7c3e-9d55-6f0c1d2e3f4a"
FOLLOWER_ID = "01936d2c-7a40-7c3e-9d55-7a1d2e3f4b5c"
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
Key = Annotated[
    Annotated[str, Field(max_length=500, pattern=NO_CONTROLS)] | None,
    Field(description="Only with this key."),
]
Reason = Annotated[DeadReason | None, Field(description="Only those that died of this.")]
Cursor = Annotated[
    Annotated[str, Field(max_length=500)] | None,
    Field(description="`next_cursor` of the page before."),
]
Limit = Annotated[int, Field(ge=1, le=MOST_ROWS, description="Entries on a page, at most.")]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Answer(BaseModel):
    model_config = ConfigDict(from_attributes=True)


# -- jobs ---------------------------------------------------------------------------------------------


class JobQuery(Request):
    """Which jobs a list means: those to which everything given applies."""

    task: Task = None
    queue: QueueName = None
    state: Annotated[
        State | None,
        Field(
            description="Only in this state. `blocked` ones wait for the job before them in a chain. Dead jobs are"
            " listed with `dead` alone, last died first; `since` and `until` are then about their death."
        ),
    ] = None
    tag: Tag = None
    key: Key = None
    since: Annotated[
        Instant | None, Field(description="Only created at this instant or later.")
    ] = None
    until: Annotated[Instant | None, Field(description="Only created before this instant.")] = None
    limit: Limit = DEFAULT_ROWS
    cursor: Cursor = None


class AttemptBody(Answer):
    """One run of a job."""

    model_config = ConfigDict(title="Attempt")

    attempt: int = Field(
        description="1 for the first run; a replay begins again at 1.", examples=[1]
    )
    started_at: datetime
    finished_at: datetime | None = Field(description="Null while it runs.")
    outcome: AttemptOutcome | None = Field(description="How it ended; null while it runs.")
    error_type: str | None = Field(examples=["smtplib.SMTPServerDisconnected"])
    error: str | None = Field(examples=["Connection unexpectedly closed"])
    traceback: str | None = Field(description="Cut where it is very long.")
    worker: Number = Field(description="The process that ran it.", examples=["4611686018427387905"])


class JobSummaryBody(JobFields):
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

    key: str | None = Field(
        description="While the job is unfinished, no other of its task has this key."
    )
    tag: str | None
    replay_of: str | None = Field(
        description="The dead letter that it replays with other arguments."
    )
    replays: int = Field(description="How often it was put back from the dead letters.")
    schedule: str | None = Field(description="The schedule that made it.")
    scheduled_for: datetime | None = Field(description="The tick that it was made for.")
    chain: str | None = Field(
        description="The id of the first job of its chain; null if it is in none."
    )
    after: str | None = Field(
        description="The job before it in the chain: while it is `blocked` it waits for that one, later it followed it."
    )


class JobDetailBody(JobSummaryBody):
    """A job with its attempts: never its arguments."""

    # The parent's example would lack the history.
    model_config = ConfigDict(title="JobDetail", json_schema_extra={})

    history: tuple[AttemptBody, ...] = Field(description="Its attempts, oldest first.")


class JobArgumentsBody(Answer):
    """What a job was given and what it returned, as plain JSON values."""

    model_config = ConfigDict(title="JobArguments")

    id: str = Field(examples=[ID])
    task: str = Field(examples=["send_welcome_email"])
    args: dict[str, Any] = Field(
        description="The arguments by parameter name; defaults that were left to the function are not among them.",
        examples=[{"email": "ada@example.org", "username": "ada"}],
    )
    result: Any = Field(description="What the task returned; null while there is none.")
    result_omitted: str | None = Field(
        description="Why the result could not be kept, if it could not."
    )


class JobPageBody(Answer):
    """Some jobs, newest first, and where the next ones are."""

    model_config = ConfigDict(title="JobPage")

    items: list[JobSummaryBody]
    next_cursor: str | None = Field(description="For the page after; null on the last one.")
    complete: bool = Field(description=COMPLETE)


class CancelledBody(Answer):
    """What a cancel did."""

    model_config = ConfigDict(
        title="Cancelled", json_schema_extra={"examples": [{"status": "cancelled"}]}
    )

    status: CancelStatus | None = Field(
        description="`cancelled` if the job waited, and will not run; `requested` if it runs, and has been asked to"
        " stop; null if it had finished or died before. Those behind it in its chain are cancelled with it."
    )


# -- dead letters -------------------------------------------------------------------------------------


class _DeadLetterFilter(Request):
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


class DeadLetterSummaryBody(Answer):
    """A dead letter in a list, with the arguments that a replay would run with."""

    model_config = ConfigDict(title="DeadLetterSummary")

    id: str = Field(description="The job's id.", examples=[ID])
    task: str = Field(examples=["send_welcome_email"])
    queue: str = Field(examples=["mail"])
    reason: DeadReason = Field(description="Why it will not run again by itself.")
    error_type: str | None = Field(examples=["smtplib.SMTPRecipientsRefused"])
    error: str | None = Field(examples=["550 no such user"])
    args: dict[str, Any] = Field(
        description="The arguments by parameter name.",
        examples=[{"email": "ada@example.org", "username": "ada"}],
    )
    attempt: int = Field(description="Runs in its last life.", examples=[5])
    created_at: datetime
    died_at: datetime
    key: str | None
    tag: str | None
    replays: int = Field(description="How often it was put back before.", examples=[0])
    replay_of: str | None = Field(
        description="The dead letter that it replayed with other arguments."
    )
    replayed_as: str | None = Field(description="The job that replays it with other arguments.")
    chain: str | None = Field(
        description="The id of the first job of its chain; null if it is in none. What waited behind it was let go when"
        " it died."
    )
    after: str | None = Field(description="The job before it in the chain.")


class DeadLetterBody(DeadLetterSummaryBody):
    """A dead letter, whole."""

    model_config = ConfigDict(title="DeadLetter")

    traceback: str | None = Field(description="Of its last attempt; cut where it is very long.")
    history: tuple[AttemptBody, ...] = Field(description="Its attempts, oldest first.")


class DeadLetterPageBody(Answer):
    """Some dead letters, last died first, and where the next ones are."""

    model_config = ConfigDict(title="DeadLetterPage")

    items: list[DeadLetterSummaryBody]
    next_cursor: str | None = Field(description="For the page after; null on the last one.")
    complete: bool = Field(description=COMPLETE)


class ReplayBody(Request):
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


class ReplayedBody(Answer):
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


class QueueBody(Answer):
    """One queue, over all workers of the store."""

    model_config = ConfigDict(title="Queue")

    name: str = Field(examples=["mail"])
    slots: int = Field(
        description="Slots of the workers that are alive; 0 if none serves the queue.",
        examples=[50],
    )
    paused: bool = Field(examples=[False])
    queued: int = Field(description="Jobs that could start now.", examples=[3])
    scheduled: int = Field(description="Jobs that wait for their time.", examples=[120])
    blocked: int = Field(
        description="Jobs that wait for the one before them in a chain.", examples=[4]
    )
    running: int = Field(examples=[2])
    oldest_due_at: datetime | None = Field(
        description="Since when the longest-waiting queued job is due."
    )
    complete: bool = Field(
        description="False if counting stopped, at 10,000 or when it took too long: there are at least so many"
        " `queued`, `scheduled` and `blocked`.",
        examples=[True],
    )


class QueuesBody(Answer):
    """Every queue that has jobs, slots or a pause."""

    model_config = ConfigDict(title="Queues")

    items: list[QueueBody]


class PausedBody(Answer):
    """Whether a queue is paused now."""

    model_config = ConfigDict(
        title="Paused", json_schema_extra={"examples": [{"name": "mail", "paused": True}]}
    )

    name: str
    paused: bool = Field(description="While paused, none of its jobs starts; running ones go on.")


class WorkerBody(Answer):
    """One process that runs jobs on the store."""

    model_config = ConfigDict(title="Worker")

    id: Number = Field(examples=["4611686018427387905"])
    pid: int
    host: str
    started_at: datetime
    beat_at: datetime = Field(description="When its loop was last seen to turn.")
    stalled: bool = Field(description="Alive, but its loop has not turned for half a minute.")
    queues: dict[str, int] = Field(description="Its slots by queue.", examples=[{"default": 20}])


class HealthBody(Answer):
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

    status: Literal["ok", "degraded", "stopping", "failed"] = Field(
        description="`degraded`: jobs are safe, but something needs a look. `failed`: this worker has stopped."
    )
    problems: tuple[str, ...] = Field(description="One sentence each.")
    ready: bool = Field(
        description="Whether this process should be sent work: not stopping, not failed, and its rounds get written."
    )
    working: bool = Field(description="Whether this process runs jobs.")
    running: int = Field(description="Attempts under way in this process.")
    stuck_threads: tuple[str, ...] = Field(
        description="Timed-out `def` attempts whose thread has not ended, as `task job-id`."
    )
    unknown_tasks: dict[str, datetime] = Field(
        description="Tasks with waiting jobs that no live worker knows, and since when the oldest is due."
    )
    workers: tuple[WorkerBody, ...]
    version: str
