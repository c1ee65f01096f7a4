"""What the library hands to its users: jobs, their attempts, dead letters, and the state of the whole."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeVar

from pydantic import ConfigDict, Field, GetCoreSchemaHandler
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import core_schema

from jobrunner.core.clock import from_us
from jobrunner.core.errors import JobRunnerError, NotRunning
from jobrunner.core.exports import exported
from jobrunner.core.hints import answers_foreign_words
from jobrunner.core.model import AttemptOutcome, AttemptRow, DeadReason, Enqueued, JobRow, State
from jobrunner.core.response_models import ResponseModel, doc

R_co = TypeVar("R_co", covariant=True)

ID = "01936d2c-7a40-7c3e-9d55-6f0c1d2e3f4a"
"""A job's id, as examples have it."""
CancelStatus = Literal["cancelled", "requested"]
"""``cancelled``: the job waited, and will not run. ``requested``: it runs, and has been asked to stop."""


class JobSource(Protocol):
    """Where a job came from, asked again when its holder wants to know more."""

    async def result_of(self, job: "Job[Any]", timeout: float | timedelta | None) -> Any:
        """Wait for a job's result."""
        ...

    async def refreshed(self, job: "Job[Any]") -> "Job[Any]":
        """Read a job again."""
        ...

    def arguments_of(self, job: "Job[Any]", stored: str) -> dict[str, Any]:
        """Return a job's arguments from their stored form."""
        ...


@exported
@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a job; the last one may still be running and then has no end."""

    attempt: int = field(metadata=doc("1 for the first run; a replay begins again at 1.", 1))
    started_at: datetime
    finished_at: datetime | None = field(metadata=doc("Null while it runs."))
    outcome: AttemptOutcome | None = field(metadata=doc("How it ended; null while it runs."))
    error_type: str | None = field(metadata=doc(example="smtplib.SMTPServerDisconnected"))
    error: str | None = field(metadata=doc(example="Connection unexpectedly closed"))
    traceback: str | None = field(metadata=doc("Cut where it is very long."))
    worker: int = field(metadata=doc("The process that ran it."))


def history_of(attempts: Iterable[AttemptRow]) -> tuple[Attempt, ...]:
    """Return stored attempts in their public form."""
    return tuple(
        Attempt(
            attempt=row.attempt,
            started_at=from_us(row.started_at),
            finished_at=None if row.finished_at is None else from_us(row.finished_at),
            outcome=row.outcome,
            error_type=row.error_type,
            error=row.error,
            traceback=row.traceback,
            worker=row.worker,
        )
        for row in attempts
    )


@exported
@answers_foreign_words("job", name="job")
@dataclass(frozen=True, eq=False)
class Job(Generic[R_co]):
    """One stored call of a task, as it was when it was read.

    May be returned from a FastAPI route: from one that says so (``-> Job[None]``) the response holds the fields of
    ``JobBody``, from one without an annotation all the fields below.
    """

    id: str = field(
        metadata=doc("UUIDv7, made before the job was stored; the job's idempotency key.")
    )
    task: str = field(metadata=doc("The task's stored name."))
    queue: str
    state: State
    run_at: datetime = field(metadata=doc("When the job is, or was, due."))
    created_at: datetime
    attempt: int = field(metadata=doc("Runs so far, the present one included; 0 before the first."))
    created: bool | None = None
    """Whether this call made it; None if the job was looked up.

    False if an unfinished job held the key, or a dead letter was put back under its own id.
    """
    history: tuple[Attempt, ...] = ()
    """The attempts, oldest first; loaded by ``get`` and ``refresh`` only."""
    key: str | None = field(
        default=None,
        metadata=doc("While the job is unfinished, no other of its task has this key."),
    )
    tag: str | None = None
    replay_of: str | None = field(
        default=None, metadata=doc("The dead letter that it replays with other arguments.")
    )
    replays: int = field(
        default=0, metadata=doc("How often it was put back from the dead letters.")
    )
    schedule: str | None = field(default=None, metadata=doc("The schedule that made it."))
    scheduled_for: datetime | None = field(
        default=None, metadata=doc("The tick that it was made for.")
    )
    chain: str | None = field(
        default=None, metadata=doc("The id of the first job of its chain; null if it is in none.")
    )
    after: str | None = field(
        default=None,
        metadata=doc(
            "The job before it in the chain: while it is `blocked` it waits for that one, later it followed it."
        ),
    )
    _origin: ClassVar[JobSource | None] = None
    """Where it was read from; set on the object, and no field of it: a copy must not take the store along."""
    _stored_args: ClassVar[str | None] = None
    """Its arguments, where they were read; no field either: what shows a job's fields must not show them."""

    @property
    def args(self) -> dict[str, Any]:
        """Its arguments by parameter name, as they were given: of the types that the task declares.

        Read by ``get`` and ``refresh`` alone. Defaults that the caller left to the function are not among them. Where
        the runner does not have the task they are plain JSON values.

        Raises:
            InvalidArguments: the task's signature has changed so that they no longer fit.
            JobRunnerError: this job was not read by ``get`` or ``refresh``.
        """
        if self._stored_args is None:
            raise JobRunnerError(
                f"the arguments of {self.task} {self.id} have not been read, which get() and refresh() do: write"
                " `(await job.refresh()).args`"
            )
        return self._home().arguments_of(self, self._stored_args)

    async def result(self, timeout: float | timedelta | None = None) -> R_co:
        """Wait until the job has succeeded and return what it returned.

        Args:
            timeout: seconds or a timedelta to wait at most; None waits for ever.

        Raises:
            JobDead, JobCancelled, JobExpired: it will not succeed by itself.
            Deadlock: the caller is an attempt, and the job cannot start while all slots are held by such attempts.
            ResultTimeout: it is not finished yet; it goes on.
            ResultNotStored: it succeeded, but what it returned could not be kept; or ``job.transaction()`` has settled
                it, and its process died, or it goes on for more than 5 s, before the task returned.
            JobNotFound: it is past its retention.
        """
        value: R_co = await self._home().result_of(self, timeout)
        return value

    async def refresh(self) -> "Job[R_co]":
        """Return the job as it is now, with its history."""
        return await self._home().refreshed(self)

    def _home(self) -> JobSource:
        # A copy, or one that was pickled, has no origin at all.
        origin: JobSource | None = getattr(self, "_origin", None)
        if origin is None:
            raise NotRunning(
                "this Job was not read from a runner, so there is nobody to ask about it"
            )
        return origin

    def __getstate__(self) -> dict[str, Any]:
        hidden = {"_origin", "_stored_args"}
        return {name: value for name, value in self.__dict__.items() if name not in hidden}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    if not TYPE_CHECKING:
        # What a job returns is for type checkers alone. Pydantic takes a dataclass with parameters apart by its fields,
        # past the schema below, so Job[str] is Job itself at run time.
        def __class_getitem__(cls, result: object) -> "type[Job]":
            return cls

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(
            lambda value: JobBody.model_validate(value) if isinstance(value, Job) else value,
            handler(JobBody),
        )


