"""Defines the base of all session adapters, and the adapter of bare connections.

Adapters differ in how they reach the driver's connection and in how they end a transaction.  Each operation is one
function, called in one hop to the connection's thread, so that a cancelled ``await`` never leaves half of it in the
transaction.
"""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import aiosqlite

from jobrunner.core.errors import InvalidSession, StoreBusy
from jobrunner.core.model import BatchEnqueue, Enqueue, Enqueued, Memo, Outcome
from jobrunner.core.shield import to_the_end
from jobrunner.core.workflows import BatchEnqueued
from jobrunner.store.sessions.watcher import State, Watch
from jobrunner.store.sqlite.driver_errors import raise_as_ours
from jobrunner.store.sqlite.host.identity import FileIdentity
from jobrunner.store.sqlite.sessions import borrowed

T = TypeVar("T")

Verb = Literal["commit", "rollback"]

CLOSED = "the connection is closed: enqueue before the block ends that opened it"
IN_TRANSACTION = (
    "the session is in a transaction already, and a write transaction cannot begin in the middle of it: commit or roll"
    " back first, or use another session"
)


class StoreHandle(NamedTuple):
    """The parts of an open store that its sessions use."""

    file: FileIdentity
    durability: str
    watch: Watch


def raise_as_a_session_error(error: sqlite3.Error, store: StoreHandle) -> Any:
    """Raise a driver's error as the error that the session's user sees."""
    if isinstance(error, sqlite3.ProgrammingError):
        text = str(error)
        if "thread" in text:
            raise InvalidSession(
                "the sqlite3.Connection belongs to another thread; a dependency's code and the route's run in different"
                " ones: write sqlite3.connect(..., check_same_thread=False)"
            ) from error
        if "closed" in text.lower():
            raise InvalidSession(CLOSED) from error
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY_SNAPSHOT:
        raise StoreBusy(
            "the session's transaction has read, and somebody else has written since, so that it cannot write any more:"
            " roll back and do it again, with BEGIN IMMEDIATE or the enqueue before the first read"
        ) from error
    raise_as_ours(error, store.file.path)


