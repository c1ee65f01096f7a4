"""The values that users read of a job: the job, its steps and its payload."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Literal, Protocol, TypeVar

from pydantic import ConfigDict, Field, GetCoreSchemaHandler
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import core_schema

from jobrunner.core.attempt import Attempt, history_of
from jobrunner.core.clock import from_us
from jobrunner.core.errors import JobRunnerError, NotRunning
from jobrunner.core.exports import exported
from jobrunner.core.hints import answers_foreign_words
from jobrunner.core.limits import Wait
from jobrunner.core.model import AttemptRow, Enqueued, JobRow, MemoKind, State
from jobrunner.core.progress import Progress, progress_of
from jobrunner.core.response_models import ResponseModel, doc
from jobrunner.core.tracing import trace_id_of
from jobrunner.core.workflows import ParkedWait, StepRow

R_co = TypeVar("R_co", covariant=True)

ID = "01936d2c-7a40-7c3e-9d55-6f0c1d2e3f4a"
"""The job id in the examples of the OpenAPI document."""
CancelStatus = Literal["cancelled", "requested"]
"""``cancelled``: the job was waiting and will not run. ``requested``: the job runs and was asked to stop."""


class JobSource(Protocol):
    """The runner that a job was read from, as the job uses it."""

    async def result_of(self, job: "Job[Any]", timeout: float | timedelta | None) -> Any:
        """Wait for a job's result."""
        ...

    async def row_within(self, job: "Job[Any]", within: float | timedelta, what: str) -> JobRow:
        """Wait for a job's end up to a limit."""
        ...

    async def refreshed(self, job: "Job[Any]") -> "Job[Any]":
        """Read a job again."""
        ...

    def arguments_of(
        self, job: "Job[Any]", stored: str, handed: str | None = None
    ) -> dict[str, Any]:
        """Decode a job's stored arguments, without those that it takes from other jobs."""
        ...


@exported
@dataclass(frozen=True, slots=True)
class Step:
    """A memo that a job has stored, as an entry of ``job.steps``.

    It is of a step, a wait, a signal, a batch of children or a cursor.
    """

    kind: MemoKind = field(
        metadata=doc(
            "`step`; `signal`: it came, or the wait for it has timed out; `sleep`; `batch`: children; `cursor`."
        )
    )
    name: str = field(metadata=doc(example="charge"))
    at: datetime = field(metadata=doc("When it was stored."))
    timed_out: bool = field(metadata=doc("True for a signal that did not come in time."))


def steps_of(rows: Iterable[StepRow]) -> tuple[Step, ...]:
    """Return stored memos in their public form, without the deadlines of waits."""
    return tuple(
        Step(
            row.kind,
            row.name,
            from_us(row.at),
            timed_out=row.kind == "signal" and row.value is None,
        )
        for row in rows
        if not row.name.startswith("!")
    )


