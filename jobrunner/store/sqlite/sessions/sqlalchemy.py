"""SQLAlchemy's sessions as ``Session``, and its engines prepared for them; imported only where SQLAlchemy is in use.

``Session`` and ``AsyncSession`` say when a transaction has ended; the commit event of an ``AsyncConnection`` comes
before its rows can be seen, so that its end is looked for as that of a bare connection.
"""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple, NoReturn, TypeVar, cast

from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncSession,
    async_scoped_session,
)
from sqlalchemy.orm import Session, SessionTransaction, scoped_session
from sqlalchemy.pool import PoolProxiedConnection

from jobrunner.core.errors import InvalidSession
from jobrunner.core.model import Enqueue, Enqueued, Outcome
from jobrunner.core.shield import to_the_end
from jobrunner.store.sqlite.sessions import borrowed
from jobrunner.store.sqlite.sessions.driver import (
    IN_TRANSACTION,
    Joining,
    StoreHandle,
    raise_as_a_session_error,
)
from jobrunner.store.sqlite.sessions.engine import ATTACH, ATTACHED, Attachment, engines

T = TypeVar("T")

_COMMITTED: Final = "jobrunner.committed"
"""In ``info`` of a session that has been committed."""
_WATCHED: Final = "jobrunner.watched"
"""In ``info`` of a session that has jobs of which nobody has been told."""

# -- sessions ----------------------------------------------------------------------------------------


class Grip(NamedTuple):
    """The connection under a session, and what is known of it."""

    driver: Any
    attachment: Attachment


def alchemy_session_of(
    home: StoreHandle, source: Any
) -> "AlchemySession | AlchemyAsyncSession | AlchemyAsyncConnection | None":
    """Return one of SQLAlchemy's sessions as a ``Session``; None if it is something else."""
    if isinstance(source, (scoped_session, async_scoped_session)):
        source = source()
    if isinstance(source, AsyncSession):
        return AlchemyAsyncSession(home, source)
    if isinstance(source, AsyncConnection):
        return AlchemyAsyncConnection(home, source)
    if isinstance(source, Session):
        return AlchemySession(home, source)
    return None


def _grip(connection: Connection, home: StoreHandle) -> Grip:
    """Return the driver's connection, in the transaction of SQLAlchemy's one.

    Raises:
        InvalidSession: its engine is not attached, or less durable than the store.
    """
    if not connection.in_transaction():
        # As with its first statement; else its commit() would have nothing to commit.
        connection.begin()
    proxied: PoolProxiedConnection = connection.connection
    attachment: Attachment | None = proxied.info.get(ATTACHED)
    if attachment is None:
        raise InvalidSession(_not_attached(connection))
    if home.durability == "full" and attachment.durability != "full":
        raise InvalidSession(
            'the runner has durability="full" and the engine of the session durability="normal", so that a power cut'
            ' could undo an acknowledged job: write attach(engine) without it, or JobRunner(..., durability="normal")'
        )
    return Grip(proxied.driver_connection, attachment)


def _not_attached(connection: Connection) -> str:
    if connection.dialect.name != "sqlite":
        return (
            f"the session is one of {connection.dialect.name} and the jobs are in an SQLite file: one transaction"
            " cannot span both"
        )
    if connection.dialect in engines:
        return f"the session's connection was opened before its engine was attached: {ATTACH}"
    return f"the session's engine is not attached, and would break the promises of the jobs' file: {ATTACH}"


def _raise_refused(error: SQLAlchemyError, home: StoreHandle) -> NoReturn:
    """Raise what it means for whoever enqueues that SQLAlchemy does not give us its connection."""
    if isinstance(error, DBAPIError) and isinstance(error.orig, sqlite3.Error):
        raise_as_a_session_error(error.orig, home)
    raise InvalidSession(
        f"the session gives no connection to store jobs through: {error}"
    ) from error


def _grip_of_session(session: Session, home: StoreHandle) -> Grip:
    return _grip(session.connection(), home)


def _has_connection(session: Session) -> bool:
    """Return whether the session's one connection is there already, so that asking for it waits for nothing.

    SQLAlchemy has no public word for it; without its private one, run_sync() is the way, at twice the price.
    """
    if session.in_nested_transaction():
        return False  # its first use says SAVEPOINT
    connections: Any = getattr(session.get_transaction(), "_connections", ())
    return session.bind in connections


def _has_unflushed(session: Session) -> bool:
    return bool(session.new or session.dirty or session.deleted)


def _has_changed(grip: Grip) -> bool:
    """Return whether its transaction has changed rows; one that only reads has nothing to be committed."""
    begun = grip.attachment.begun
    return begun is not None and begun.has_changed()


def _in_transaction(driver: Any) -> bool:
    return bool(driver.in_transaction)


