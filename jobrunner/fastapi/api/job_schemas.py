"""Bodies and filters of the routes of jobs."""

from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, StrictBool, model_validator

from jobrunner.core.attempt import Attempt
from jobrunner.core.counts import CancelCounts, RescheduleCounts
from jobrunner.core.job import ID, CancelStatus, Job, JobFields, Payload, Step
from jobrunner.core.progress import Progress
from jobrunner.core.response_models import ResponseModel
from jobrunner.fastapi.api.schemas import (
    COMPLETE,
    MOMENT,
    NO_CONTROLS,
    Cursor,
    Instant,
    Limit,
    Number,
    QueueName,
    RequestModel,
    Seconds,
    Tag,
    Task,
    check_meant,
)
from jobrunner.queue.filters import DEFAULT_ROWS, CancelState, ListState, WaitingState

FOLLOWER_ID = "01936d2c-7a40-7c3e-9d55-7a1d2e3f4b5c"

Key = Annotated[
    Annotated[str, Field(max_length=500, pattern=NO_CONTROLS)] | None,
    Field(description="Only jobs with this key."),
]


BatchOf = Annotated[
    Annotated[str, Field(max_length=100, pattern=r"^[0-9a-fA-F-]+$")] | None,
    Field(description="Only members of the batch with this id."),
]


class JobQuery(RequestModel):
    """Filters of a list of jobs; a job must match all of them."""

    task: Task = None
    queue: QueueName = None
    state: Annotated[
        ListState | None,
        Field(
            description="Only jobs in this state. A `blocked` job waits for the previous one in its chain. `retrying`"
            " are the scheduled ones that wait for another attempt. Dead jobs are listed only with `dead`, most recent"
            " death first; `since` and `until` then filter by time of death."
        ),
    ] = None
    tag: Tag = None
    key: Key = None
    batch: BatchOf = None
    since: Annotated[
        Instant | None, Field(description="Only jobs created at this time or later.")
    ] = None
    until: Annotated[Instant | None, Field(description="Only jobs created before this time.")] = (
        None
    )
    limit: Limit = DEFAULT_ROWS
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


class ProgressBody(ResponseModel, of=Progress, shows=("done", "total", "message")):
    """The last report of a job's last attempt."""

    model_config = ConfigDict(title="Progress")


class JobSummaryBody(
    JobFields,
    of=Job,
    shows=(
        "key",
        "tag",
        "replay_of",
        "replays",
        "schedule",
        "scheduled_for",
        "chain",
        "after",
        "trace_id",
        "batch",
        "progress",
        "waits",
    ),
):
    """A job in a list, without its arguments."""

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
                    "trace_id": "0af7651916cd43dd8448eb211c80319c",
                    "batch": None,
                    "progress": None,
                    "waits": None,
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
                    "trace_id": None,
                    "batch": None,
                    "progress": None,
                    "waits": None,
                },
            ]
        },
    )

    progress: ProgressBody | None = Field(
        description="The last report of its last attempt; null if there is none."
    )


class StepBody(ResponseModel, of=Step, shows=("kind", "name", "at", "timed_out")):
    """A memo of a step, wait, signal, batch or cursor, without its value."""

    model_config = ConfigDict(title="Step")


class JobDetailBody(JobSummaryBody):
    """A job with its attempts and steps, without its arguments."""

    # The example of the parent has no history.
    model_config = ConfigDict(title="JobDetail", json_schema_extra={})

    history: tuple[AttemptBody, ...] = Field(description="The attempts, oldest first.")
    steps: tuple[StepBody, ...] = Field(
        description="What its task has stored with `job.step` and the like, oldest first, without values."
    )


class JobArgumentsBody(
    ResponseModel, of=Payload, shows=("id", "task", "args", "result", "result_omitted", "steps")
):
    """The arguments, the result and the steps of a job, as plain JSON values."""

    model_config = ConfigDict(title="JobArguments")


class JobPageBody(ResponseModel):
    """A page of jobs, newest first."""

    model_config = ConfigDict(title="JobPage")

    items: list[JobSummaryBody]
    next_cursor: str | None = Field(
        description="The cursor of the next page; null on the last page."
    )
    complete: bool = Field(description=COMPLETE)


_IN_STATE = Field(
    description="Only jobs in this state; `retrying` are the scheduled ones that wait for another attempt."
)