@exported
@answers_foreign_words("job", name="job")
@dataclass(frozen=True, eq=False)
class Job(Generic[R_co]):
    """One stored call of a task: a snapshot of the moment when it was read.

    ``R`` in ``Job[R]`` is the type that the task returns. A job does not change; ``refresh()`` reads it again.

    ::

        job = await queue.enqueue(send_welcome_email, "ada@example.org")
        job.state                               # "queued"
        await job.result(timeout=10)            # waits until the task has returned
        (await job.refresh()).state             # "succeeded"

    A FastAPI route may return a job. With the annotation ``-> Job[None]`` the response has the fields of ``JobBody``,
    which never include the arguments; without an annotation it has all the fields below.
    """

    id: str = field(
        metadata=doc(
            "UUIDv7, made before the job was stored; the same in all attempts, the job's idempotency key."
        )
    )
    task: str = field(metadata=doc("The task's stored name."))
    queue: str
    state: State
    run_at: datetime = field(metadata=doc("When the job is, or was, due."))
    created_at: datetime
    attempt: int = field(metadata=doc("Runs so far, the present one included; 0 before the first."))
    created: bool | None = None
    """True if this call created the job; None if the job was only read.

    False if an unfinished job already had the key, or if a dead letter was replayed under its own id.
    """
    history: tuple[Attempt, ...] = ()
    """The attempts, oldest first. Only ``get`` and ``refresh`` load them."""
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
        default=None, metadata=doc("The tick that it was made for, or the time of `run_now`.")
    )
    chain: str | None = field(
        default=None, metadata=doc("The id of the first job of its chain; null if it is in none.")
    )
    after: str | None = field(
        default=None,
        metadata=doc(
            "The id of the job before it in the chain. While this job is `blocked`, it waits for that one."
        ),
    )
    trace_id: str | None = field(
        default=None,
        metadata=doc(
            "The OpenTelemetry trace in which it was enqueued, in 32 hexadecimal digits; null if there was none."
        ),
    )
    progress: Progress | None = field(
        default=None,
        metadata=doc("The last report of its last attempt; null if there is none."),
    )
    """The last report of ``job.progress()`` in its last attempt; None if there is none."""
    batch: str | None = field(
        default=None,
        metadata=doc("The id of the batch of which it is a member; null if it is in none."),
    )
    waits: str | None = field(
        default=None,
        metadata=doc(
            "The limit that holds a queued job back, or what a job waits for that has begun; null if there is none."
            " Times are in UTC.",
            "limit sync[7] 2/2",
        ),
    )
    """The limit that holds a queued job back: ``limit sync[7] 2/2``, ``rate task sync, next 2026-11-22 12:00:01Z``,
    ``order: behind <id>``. Or what a job waits for that has begun: ``signal approved until 2026-11-24 12:00:00Z``,
    ``sleeps until ...``, ``batch <id>``. None if there is none."""
    steps: tuple[Step, ...] = ()
    """The memos of its steps and waits, oldest first. Only ``get`` and ``refresh`` load them."""
    _origin: ClassVar[JobSource | None] = None
    """The runner that the job was read from. Not a dataclass field, so that a copy does not take the store along."""
    _stored_args: ClassVar[str | None] = None
    """The arguments, if they were read. Not a dataclass field, so that a dump of the fields does not show them."""
    _handed: ClassVar[str | None] = None
    """The arguments that it takes from other jobs; see ``Enqueue.handed``."""

    @property
    def args(self) -> dict[str, Any]:
        """The arguments by parameter name, in the types that the task declares.

        Only ``get`` and ``refresh`` load them. A parameter that the caller did not pass is not included, even if the
        function has a default for it, and neither is one that takes the result of another job. If the runner does not
        have the task, the values are plain JSON.

        Raises:
            InvalidArguments: The task's signature has changed, and the stored arguments no longer fit.
            JobRunnerError: The job was not read by ``get`` or ``refresh``.
        """
        if self._stored_args is None:
            raise JobRunnerError(
                f"the arguments of {self.task} {self.id} have not been read, which get() and refresh() do: write"
                " `(await job.refresh()).args`"
            )
        return self._home().arguments_of(self, self._stored_args, self._handed)

    async def result(self, timeout: float | timedelta | None = None) -> R_co:
        """Wait until the job has succeeded, and return its result.

        Args:
            timeout: The longest wait, in seconds or as a timedelta. None waits for ever.

        Returns:
            The value that the task returned, in the type of its return annotation.

        Raises:
            JobDead: The job became a dead letter.
            JobCancelled: The job was cancelled.
            JobExpired: The job expired while it waited for its first attempt or a retry.
            NotCommitted: The transaction that stores the job is not committed, or was rolled back.
            Deadlock: The caller is an attempt, and the job cannot start because attempts like it hold all slots.
            ResultTimeout: The job did not finish within ``timeout``. It goes on.
            ResultNotStored: The job succeeded, but its result could not be stored. Or ``job.transaction()`` settled the
                job, and before the task returned its process died or 5 s passed.
            JobNotFound: The job was deleted after its retention.
        """
        value: R_co = await self._home().result_of(self, timeout)
        return value

    async def refresh(self) -> "Job[R_co]":
        """Read the job again, with its history and its arguments.

        Raises:
            JobNotFound: The job was deleted after its retention.
        """
        return await self._home().refreshed(self)

    def _home(self) -> JobSource:
        # A copied or unpickled job has no origin.
        origin: JobSource | None = getattr(self, "_origin", None)
        if origin is None:
            raise NotRunning(
                "this Job was not read from a runner, so there is nobody to ask about it"
            )
        return origin

    def __getstate__(self) -> dict[str, Any]:
        hidden = {"_origin", "_stored_args", "_handed"}
        return {name: value for name, value in self.__dict__.items() if name not in hidden}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    if not TYPE_CHECKING:
        # The type parameter is for type checkers only. Pydantic would build the schema of a parametrised dataclass from
        # its fields and ignore the schema below, so Job[str] is Job itself at run time.
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


