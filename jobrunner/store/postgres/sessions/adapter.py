"""Defines the base of the session adapters.

Adapters differ in how they reach a connection and in how they end a transaction.  An operation of an async session runs
to its end when its caller is cancelled: a cancelled statement would abort the application's transaction.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Concatenate, Final, Literal, NamedTuple, ParamSpec, TypeVar
from weakref import WeakSet

from jobrunner.core.errors import InvalidSession, JobRunnerError, StoreError, StoreOutcomeUnknown
from jobrunner.core.model import BatchEnqueue, Enqueue, Enqueued, Memo, Outcome
from jobrunner.core.shield import to_the_end
from jobrunner.core.workflows import BatchEnqueued
from jobrunner.store.postgres.access import Access
from jobrunner.store.postgres.connection import Statements
from jobrunner.store.postgres.sessions import borrowed
from jobrunner.store.postgres.sessions.errors import IN_TRANSACTION, as_session_error, is_lost
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.sessions.watcher import State, Watch

T = TypeVar("T")
P = ParamSpec("P")

Verb = Literal["commit", "rollback"]

_LOOKS: Final = 25
_LOOKS_APART_S: Final = 0.2
"""The server notices the end of a lost connection within five seconds; until then a commit may be under way."""
_STATUS: Final = "SELECT pg_xact_status($1::text::xid8)"


class StoreHandle(NamedTuple):
    """The parts of an open store that its sessions use."""

    access: Access
    name: str
    """The database for messages."""
    database: str
    """The database as ``borrowed.IDENTITY`` has it."""
    durable: bool
    """False if the store's own commits do not wait for the disk."""
    watch: Watch
    schema: str
    checked: "WeakSet[Any]"
    """Driver connections that are to the store's database."""
    loop: asyncio.AbstractEventLoop

    async def has_committed(self, number: str) -> bool:
        """Return whether a transaction whose connection was lost has committed.

        Raises:
            StoreOutcomeUnknown: It is still under way, or the server does not answer.
        """
        status: str | None = "in progress"
        for look in range(_LOOKS):
            if look:
                await asyncio.sleep(_LOOKS_APART_S)
            try:
                status = await self.access.read(_status, number)
            except StoreError:
                continue  # the server may be on its way back
            if status != "in progress":
                break
        if status in ("committed", "aborted"):
            return status == "committed"
        raise StoreOutcomeUnknown(
            "the connection was lost while a commit was on its way: it may be stored or not"
        )


async def _status(tx: Transaction, number: str) -> str | None:
    status: str | None = await tx.fetchval(_STATUS, number)
    return status