class _Alchemy(Joining):
    """What SQLAlchemy's kinds share; the functions here run where the connection is used."""

    driver: Any = None
    """The driver's connection that jobs were stored through last."""

    def is_closed(self) -> bool:
        """Return whether the session cannot be committed any more, whatever its connection is used for next."""
        return False

    def follow(self, tell: Callable[[], None], lost: Callable[[], None]) -> None:
        """Look for the end of the connection's transaction, of which nobody will say anything."""
        driver = self.driver
        if self.last_id is None or driver is None:
            return

        def raw() -> sqlite3.Connection | None:
            if self.is_closed():
                return None
            held = driver if self.blocking else driver._connection  # noqa: SLF001 - None once closed
            return cast("sqlite3.Connection | None", held)

        self.home.watch.add(raw, id(self), self.last_id, tell, lost)

    def insert_at(
        self,
        conn: sqlite3.Connection,
        attachment: Attachment,
        jobs: Sequence[Enqueue],
        now: int,
    ) -> list[Enqueued]:
        self.make_sure(conn, attachment)
        return self.stored(borrowed.insert(conn, jobs, now))

    def settle_at(
        self, conn: sqlite3.Connection, attachment: Attachment, outcome: Outcome, now: int
    ) -> bool:
        self.make_sure(conn, attachment)
        return borrowed.settle(conn, outcome, now)

    def begin_at(self, conn: sqlite3.Connection, attachment: Attachment) -> None:
        self.make_sure(conn, attachment)
        borrowed.begin(conn)

    def make_sure(self, conn: sqlite3.Connection, attachment: Attachment) -> None:
        """Hold the connection against the store's file, once in its life."""
        if attachment.file is not self.home.file:
            borrowed.prepare(conn, self.home.file, self.home.durability)
            attachment.file = self.home.file


class AlchemySession(_Alchemy):
    """A ``Session``: everything is done at once, in the calling thread."""

    blocking = True

    def __init__(self, home: StoreHandle, source: Session) -> None:
        super().__init__(home)
        self.source = source

    def _grip(self) -> Grip:
        try:
            grip = _grip_of_session(self.source, self.home)
        except SQLAlchemyError as error:
            _raise_refused(error, self.home)
        if not isinstance(grip.driver, sqlite3.Connection):
            raise InvalidSession(
                "the Session stands on an async engine: hand in the AsyncSession that it belongs to"
            )
        self.driver = grip.driver
        return grip

    def _do(self, function: Callable[..., T], *args: Any) -> T:
        driver, attachment = self._grip()
        try:
            return function(driver, attachment, *args)
        except sqlite3.Error as error:
            raise_as_a_session_error(error, self.home)
            raise

    async def has_changes(self) -> bool:
        """See ``Session.has_changes``."""
        if _has_unflushed(self.source):
            return True
        return self.source.in_transaction() and _has_changed(self._grip())

    async def begin(self) -> None:
        """See ``Session.begin``."""
        if self.source.in_transaction() and _in_transaction(self._grip().driver):
            raise InvalidSession(IN_TRANSACTION)
        self._do(self.begin_at)

    async def enqueue(self, jobs: Sequence[Enqueue], *, now: int) -> list[Enqueued]:
        """See ``Session.enqueue``."""
        return self._do(self.insert_at, jobs, now)

    async def settle(self, outcome: Outcome, *, now: int) -> bool:
        """See ``Session.settle``."""
        return self._do(self.settle_at, outcome, now)

    async def has_committed(self) -> bool:
        """See ``Session.has_committed``."""
        return _COMMITTED in self.source.info

    async def commit(self) -> None:
        """See ``Session.commit``."""
        self.source.commit()

    async def rollback(self) -> None:
        """See ``Session.rollback``."""
        self.source.rollback()

    def watch(self, tell: Callable[[], None], lost: Callable[[], None]) -> None:
        """See ``Session.watch``."""
        if self.last_id is not None:
            _watch(self, self.source, tell, lost)


class _AsyncAlchemy(_Alchemy, ABC):
    @abstractmethod
    async def grip(self) -> Grip:
        """Return the connection that the present transaction uses."""

    async def _hop(self, function: Callable[..., T], *args: Any) -> T:
        driver, attachment = await self.grip()
        try:
            hop: Callable[..., Awaitable[T]] = driver._execute  # noqa: SLF001 - as in ``connection``
            return await hop(function, driver._conn, attachment, *args)  # noqa: SLF001
        except sqlite3.Error as error:
            raise_as_a_session_error(error, self.home)
            raise

    async def enqueue(self, jobs: Sequence[Enqueue], *, now: int) -> list[Enqueued]:
        """See ``Session.enqueue``."""
        return await self._hop(self.insert_at, jobs, now)

    async def settle(self, outcome: Outcome, *, now: int) -> bool:
        """See ``Session.settle``."""
        return await self._hop(self.settle_at, outcome, now)