def source_of(job: Job[Any]) -> JobSource:
    """Return the runner that a job was read from.

    Raises:
        NotRunning: The job is a copy, or was unpickled.
    """
    return job._home()  # noqa: SLF001 - the only access to it


class JobFields(
    ResponseModel,
    of=Job,
    shows=("id", "task", "queue", "state", "run_at", "created_at", "attempt"),
):
    """The fields of every response about a job; never its arguments."""


class JobBody(JobFields):
    """The response body of a route that stores a job; never its arguments."""

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


# The jobs of one call have one time.
_created_at: Final = lru_cache(maxsize=1)(from_us)


def fresh_job(
    stored: Enqueued,
    source: JobSource,
    *,
    key: str | None = None,
    tag: str | None = None,
    batch: str | None = None,
) -> Job[Any]:
    """Return the public form of a job that was just stored.

    Does not use the constructor: on a frozen class it makes a call per field, which is a tenth of an enqueue's time.
    Fields that are not set here fall back to the default on the class.
    """
    id, created, task, queue, state, created_us, run_us, attempt, chain, after = stored
    created_at = _created_at(created_us)
    job: Job[Any] = object.__new__(Job)
    object.__setattr__(
        job,
        "__dict__",
        {
            "id": id,
            "task": task,
            "queue": queue,
            "state": state,
            "run_at": created_at if run_us == created_us else from_us(run_us),
            "created_at": created_at,
            "attempt": attempt,
            "created": created,
            "key": key,
            "tag": tag,
            "chain": chain,
            "after": after,
            "_origin": source,
        },
    )
    if batch is not None and stored.created:
        job.__dict__["batch"] = batch
    return job


def job_of(
    row: JobRow,
    attempts: Sequence[AttemptRow],
    source: JobSource,
    *,
    args: str | None = None,
    wait: Wait | ParkedWait | None = None,
    steps: Iterable[StepRow] = (),
) -> Job[Any]:
    """Return the public form of a stored job.

    Args:
        row: The job's row.
        attempts: Its attempts, oldest first; empty if they were not read.
        source: The runner that the job was read from.
        args: Its stored arguments, as JSON; None if they were not read.
        wait: The limit that holds it back, or what it waits for; None if there is none.
        steps: Its memos, oldest first; empty if they were not read.
    """
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
        trace_id=trace_id_of(row.trace),
        progress=progress_of(row.progress),
        batch=row.batch,
        waits=None if wait is None else wait.text,
        steps=steps_of(steps),
    )
    job.__dict__["_origin"] = source
    if args is not None:
        job.__dict__["_stored_args"] = args
        if row.handed is not None:
            job.__dict__["_handed"] = row.handed
    return job


@dataclass(frozen=True, slots=True)
class Payload:
    """A job's arguments and result, as plain JSON values."""

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
    steps: dict[str, Any] = field(
        metadata=doc(
            "The stored values by kind and name, such as `step charge`.", {"step charge": "r-17"}
        )
    )


def payload_of(row: JobRow, steps: Iterable[StepRow]) -> Payload:
    """Return the arguments, the result and the memos of a stored job."""
    return Payload(
        id=row.id,
        task=row.task,
        args=json.loads(row.args),
        result=None if row.result is None else json.loads(row.result),
        result_omitted=row.result_omitted,
        steps={
            f"{one.kind} {one.name}": None if one.value is None else json.loads(one.value)
            for one in steps
            if not one.name.startswith("!")
        },
    )