class SessionAdapter(ABC):
    """Base of the ``Session`` adapters; see ``Session`` for methods without a docstring."""

    def __init__(self, store: StoreHandle, source: Any, *, blocking: bool) -> None:
        self.store = store
        self.source = source
        self.blocking = blocking
        self.driver: Any = None
        """The driver's connection that was used last."""
        self.last_id: str | None = None
        """Id of the last job that was stored through this session."""

    # -- implemented by each adapter ----------------------------------------------------

    @abstractmethod
    async def reach(self) -> Any:
        """Return the driver's connection of the current transaction."""

    @abstractmethod
    def prepare(self, conn: sqlite3.Connection) -> None:
        """Check that the connection is to the store's file, and make it as durable."""

    @abstractmethod
    async def end(self, verb: Verb) -> None:
        """Commit or roll back through the application's session."""

    def may_be_in_transaction(self) -> bool:
        """Return False if the session is in no transaction before ``reach``.

        ``reach`` may begin one on the connection.
        """
        return True

    def is_closed(self) -> bool:
        """Return True if the session can no longer be committed.

        Its connection may already serve another user.
        """
        return False

    # -- shared by all adapters ---------------------------------------------------------

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call ``function(connection, *args)`` on the thread of the driver's connection."""
        driver = self.driver = await self.reach()
        try:
            if self.blocking:
                return function(driver, *args)
            # As in ``connection``: aiosqlite has no public call that takes a function.
            hop: Callable[..., Awaitable[T]] = driver._execute  # noqa: SLF001
            return await hop(function, driver._conn, *args)  # noqa: SLF001
        except sqlite3.Error as error:
            raise_as_a_session_error(error, self.store)
            raise
        except ValueError as error:
            if "closed" in str(error) or "no active connection" in str(error):
                raise InvalidSession(CLOSED) from error
            raise

    async def has_changes(self) -> bool:
        return await self.call(_in_transaction)

    async def has_committed(self) -> bool:
        # True also after a rollback, which a connection does not distinguish; False while it is in another transaction.
        return await self.call(_has_changed_and_ended)

    async def begin(self) -> None:
        await self.call(self._begin, self.may_be_in_transaction())

    async def insert(self, jobs: Sequence[Enqueue], *, now: int) -> list[Enqueued]:
        return await self.call(self._insert, jobs, now)

    async def insert_batch(self, request: BatchEnqueue, *, now: int) -> BatchEnqueued:
        return await self.call(self._insert_batch, request, now)

    async def settle(self, outcome: Outcome, *, now: int) -> bool:
        return await self.call(self._settle, outcome, now)

    async def keep(self, memo: Memo, *, now: int) -> bool:
        return await self.call(self._keep, memo, now)

    async def commit(self) -> None:
        await self._whole(self.end("commit"))

    async def rollback(self) -> None:
        await self._whole(self.end("rollback"))

    def watch(self, on_commit: Callable[[], None], on_lost: Callable[[], None]) -> None:
        if self.last_id is not None:
            self.follow(on_commit, on_lost)

    def follow(self, on_commit: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """Watch for the end of the connection's transaction, which has no event."""
        driver, id_ = self.driver, self.last_id
        if id_ is None or driver is None:
            return

        def state() -> State:
            if self.is_closed():
                return "closed"
            # aiosqlite's `_connection` is None once it is closed, where `_conn` would raise.
            return _state(driver if self.blocking else driver._connection)  # noqa: SLF001

        self.store.watch.add(state, (id(self.source), id(driver)), id_, on_commit, on_lost)

    async def _whole(self, work: Coroutine[Any, Any, None]) -> None:
        await (work if self.blocking else to_the_end(work))

    # -- on the connection's thread -------------------------------------------------------

    def _begin(self, conn: sqlite3.Connection, may_be_in_transaction: bool) -> None:
        self.prepare(conn)
        # With autocommit=False the connection is always in a transaction, and does not show whether it is empty.
        is_silent = getattr(conn, "autocommit", -1) is False
        if may_be_in_transaction and conn.in_transaction and not is_silent:
            raise InvalidSession(IN_TRANSACTION)
        borrowed.begin(conn)

    def _insert(
        self, conn: sqlite3.Connection, jobs: Sequence[Enqueue], now: int
    ) -> list[Enqueued]:
        self.prepare(conn)
        stored = borrowed.insert(conn, jobs, now)
        # Stored here, on the connection's thread: a caller that is cancelled meanwhile may still commit the jobs.
        self.last_id = next((job.id for job in reversed(stored) if job.created), self.last_id)
        return stored

    def _insert_batch(
        self, conn: sqlite3.Connection, request: BatchEnqueue, now: int
    ) -> BatchEnqueued:
        self.prepare(conn)
        stored = borrowed.insert_batch(conn, request, now)
        jobs = (*stored.members, *stored.callbacks)
        self.last_id = next((job.id for job in reversed(jobs) if job.created), self.last_id)
        return stored

    def _settle(self, conn: sqlite3.Connection, outcome: Outcome, now: int) -> bool:
        self.prepare(conn)
        return borrowed.settle(conn, outcome, now)

    def _keep(self, conn: sqlite3.Connection, memo: Memo, now: int) -> bool:
        self.prepare(conn)
        return borrowed.keep(conn, memo, now)


class DriverSession(SessionAdapter):
    """Adapts an ``aiosqlite.Connection`` or a ``sqlite3.Connection``.

    With the latter everything runs in the calling thread.
    """

    def __init__(
        self, store: StoreHandle, source: aiosqlite.Connection | sqlite3.Connection
    ) -> None:
        super().__init__(store, source, blocking=isinstance(source, sqlite3.Connection))

    async def reach(self) -> Any:
        """Return the source itself."""
        return self.source

    def prepare(self, conn: sqlite3.Connection) -> None:
        """Check the connection on each call, since the application may have changed its pragmas."""
        borrowed.prepare(conn, self.store.file, self.store.durability)

    async def end(self, verb: Verb) -> None:
        """End the transaction on the connection."""
        await self.call(_end, verb)


def _in_transaction(conn: sqlite3.Connection) -> bool:
    return conn.in_transaction


def _state(conn: sqlite3.Connection | None) -> State:
    """Return the state of a connection's transaction."""
    try:
        if conn is None:
            return "closed"
        if _has_no_end(conn):
            return "silent"
        return "open" if conn.in_transaction else "ended"
    except sqlite3.ProgrammingError:
        return "closed"


def _has_no_end(conn: sqlite3.Connection) -> bool:
    """Return whether the connection is always in a transaction; False if unknown."""
    try:
        return getattr(conn, "autocommit", -1) is False
    except sqlite3.ProgrammingError as error:
        # Unlike `in_transaction`, `autocommit` can only be read on the connection's thread, and aiosqlite has its own.
        if "thread" in str(error):
            return False
        raise


def _has_changed_and_ended(conn: sqlite3.Connection) -> bool:
    return conn.total_changes > 0 and not conn.in_transaction


def _end(conn: sqlite3.Connection, verb: Verb) -> None:
    getattr(conn, verb)()
    # With autocommit=True, these methods do nothing.
    if conn.in_transaction and getattr(conn, "autocommit", -1) is True:
        conn.execute(verb)
