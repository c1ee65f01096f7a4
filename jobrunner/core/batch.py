"""The value that users read about a batch: its state, its numbers, and its jobs."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from pydantic import ConfigDict, GetCoreSchemaHandler
from pydantic_core import core_schema

from jobrunner.core.clock import from_us
from jobrunner.core.counts import ReplayCounts
from jobrunner.core.errors import NotRunning
from jobrunner.core.exports import exported
from jobrunner.core.job import ID, Job
from jobrunner.core.response_models import ResponseModel, doc
from jobrunner.core.workflows import BatchRow, BatchState

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class CallOf(Protocol[R_co]):
    """A ``Call`` of a task that returns ``R``, which a package above declares."""

    @property
    def result(self) -> R_co: ...

    def after(self, *calls: Any) -> Any: ...


class BatchSource(Protocol):
    """The runner that a batch was read from, as the batch uses it."""

    async def ended(self, id: str, timeout: float | timedelta | None) -> BatchRow:
        """Wait for a batch's end."""
        ...

    async def results_of(self, id: str, timeout: float | timedelta | None) -> list[Any]:
        """Wait for a batch's end, and return the results of its members."""
        ...

    async def get(self, id: str) -> "Batch[Any]":
        """Read a batch again."""
        ...

    async def retry(self, id: str) -> ReplayCounts:
        """Replay a batch's dead letters."""
        ...

    async def cancel(self, id: str) -> bool:
        """Cancel a batch."""
        ...

    async def add(self, id: str, calls: Iterable[CallOf[R]]) -> list[Job[R]]:
        """Add calls to a batch."""
        ...