class SessionAdapter(ABC):
    """Base of the ``Session`` adapters; see ``Session`` for methods without a docstring."""

    def __init__(self, store: StoreHandle, source: Any, *, blocking: bool) -> None:
        self.store = store
        self.source = source
        self.blocking = blocking
        self.last_id: str | None = None
        """Id of the last job that was stored through this session."""
        self.settled_in: str | None = None
        """The number of the transaction in which ``settle`` or ``keep`` has written."""

    # -- implemented by each adapter ----------------------------------------------------

    @abstractmethod
    async def reached(self, function: Callable[[Statements, Any], Awaitable[T]]) -> T:
        """Call a function with the connection of the session's transaction, and the driver's."""

    @abstractmethod
    async def start(self) -> None:
        """Begin a transaction; there is none."""

    @abstractmethod
    async def end(self, verb: Verb) -> None:
        """Commit or roll back through the application's session; does nothing without a transaction."""

    @abstractmethod
    def is_in_transaction(self) -> bool:
        """Return whether the session is in a transaction, as far as it knows."""

    @abstractmethod
    def begins_itself(self) -> bool:
        """Return whether the driver begins a transaction before the first statement."""

    @abstractmethod
    def state(self) -> State:
        """Return the state of the driver's connection; called on the store's loop."""

    # -- shared by all adapters ---------------------------------------------------------

    async def call(
        self,
        function: Callable[Concatenate[Statements, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call ``function(connection, *args)`` in the session's transaction."""

        async def work(on: Statements, driver: Any) -> T:
            if driver not in self.store.checked:
                await borrowed.identify(on, self.store.database, self.store.name)
                self.store.checked.add(driver)
            return await function(on, *args, **kwargs)

        return await self.whole(self.reached(work))

    async def whole(self, work: Awaitable[T]) -> T:
        """Run to the end, and raise the driver's errors as ours."""
        try:
            return await (work if self.blocking else to_the_end(work))
        except (JobRunnerError, asyncio.CancelledError):
            raise
        except Exception as error:
            ours = as_session_error(error, self.store.name)
            if ours is None:
                raise
            raise ours from error

    async def has_changes(self) -> bool:
        return self.is_in_transaction() and await self.call(_number) is not None

    async def has_committed(self) -> bool:
        # A connection does not say it. It is known once what has settled the job is another transaction than this one.
        if self.settled_in is None:
            return False
        now_in = await self.call(_number) if self.is_in_transaction() else None
        return now_in != self.settled_in

    async def begin(self) -> None:
        if not self.is_in_transaction():
            await self.whole(self.start())
        # A transaction has begun once a statement has reached the server. One that has only read is as good: by default
        # each of its statements sees what others have committed.
        await self.call(_savepoint)
        if await self.call(_number) is not None:
            raise InvalidSession(IN_TRANSACTION)

    async def insert(self, jobs: Sequence[Enqueue], *, now: int) -> list[Enqueued]:
        return await self.call(self._insert, jobs, now)

    async def _insert(self, on: Statements, jobs: Sequence[Enqueue], now: int) -> list[Enqueued]:
        stored = await borrowed.insert(on, jobs, now, durable=self.store.durable)
        # Noted in here: a caller that is cancelled meanwhile may still commit the jobs.
        self.last_id = next((job.id for job in reversed(stored) if job.created), self.last_id)
        return stored

    async def insert_batch(self, request: BatchEnqueue, *, now: int) -> BatchEnqueued:
        return await self.call(self._insert_batch, request, now)

    async def _insert_batch(self, on: Statements, request: BatchEnqueue, now: int) -> BatchEnqueued:
        stored = await borrowed.insert_batch(on, request, now, durable=self.store.durable)
        jobs = (*stored.members, *stored.callbacks)
        self.last_id = next((job.id for job in reversed(jobs) if job.created), self.last_id)
        return stored

    async def settle(self, outcome: Outcome, *, now: int) -> bool:
        await self._start_if_none()
        return await self.call(self._settle, outcome, now)

    async def _settle(self, on: Statements, outcome: Outcome, now: int) -> bool:
        passed, number = await borrowed.settle(on, outcome, now, durable=self.store.durable)
        if passed and self.settled_in is None:
            self.settled_in = number
        return passed

    async def keep(self, memo: Memo, *, now: int) -> bool:
        await self._start_if_none()
        return await self.call(self._keep, memo, now)

    async def _keep(self, on: Statements, memo: Memo, now: int) -> bool:
        kept, number = await borrowed.keep(on, memo, now, durable=self.store.durable)
        if kept and self.settled_in is None:
            self.settled_in = number
        return kept

    async def _start_if_none(self) -> None:
        """Begin a transaction where the driver would begin none: the application has ended the one of the job."""
        if not self.begins_itself() and not self.is_in_transaction():
            await self.whole(self.start())

    async def commit(self) -> None:
        work = self.end("commit")
        try:
            await (work if self.blocking else to_the_end(work))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if self.settled_in is None or not is_lost(error):
                raise
            if not await self._look(self.settled_in):
                raise

    async def _look(self, number: str) -> bool:
        """Return whether the commit whose answer was lost has happened."""
        looking = self.store.has_committed(number)
        if not self.blocking:
            return await to_the_end(looking)
        # In a thread of the application; the store's connections belong to its loop, which goes on meanwhile.
        return asyncio.run_coroutine_threadsafe(looking, self.store.loop).result()

    async def rollback(self) -> None:
        work = self.end("rollback")
        try:
            await (work if self.blocking else to_the_end(work))
        except Exception as error:
            if not is_lost(error):
                raise
            # The server rolls back what a lost connection had open.

    def watch(self, on_commit: Callable[[], None], on_lost: Callable[[], None]) -> None:
        if self.last_id is not None:
            self.follow(on_commit, on_lost)

    def follow(self, on_commit: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """Watch for the end of the connection's transaction, which has no event."""
        if self.last_id is not None:
            key = (id(self.source), id(self))
            self.store.watch.add(self.state, key, self.last_id, on_commit, on_lost)


async def _number(on: Statements) -> str | None:
    """Return the number of the open transaction; None if it has changed nothing."""
    number: str | None = await on.fetchval(borrowed.TRANSACTION)
    return number


async def _savepoint(on: Statements) -> None:
    async with borrowed.whole(on):
        pass