class JobFields(
    ResponseModel,
    of=Job,
    shows=("id", "task", "queue", "state", "run_at", "created_at", "attempt"),
):
    """The fields that every response about a job has: never its arguments."""


class JobBody(JobFields):
    """A job as it is told over HTTP where it has been stored: never its arguments."""

    model_config = ConfigDict(
        title="Job",
        json_schema_extra={
            "examples": [
                {
                    "id": ID,
                    "task": "send_welcome_email",
                    "queue": "mail",
                    "state": "queued",
                    "run_at": "2026-11-22T08:00:00Z",
                    "created_at": "2026-11-22T08:00:00Z",
                    "attempt": 0,
                    "created": True,
                }
            ]
        },
    )

    created: bool | SkipJsonSchema[None] = Field(
        default=None,
        exclude_if=lambda created: created is None,
        description="False if an unfinished job with the same key was there already; left out of a job that was looked"
        " up.",
    )


def fresh_job(
    stored: Enqueued, source: JobSource, *, key: str | None = None, tag: str | None = None
) -> Job[Any]:
    """Return a job as it has just been stored.

    Not by the constructor, which takes a call for each field of a frozen class, and so a tenth of an enqueue's time.
    What is left out has its default, which the class holds.
    """
    created_at = from_us(stored.created_at)
    due_at_once = stored.run_at == stored.created_at
    job: Job[Any] = object.__new__(Job)
    job.__dict__.update(
        id=stored.id,
        task=stored.task,
        queue=stored.queue,
        state=stored.state,
        run_at=created_at if due_at_once else from_us(stored.run_at),
        created_at=created_at,
        attempt=stored.attempt,
        created=stored.created,
        key=key,
        tag=tag,
        chain=stored.chain,
        after=stored.after,
        _origin=source,
    )
    return job


def job_of(
    row: JobRow, attempts: Sequence[AttemptRow], source: JobSource, *, args: str | None = None
) -> Job[Any]:
    """Return a stored job as its users see it, with the attempts and the arguments that were read."""
    job: Job[Any] = Job(
        id=row.id,
        task=row.task,
        queue=row.queue,
        state=row.state,
        run_at=from_us(row.run_at),
        created_at=from_us(row.created_at),
        attempt=row.attempt,
        history=history_of(attempts),
        key=row.key,
        tag=row.tag,
        replay_of=row.replay_of,
        replays=row.replays,
        schedule=row.schedule,
        scheduled_for=None if row.scheduled_for is None else from_us(row.scheduled_for),
        chain=row.chain,
        after=row.after,
    )
    job.__dict__["_origin"] = source
    if args is not None:
        job.__dict__["_stored_args"] = args
    return job