@exported
@dataclass(frozen=True, eq=False)
class Batch(Generic[R_co]):
    """Jobs that were enqueued together and end together: a snapshot of the moment when it was read.

    ``R`` in ``Batch[R]`` is the type that its tasks return. A batch does not change; ``refresh()`` reads it again.

    ::

        batch = await queue.enqueue_batch([resize.call(page) for page in pages], then=publish.call(doc))
        batch.total                                  # 120
        batch = await batch.wait(timeout=60)
        batch.state                                  # "succeeded"

    It ends in the commit after which no member is unfinished. It has then ``succeeded`` if all members have,
    ``cancelled`` if that was asked for, or else ``failed``. When a dead letter of a failed batch is replayed, the batch
    is ``running`` again.

    A FastAPI route may return a batch: the response has the fields of ``BatchBody``.
    """

    id: str = field(metadata=doc("UUIDv7, made before the batch was stored.", ID))
    name: str | None = field(metadata=doc("The name that it was enqueued with.", "publish:7"))
    state: BatchState = field(metadata=doc("`running` until no member is unfinished.", "running"))
    total: int = field(
        metadata=doc("Its members so far, those that were added later included.", 120)
    )
    succeeded: int = field(metadata=doc(example=97))
    dead: int = field(metadata=doc("Members that are dead letters.", 1))
    cancelled: int = field(metadata=doc("Members that were cancelled or have expired.", 0))
    running: int = field(metadata=doc(example=20))
    waiting: int = field(metadata=doc("Members that are queued, scheduled or blocked.", 2))
    created_at: datetime
    ended_at: datetime | None = field(
        default=None, metadata=doc("When its last member ended; null while one is unfinished.")
    )
    cancel_requested: bool = field(
        default=False, metadata=doc("Whether somebody has cancelled it.", False)
    )
    parent: str | None = field(
        default=None, metadata=doc("The job that made it with `job.run()` and waits for it.")
    )
    jobs: tuple[Job[R_co], ...] = ()
    """Its members in the order of the calls. Only ``enqueue_batch`` sets them."""
    then: Job[Any] | None = None
    """The job that starts when all members have succeeded. Only ``enqueue_batch`` and ``batches.get`` set it."""
    otherwise: Job[Any] | None = None
    """The job that starts when the batch has ended without success. Set as ``then`` is."""
    at_end: Job[Any] | None = None
    """The job that starts when the batch has ended. Set as ``then`` is."""
    _origin: ClassVar[BatchSource | None] = None
    """The runner that the batch was read from. Not a dataclass field, so that a copy does not take the store along."""

    async def wait(self, timeout: float | timedelta | None = None) -> "Batch[R_co]":
        """Wait until the batch has ended, and return it as it is then.

        ::

            batch = await batch.wait(timeout=60)
            if batch.state != "succeeded": ...

        Args:
            timeout: The longest wait, in seconds or as a timedelta. None waits for ever.

        Raises:
            NotCommitted: The transaction that stores the batch is not committed, or was rolled back.
            ResultTimeout: The batch did not end within ``timeout``. It goes on.
            Deadlock: The caller is an attempt, and a member cannot start because attempts like it hold all slots.
            BatchNotFound: The batch was deleted after its retention.
        """
        await self._home().ended(self.id, timeout)
        return await self.refresh()

    async def results(self, timeout: float | timedelta | None = None) -> list[R_co]:
        """Wait until the batch has succeeded, and return the results of its members.

        In memory they may be large: a callback reads them in parts, with ``job.batch.results(task)``.

        Args:
            timeout: The longest wait, in seconds or as a timedelta. None waits for ever.

        Returns:
            The results in the order of the calls; those of members that were added later come last.

        Raises:
            JobDead: A member is a dead letter.
            JobCancelled: The batch or a member was cancelled, or a member has expired.
            ResultNotStored: The result of a member could not be stored.
            NotCommitted: The transaction that stores the batch is not committed, or was rolled back.
            ResultTimeout: The batch did not end within ``timeout``. It goes on.
            Deadlock: The caller is an attempt, and a member cannot start because attempts like it hold all slots.
            BatchNotFound: The batch was deleted after its retention.
        """
        return await self._home().results_of(self.id, timeout)

    async def refresh(self) -> "Batch[R_co]":
        """Read the batch again, with its callbacks and without ``jobs``.

        Raises:
            BatchNotFound: The batch was deleted after its retention.
        """
        return await self._home().get(self.id)

    async def retry(self) -> ReplayCounts:
        """Replay the dead letters of the batch; see ``DeadLetters.replay_all``.

        The batch is running again, and jobs that were cancelled because a dead one was needed wait again.

        Raises:
            BatchNotFound: The batch was deleted after its retention.
        """
        return await self._home().retry(self.id)

    async def cancel(self) -> bool:
        """Cancel the batch: its waiting members will not run, its running ones are asked to stop.

        The call stores the request. Workers then cancel the members in parts, so that no other writer waits long.

        Returns:
            False if the batch had ended or was cancelled before.

        Raises:
            BatchNotFound: The batch was deleted after its retention.
        """
        return await self._home().cancel(self.id)

    async def add(self, calls: Iterable[CallOf[R]]) -> list[Job[R]]:
        """Add calls to the batch while it is unfinished.

        They may wait for each other as in ``enqueue_batch``, but not for members that are stored already.

        Args:
            calls: At most 10,000 calls.

        Returns:
            The jobs, in the order of the calls.

        Raises:
            BatchEnded: The batch has ended or was cancelled; nothing was stored.
            BatchNotFound: The batch was deleted after its retention.
        """
        return await self._home().add(self.id, calls)

    def _home(self) -> BatchSource:
        # A copied or unpickled batch has no origin.
        origin: BatchSource | None = getattr(self, "_origin", None)
        if origin is None:
            raise NotRunning(
                "this Batch was not read from a runner, so there is nobody to ask about it"
            )
        return origin

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_origin"}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Batch) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    if not TYPE_CHECKING:
        # As in Job: the type parameter is for type checkers only.
        def __class_getitem__(cls, result: object) -> "type[Batch]":
            return cls

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(
            lambda value: BatchBody.model_validate(value) if isinstance(value, Batch) else value,
            handler(BatchBody),
        )


class BatchBody(
    ResponseModel,
    of=Batch,
    shows=(
        "id",
        "name",
        "state",
        "total",
        "succeeded",
        "dead",
        "cancelled",
        "running",
        "waiting",
        "created_at",
        "ended_at",
        "cancel_requested",
        "parent",
    ),
):
    """The fields of every response about a batch; never arguments or results."""

    model_config = ConfigDict(title="Batch")


def batch_of(
    row: BatchRow,
    source: BatchSource,
    *,
    jobs: tuple[Job[R], ...] = (),
    then: Job[Any] | None = None,
    otherwise: Job[Any] | None = None,
    at_end: Job[Any] | None = None,
) -> Batch[R]:
    """Return the public form of a batch.

    Args:
        row: The batch as stored.
        source: The runner that it was read from.
        jobs: Its members, if this call has stored them.
        then: Its callback for its success.
        otherwise: Its callback for an end without success.
        at_end: Its callback for any end.
    """
    batch: Batch[R] = Batch(
        id=row.id,
        name=row.name,
        state=row.state,
        total=row.total,
        succeeded=row.succeeded,
        dead=row.dead,
        cancelled=row.cancelled,
        running=row.running,
        waiting=row.waiting,
        created_at=from_us(row.created_at),
        ended_at=None if row.ended_at is None else from_us(row.ended_at),
        cancel_requested=row.cancelled_at is not None,
        parent=row.parent,
        jobs=jobs,
        then=then,
        otherwise=otherwise,
        at_end=at_end,
    )
    batch.__dict__["_origin"] = source
    return batch