class _ManyFilter(RequestModel):
    task: Task = None
    queue: QueueName = None
    tag: Tag = None
    key: Key = None
    since: Annotated[
        Instant | None, Field(description="Only jobs created at this time or later.")
    ] = None
    until: Annotated[Instant | None, Field(description="Only jobs created before this time.")] = (
        None
    )


class _CancelFilter(_ManyFilter):
    state: Annotated[CancelState | None, _IN_STATE] = None


class _RescheduleFilter(_ManyFilter):
    state: Annotated[WaitingState | None, _IN_STATE] = None


class CancelFilterBody(_CancelFilter):
    """Filters of a cancel; an unfinished job must match all of them."""

    model_config = ConfigDict(
        title="CancelFilter",
        json_schema_extra={
            "examples": [
                {"task": "send_newsletter", "tag": "campaign:7", "dry_run": True},
                {"queue": "mail", "state": "queued"},
                {"all": True},
            ]
        },
    )

    all: StrictBool = Field(
        default=False,
        description="Cancel every unfinished job. Required if there is no filter; not allowed with one.",
    )
    dry_run: StrictBool = Field(
        default=False, description="Only count what would be cancelled; cancel none."
    )

    @model_validator(mode="after")
    def _meant(self) -> Self:
        check_meant(self, _CancelFilter, everything=self.all, what="cancel every unfinished job")
        return self

    def where(self) -> dict[str, Any]:
        """Return the filters."""
        return self.model_dump(include=set(_CancelFilter.model_fields))


class CancelCountsBody(ResponseModel, of=CancelCounts, shows=("cancelled", "requested")):
    """The counts of a cancel by filter; with `dry_run`, of what would be cancelled."""

    model_config = ConfigDict(
        title="CancelCounts",
        json_schema_extra={"examples": [{"cancelled": 12, "requested": 2, "dry_run": False}]},
    )

    dry_run: bool


class RescheduleBody(RequestModel):
    """The new time of a job: exactly one of `run_at` and `delay`."""

    model_config = ConfigDict(
        title="Reschedule",
        json_schema_extra={"examples": [{"run_at": MOMENT}, {"delay": 0}]},
    )

    run_at: Annotated[
        Instant | None, Field(description="The time at which the job is due; the past means now.")
    ] = None
    delay: Annotated[
        Seconds | None, Field(description="The seconds until the job is due; 0 means now.")
    ] = None


class RescheduleFilterBody(_RescheduleFilter, RescheduleBody):
    """The new time of many jobs, and filters; a waiting job must match all of them."""

    model_config = ConfigDict(
        title="RescheduleFilter",
        json_schema_extra={
            "examples": [
                {"task": "charge", "state": "retrying", "delay": 0, "dry_run": True},
                {"queue": "mail", "run_at": MOMENT},
                {"all": True, "delay": 0},
            ]
        },
    )

    all: StrictBool = Field(
        default=False,
        description="Reschedule every waiting job. Required if there is no filter; not allowed with one.",
    )
    dry_run: StrictBool = Field(
        default=False, description="Only count what would be rescheduled; change nothing."
    )

    @model_validator(mode="after")
    def _meant(self) -> Self:
        what = "reschedule every waiting job"
        check_meant(self, _RescheduleFilter, everything=self.all, what=what)
        return self

    def where(self) -> dict[str, Any]:
        """Return the filters."""
        return self.model_dump(include=set(_RescheduleFilter.model_fields))


class RescheduleCountsBody(ResponseModel, of=RescheduleCounts, shows=("rescheduled", "expiring")):
    """The counts of a reschedule by filter; with `dry_run`, of what would be rescheduled."""

    model_config = ConfigDict(
        title="RescheduleCounts",
        json_schema_extra={"examples": [{"rescheduled": 12, "expiring": 0, "dry_run": False}]},
    )

    dry_run: bool


class SignalledBody(ResponseModel):
    """The effect of a signal."""

    model_config = ConfigDict(title="Signalled", json_schema_extra={"examples": [{"kept": True}]})

    kept: bool = Field(
        description="False if the job has a signal of this name already, or its wait for it has timed out."
    )


class CancelledBody(ResponseModel):
    """The effect of a cancel request."""

    model_config = ConfigDict(
        title="Cancelled", json_schema_extra={"examples": [{"status": "cancelled"}]}
    )

    status: CancelStatus | None = Field(
        description="`cancelled`: the job was waiting and will not run. `requested`: the job is running and was asked"
        " to stop. Null: the job had already finished or died. The jobs after it in its chain are cancelled with it."
    )
