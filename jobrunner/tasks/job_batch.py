"""Gives a running task the batch that its job belongs to: its members and their results."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from jobrunner.core.batch import Batch, CallOf
from jobrunner.core.errors import InvalidBatch, JobRunnerError, WrongThread
from jobrunner.core.job import Job
from jobrunner.core.model import Claimed, Enqueue, State
from jobrunner.core.workflows import MOST_MEMBERS

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


class TaskOf(Protocol[R_co]):
    """A ``Task`` that returns ``R``, as far as this module knows it."""

    @property
    def name(self) -> str: ...

    async def enqueue(self, *args: Any, **kwargs: Any) -> Job[R_co]: ...


class Part(NamedTuple):
    """Some values of a longer sequence, and the cursor of those that follow; None at the end."""

    values: Sequence[Any]
    next: Any


class BatchReader(Protocol):
    """The open runner, as the batch of a running job uses it."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop on which the runner is open."""
        ...

    async def batch_of(self, job: Claimed) -> Batch[Any]:
        """Return the batch of a running job; raises ``BatchNotFound`` if it belongs to none."""
        ...

    async def results(self, job: Claimed, task: object, after: Any) -> Part:
        """Return the next results of the batch's members of a task."""
        ...

    async def members(self, job: Claimed, state: State | None, after: Any) -> Part:
        """Return the next members of the batch."""
        ...

    def prepare(self, call: Any) -> Enqueue:
        """Check a call and return it as a row to store later."""
        ...


class Parts(Generic[T]):
    """A long sequence that is read in parts.

    Read it with ``async for``, in a ``def`` task with ``for``.
    """

    def __init__(
        self, read: Callable[[Any], Awaitable[Part]], loop: asyncio.AbstractEventLoop
    ) -> None:
        """Read a sequence.

        Args:
            read: Returns the part that begins at a cursor; None stands for the first one.
            loop: The event loop on which it is read.
        """
        self._read = read
        self._loop = loop

    async def __aiter__(self) -> AsyncIterator[T]:
        """Yield the values, reading a part when the one before is used up."""
        part = await self._read(None)
        while True:
            for value in part.values:
                yield value
            if part.next is None:
                return
            part = await self._read(part.next)

    def __iter__(self) -> Iterator[T]:
        """Yield the values; each read blocks the calling thread.

        Raises:
            WrongThread: The thread runs an event loop.
        """
        if asyncio._get_running_loop() is not None:  # noqa: SLF001 - as get_running_loop(), without an error to catch
            raise WrongThread(
                "this loop over a batch would block the event loop: write"
                " `async for result in job.batch.results(task):` in an `async def` task"
            )
        part = self._read_here(None)
        while True:
            yield from part.values
            if part.next is None:
                return
            part = self._read_here(part.next)

    def _read_here(self, after: Any) -> Part:
        async def read() -> Part:
            return await self._read(after)

        return asyncio.run_coroutine_threadsafe(read(), self._loop).result()


class JobBatch:
    """The batch of a running job: that of which it is a member, or whose end has started it.

    ::

        @jobs.task
        async def publish(job: JobContext, doc: int) -> None:
            async for page in job.batch.results(resize):
                ...

    In a ``def`` task write ``for`` instead of ``async for``.
    """

    def __init__(self, job: Claimed, reader: BatchReader) -> None:
        self._job = job
        self._reader = reader
        self._added: list[Enqueue] = []
        self._over = ""

    async def get(self) -> Batch[Any]:
        """Return the batch as it is now.

        Raises:
            BatchNotFound: The job is neither a member nor a callback of a batch.
        """
        return await self._reader.batch_of(self._job)

    def results(self, task: TaskOf[R]) -> Parts[R]:
        """Return the results of one task's members, in the order of the calls.

        Members that have not succeeded are left out.

        They are read in parts, so that they need not fit into memory together.

        Args:
            task: The task of the members. Others are left out.

        Raises:
            BatchNotFound: The job is neither a member nor a callback of a batch.
            ResultNotStored: The result of a member could not be stored, or no longer fits the type of the task.
        """

        async def read(after: Any) -> Part:
            return await self._reader.results(self._job, task, after)

        return Parts(read, self._reader.loop)

    def members(self, *, state: State | None = None) -> Parts[Job[Any]]:
        """Return the members, newest first, and after them those that are dead letters.

        Args:
            state: Only members in this state, such as ``"dead"``. Default: all.

        Raises:
            BatchNotFound: The job is neither a member nor a callback of a batch.
            InvalidOptions: The state is unknown.
        """

        async def read(after: Any) -> Part:
            return await self._reader.members(self._job, state, after)

        return Parts(read, self._reader.loop)

    def add(self, *calls: CallOf[Any]) -> None:
        """Add calls to the batch of which the job is a member.

        They are stored by the commit that settles the job as succeeded, so the batch does not end before they have, and
        they are stored once, however often the task runs. If the attempt fails, they are not stored.

        ::

            @jobs.task
            async def crawl(job: JobContext, url: str) -> None:
                job.batch.add(*[crawl.call(link) for link in await links_of(url)])

        Args:
            *calls: Calls that wait for no others; ``await batch.add([...])`` takes a graph.

        Raises:
            InvalidBatch: The job is no member of a batch, a call waits for another, or there are more than 10,000.
            InvalidArguments: The arguments of a call do not fit its task.
            InvalidOptions: A value is not a call, or an option is invalid or names a session.
            UnknownTask: A task is not registered with this runner.
            UnknownQueue: The runner does not have a queue that the options name.
            JobRunnerError: The attempt is over.
        """
        if self._over:
            raise JobRunnerError(
                f"job.batch.add(...): {self._over}, so these calls would never run"
            )
        if self._job.batch is None:
            raise InvalidBatch(
                f"{self._job.task} {self._job.id} is no member of a batch, so it can add none (a callback runs when its"
                " batch has ended): write `await queue.enqueue_batch([...])` for a new one"
            )
        rows = [self._reader.prepare(call)._replace(batch=self._job.batch) for call in calls]
        if len(self._added) + len(rows) > MOST_MEMBERS:
            raise InvalidBatch(
                f"job.batch.add() takes {MOST_MEMBERS:,} calls of one attempt at most: they are one transaction. Let"
                " one of the added jobs add the rest"
            )
        self._added += rows

    def take(self, over: str) -> Sequence[Enqueue]:
        """Return the rows of the added calls, and refuse any others.

        Args:
            over: The reason why no call can be added now, for the error.
        """
        self._over = over
        added, self._added = self._added, []
        return added

    def __repr__(self) -> str:
        return f"<JobBatch of {self._job.task} {self._job.id}>"