@dataclass(frozen=True, slots=True)
class Payload:
    """What a job was given and what it returned, as plain JSON values."""

    id: str = field(metadata=doc(example=ID))
    task: str = field(metadata=doc(example="send_welcome_email"))
    args: dict[str, Any] = field(
        metadata=doc(
            "The arguments by parameter name; defaults that were left to the function are not among them.",
            {"email": "ada@example.org", "username": "ada"},
        )
    )
    result: Any = field(metadata=doc("What the task returned; null while there is none."))
    result_omitted: str | None = field(
        metadata=doc("Why the result could not be kept, if it could not.")
    )


def payload_of(row: JobRow) -> Payload:
    """Return what a row holds of a job's arguments and result."""
    return Payload(
        id=row.id,
        task=row.task,
        args=json.loads(row.args),
        result=None if row.result is None else json.loads(row.result),
        result_omitted=row.result_omitted,
    )


@exported
@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that will not run again by itself, kept whole."""

    id: str = field(metadata=doc("The job's id.", ID))
    task: str = field(metadata=doc(example="send_welcome_email"))
    queue: str = field(metadata=doc(example="mail"))
    reason: DeadReason = field(metadata=doc("Why it will not run again by itself."))
    error_type: str | None = field(metadata=doc(example="smtplib.SMTPRecipientsRefused"))
    error: str | None = field(metadata=doc(example="550 no such user"))
    traceback: str | None = field(metadata=doc("Of its last attempt; cut where it is very long."))
    args: dict[str, Any] = field(
        metadata=doc(
            "The arguments by parameter name.", {"email": "ada@example.org", "username": "ada"}
        )
    )
    """As they are stored: plain JSON values."""
    attempt: int = field(metadata=doc("Runs in its last life.", 5))
    created_at: datetime
    died_at: datetime
    key: str | None
    tag: str | None
    replays: int = field(metadata=doc("How often it was put back before.", 0))
    replay_of: str | None = field(
        metadata=doc("The dead letter that it replayed with other arguments.")
    )
    replayed_as: str | None = field(metadata=doc("The job that replays it with other arguments."))
    chain: str | None = field(
        metadata=doc(
            "The id of the first job of its chain; null if it is in none. What waited behind it was let go when"
            " it died."
        )
    )
    after: str | None = field(metadata=doc("The job before it in the chain."))
    history: tuple[Attempt, ...] = ()
    """The attempts, oldest first; loaded by ``get`` only."""


@exported
@dataclass(frozen=True, slots=True)
class QueueInfo:
    """One queue, over all workers of the store."""

    name: str = field(metadata=doc(example="mail"))
    slots: int = field(
        metadata=doc("Slots of the workers that are alive; 0 if none serves the queue.", 50)
    )
    paused: bool = field(metadata=doc(example=False))
    queued: int = field(metadata=doc("Jobs that could start now.", 3))
    scheduled: int = field(metadata=doc("Jobs that wait for their time.", 120))
    blocked: int = field(metadata=doc("Jobs that wait for the one before them in a chain.", 4))
    running: int = field(metadata=doc(example=2))
    oldest_due_at: datetime | None = field(
        metadata=doc("Since when the longest-waiting queued job is due.")
    )
    complete: bool = field(
        default=True,
        metadata=doc(
            "False if counting stopped, at 10,000 or when it took too long: there are at least so many"
            " `queued`, `scheduled` and `blocked`.",
            True,
        ),
    )


@exported
@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One process that runs jobs on the store."""

    id: int
    pid: int
    host: str
    started_at: datetime
    beat_at: datetime = field(metadata=doc("When its loop was last seen to turn."))
    stalled: bool = field(metadata=doc("Alive, but its loop has not turned for half a minute."))
    """It is blocked, or stopped."""
    queues: dict[str, int] = field(metadata=doc("Its slots by queue.", {"default": 20}))


@exported
@dataclass(frozen=True, slots=True)
class Health:
    """Whether the promises are being kept just now, and what stands in the way."""

    status: Literal["ok", "degraded", "stopping", "failed"] = field(
        metadata=doc(
            "`degraded`: jobs are safe, but something needs a look. `failed`: this worker has stopped."
        )
    )
    problems: tuple[str, ...] = field(metadata=doc("One sentence each."))
    ready: bool = field(
        metadata=doc(
            "Whether this process should be sent work: not stopping, not failed, and its rounds get written."
        )
    )
    working: bool = field(metadata=doc("Whether this process runs jobs."))
    running: int = field(metadata=doc("Attempts under way in this process."))
    stuck_threads: tuple[str, ...] = field(
        metadata=doc("Timed-out `def` attempts whose thread has not ended, as `task job-id`.")
    )
    unknown_tasks: dict[str, datetime] = field(
        metadata=doc(
            "Tasks with waiting jobs that no live worker knows, and since when the oldest is due."
        )
    )
    workers: tuple[WorkerInfo, ...]
    version: str
