"""Bare connections of aiosqlite and sqlite3 as ``Session``, and what all kinds of sessions share.

Each operation is one callable in one hop, so that a cancelled ``await`` never leaves half of it in the transaction.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import aiosqlite

from jobrunner.core.errors import InvalidSession, StoreBusy
from jobrunner.core.model import Enqueue, Enqueued, Outcome
from jobrunner.core.shield import to_the_end
from jobrunner.store.sqlite.driver_errors import raise_as_ours
from jobrunner.store.sqlite.host.identity import FileIdentity
from jobrunner.store.sqlite.sessions import borrowed
from jobrunner.store.sqlite.sessions.watcher import Watch

T = TypeVar("T")

CLOSED = "the connection is closed: enqueue before the block ends that opened it"


class StoreHandle(NamedTuple):
    """What a session needs to know of the open store."""

    file: FileIdentity
    durability: str
    watch: Watch


def raise_as_a_session_error(error: sqlite3.Error, home: StoreHandle) -> Any:
    """Raise the error that says what a driver's one means for whoever wrote through a session."""
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
    raise_as_ours(error, home.file.path)


class Joining:
    """What the kinds share."""

    blocking: bool = False

    def __init__(self, home: StoreHandle) -> None:
        self.home = home
        self.last_id: str | None = None
        """Of the job that this session has stored last."""

    def insert(self, conn: sqlite3.Connection, jobs: Sequence[Enqueue], now: int) -> list[Enqueued]:
        """Insert jobs; on the thread that the connection is used on."""
        borrowed.prepare(conn, self.home.file, self.home.durability)
        return self.stored(borrowed.insert(conn, jobs, now))

    def stored(self, jobs: list[Enqueued]) -> list[Enqueued]:
        """Note what is to be seen once the transaction is committed."""
        for job in reversed(jobs):
            if job.created:
                self.last_id = job.id
                break
        return jobs

    def settle_in(self, conn: sqlite3.Connection, outcome: Outcome, now: int) -> bool:
        """Write an outcome; on the thread that the connection is used on."""
        borrowed.prepare(conn, self.home.file, self.home.durability)
        return borrowed.settle(conn, outcome, now)

    def begin_in(self, conn: sqlite3.Connection) -> None:
        """Begin a write transaction; on the thread that the connection is used on."""
        borrowed.prepare(conn, self.home.file, self.home.durability)
        # One that is always in a transaction has no way to tell whether something is in it.
        if conn.in_transaction and getattr(conn, "autocommit", -1) is not False:
            raise InvalidSession(IN_TRANSACTION)
        borrowed.begin(conn)


IN_TRANSACTION = (
    "the session is in a transaction already, and a write transaction cannot begin in the middle of it: commit or roll"
    " back first, or use a session of its own"
)


class AiosqliteSession(Joining):
    """An ``aiosqlite.Connection``."""

    def __init__(self, home: StoreHandle, source: aiosqlite.Connection) -> None:
        super().__init__(home)
        self.source = source

    async def _hop(self, function: Callable[..., T], *args: Any) -> T:
        try:
            # As in ``connection``: aiosqlite has no public call that takes a function.
            hop: Callable[..., Awaitable[T]] = self.source._execute  # noqa: SLF001
            return await hop(_on_connection, self.source, function, args)
        except sqlite3.Error as error:
            raise_as_a_session_error(error, self.home)
            raise
        except ValueError as error:
            if "closed" in str(error) or "no active connection" in str(error):
                raise InvalidSession(CLOSED) from error
            raise

    async def has_changes(self) -> bool:
        """See ``Session.has_changes``."""
        return await self._hop(_in_transaction)

    async def has_committed(self) -> bool:
        """See ``Session.has_committed``."""
        return _has_committed(self.source)

    async def begin(self) -> None:
        """See ``Session.begin``."""
        await self._hop(self.begin_in)

    async def enqueue(self, jobs: Sequence[Enqueue], *, now: int) -> list[Enqueued]:
        """See ``Session.enqueue``."""
        return await self._hop(self.insert, jobs, now)

    async def settle(self, outcome: Outcome, *, now: int) -> bool:
        """See ``Session.settle``."""
        return await self._hop(self.settle_in, outcome, now)

    async def commit(self) -> None:
        """See ``Session.commit``."""
        await to_the_end(self._hop(_commit))

    async def rollback(self) -> None:
        """See ``Session.rollback``."""
        await to_the_end(self._hop(_rollback))

    def watch(self, tell: Callable[[], None], lost: Callable[[], None]) -> None:
        """See ``Session.watch``."""
        if self.last_id is not None:
            source = self.source
            self.home.watch.add(
                lambda: source._connection,  # noqa: SLF001 - None once closed, where `_conn` would raise
                id(source),
                self.last_id,
                tell,
                lost,
            )


class SqliteSession(Joining):
    """A ``sqlite3.Connection``: everything is done at once, in the calling thread."""

    blocking = True

    def __init__(self, home: StoreHandle, source: sqlite3.Connection) -> None:
        super().__init__(home)
        self.source = source

    def _do(self, function: Callable[..., T], *args: Any) -> T:
        try:
            return function(self.source, *args)
        except sqlite3.Error as error:
            raise_as_a_session_error(error, self.home)
            raise

    async def has_changes(self) -> bool:
        """See ``Session.has_changes``."""
        return self._do(_in_transaction)

    async def has_committed(self) -> bool:
        """See ``Session.has_committed``."""
        return self._do(_has_committed)

    async def begin(self) -> None:
        """See ``Session.begin``."""
        self._do(self.begin_in)

    async def enqueue(self, jobs: Sequence[Enqueue], *, now: int) -> list[Enqueued]:
        """See ``Session.enqueue``."""
        return self._do(self.insert, jobs, now)

    async def settle(self, outcome: Outcome, *, now: int) -> bool:
        """See ``Session.settle``."""
        return self._do(self.settle_in, outcome, now)

    async def commit(self) -> None:
        """See ``Session.commit``."""
        self._do(_commit)

    async def rollback(self) -> None:
        """See ``Session.rollback``."""
        self._do(_rollback)

    def watch(self, tell: Callable[[], None], lost: Callable[[], None]) -> None:
        """See ``Session.watch``."""
        if self.last_id is not None:
            source = self.source
            self.home.watch.add(lambda: source, id(source), self.last_id, tell, lost)


def _on_connection(
    source: aiosqlite.Connection, function: Callable[..., T], args: tuple[Any, ...]
) -> T:
    return function(source._conn, *args)  # noqa: SLF001 - as above


def _in_transaction(conn: sqlite3.Connection) -> bool:
    return conn.in_transaction


def _has_committed(conn: sqlite3.Connection | aiosqlite.Connection) -> bool:
    # Or rolled back; a connection does not tell, and nothing at all while it is in another transaction.
    return conn.total_changes > 0 and not conn.in_transaction


def _commit(conn: sqlite3.Connection) -> None:
    # With autocommit=True, commit() does nothing.
    conn.commit()
    if conn.in_transaction and getattr(conn, "autocommit", -1) is True:
        conn.execute("COMMIT")


def _rollback(conn: sqlite3.Connection) -> None:
    conn.rollback()
    if conn.in_transaction and getattr(conn, "autocommit", -1) is True:
        conn.execute("ROLLBACK")