class AlchemyAsyncSession(_AsyncAlchemy):
    """An ``AsyncSession``."""

    def __init__(self, home: StoreHandle, source: AsyncSession) -> None:
        super().__init__(home)
        self.source = source

    async def grip(self) -> Grip:
        """Return the connection that the session's transaction uses."""
        session = self.source.sync_session
        try:
            if _has_connection(session):
                grip = _grip_of_session(session, self.home)
            else:
                grip = await self.source.run_sync(_grip_of_session, self.home)
        except SQLAlchemyError as error:
            _raise_refused(error, self.home)
        self.driver = grip.driver
        return grip

    async def has_changes(self) -> bool:
        """See ``Session.has_changes``."""
        if _has_unflushed(self.source.sync_session):
            return True
        return self.source.in_transaction() and _has_changed(await self.grip())

    async def begin(self) -> None:
        """See ``Session.begin``."""
        if self.source.in_transaction() and _in_transaction((await self.grip()).driver):
            raise InvalidSession(IN_TRANSACTION)
        await self._hop(self.begin_at)

    async def has_committed(self) -> bool:
        """See ``Session.has_committed``."""
        return _COMMITTED in self.source.sync_session.info

    async def commit(self) -> None:
        """See ``Session.commit``."""
        await to_the_end(self.source.commit())

    async def rollback(self) -> None:
        """See ``Session.rollback``."""
        await to_the_end(self.source.rollback())

    def watch(self, tell: Callable[[], None], lost: Callable[[], None]) -> None:
        """See ``Session.watch``."""
        if self.last_id is not None:
            _watch(self, self.source.sync_session, tell, lost)


class AlchemyAsyncConnection(_AsyncAlchemy):
    """An ``AsyncConnection``."""

    def __init__(self, home: StoreHandle, source: AsyncConnection) -> None:
        super().__init__(home)
        self.source = source

    async def grip(self) -> Grip:
        """Return the driver's connection."""
        try:
            grip = await self.source.run_sync(_grip, self.home)
        except SQLAlchemyError as error:
            _raise_refused(error, self.home)
        self.driver = grip.driver
        return grip

    def is_closed(self) -> bool:
        """Return whether the connection has gone back to its pool."""
        return self.source.closed

    async def has_changes(self) -> bool:
        """See ``Session.has_changes``."""
        return self.source.in_transaction() and _has_changed(await self.grip())

    async def begin(self) -> None:
        """See ``Session.begin``."""
        if self.source.in_transaction() and _in_transaction((await self.grip()).driver):
            raise InvalidSession(IN_TRANSACTION)
        await self._hop(self.begin_at)

    async def has_committed(self) -> bool:
        """See ``Session.has_committed``; nobody knows what else its pooled connection has been used for."""
        return False

    async def commit(self) -> None:
        """See ``Session.commit``."""
        await to_the_end(self.source.commit())

    async def rollback(self) -> None:
        """See ``Session.rollback``."""
        await to_the_end(self.source.rollback())

    def watch(self, tell: Callable[[], None], lost: Callable[[], None]) -> None:
        """See ``Session.watch``."""
        self.follow(tell, lost)


# -- the end of a session's transaction ---------------------------------------------------------------


class _Watched(NamedTuple):
    """Jobs of one call that nobody has been told of."""

    nested: SessionTransaction | None
    """The innermost SAVEPOINT that they were stored in; None for the transaction itself."""
    tell: Callable[[], None]
    lost: Callable[[], None]
    by: _Alchemy


def _watch(
    by: _Alchemy, session: Session, tell: Callable[[], None], lost: Callable[[], None]
) -> None:
    watched: list[_Watched] = session.info.setdefault(_WATCHED, [])
    watched.append(_Watched(session.get_nested_transaction(), tell, lost, by))


def _after_commit(session: Session) -> None:
    if session.get_nested_transaction() is None:
        session.info[_COMMITTED] = True
    watched: list[_Watched] | None = session.info.get(_WATCHED)
    if not watched:
        return
    nested = session.get_nested_transaction()
    if nested is not None:
        # A SAVEPOINT was released: what was in it is in what lies around it.
        around = nested.parent if nested.parent is not None and nested.parent.nested else None
        watched[:] = [
            one._replace(nested=around) if one.nested is nested else one for one in watched
        ]
        return
    del session.info[_WATCHED]
    for one in {one.tell: one for one in watched}.values():
        if _in_transaction(one.by.driver):
            # A session inside a transaction that somebody else has begun, and ends.
            one.by.follow(one.tell, one.lost)
        else:
            one.tell()


def _after_rollback(session: Session) -> None:
    watched: list[_Watched] | None = session.info.get(_WATCHED)
    if not watched:
        return
    nested = session.get_nested_transaction()
    if nested is None:
        del session.info[_WATCHED]
    else:
        watched[:] = [one for one in watched if one.nested is not nested]


def _after_end(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None and _WATCHED in session.info:
        for one in session.info.pop(_WATCHED):
            one.lost()


# On the class: once for every session there is, which is cheaper than anew for each one that carries jobs.
event.listen(Session, "after_commit", _after_commit)
event.listen(Session, "after_rollback", _after_rollback)
event.listen(Session, "after_transaction_end", _after_end)
