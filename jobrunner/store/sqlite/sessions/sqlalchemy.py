"""SQLAlchemy's sessions as ``Session``; imported only where SQLAlchemy is in use.

``Session`` and ``AsyncSession`` say when a transaction has ended; the commit event of an ``AsyncConnection`` comes
before its rows can be seen, so that its end is asked for as that of a bare connection.
"""

import sqlite3
from collections.abc import Callable
from typing import Any, Final, NamedTuple, NoReturn

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
from jobrunner.store.sqlite.sessions import borrowed
from jobrunner.store.sqlite.sessions.driver import (
    SessionAdapter,
    StoreHandle,
    Verb,
    raise_as_a_session_error,
)
from jobrunner.store.sqlite.sessions.engine import ATTACH, ATTACHED, Attachment, engines

_COMMITTED: Final = "jobrunner.committed"
"""In ``info`` of a session that has been committed."""
_WATCHED: Final = "jobrunner.watched"
"""In ``info`` of a session that has jobs whose commit is to be reported."""


def sqlalchemy_session_of(store: StoreHandle, source: Any) -> "SqlalchemySession | None":
    """Return one of SQLAlchemy's sessions as a ``Session``; None if it is something else."""
    if isinstance(source, (scoped_session, async_scoped_session)):
        source = source()
    if isinstance(source, (Session, AsyncSession, AsyncConnection)):
        return SqlalchemySession(store, source)
    return None


class SqlalchemySession(SessionAdapter):
    """An ``AsyncSession``, an ``AsyncConnection``, or a ``Session``, where all is done in the calling thread."""

    attachment: Attachment

    def __init__(
        self, store: StoreHandle, source: Session | AsyncSession | AsyncConnection
    ) -> None:
        super().__init__(store, source, blocking=isinstance(source, Session))
        self.session: Session | None = None
        """It announces the end of its transactions; None for a connection, which does not."""
        if not isinstance(source, AsyncConnection):
            self.session = source.sync_session if isinstance(source, AsyncSession) else source

    async def reach(self) -> Any:
        """Return the connection of the session's transaction, which begins if there is none.

        Raises:
            InvalidSession: SQLAlchemy gives none, or the engine is not attached, or less durable than the store.
        """
        session = self.session
        try:
            if session is not None and (self.blocking or _has_connection(session)):
                driver, self.attachment = _grip(session, self.store)
            else:
                driver, self.attachment = await self.source.run_sync(_grip, self.store)
        except SQLAlchemyError as error:
            _raise_refused(error, self.store)
        if self.blocking and not isinstance(driver, sqlite3.Connection):
            raise InvalidSession(
                "the Session stands on an async engine: hand in the AsyncSession that it belongs to"
            )
        return driver

    def prepare(self, conn: sqlite3.Connection) -> None:
        """Check the connection once in its life: its engine has prepared it."""
        if self.attachment.file is not self.store.file:
            borrowed.prepare(conn, self.store.file, self.store.durability)
            self.attachment.file = self.store.file

    async def end(self, verb: Verb) -> None:
        """End the transaction by the method of SQLAlchemy."""
        ending = getattr(self.source, verb)()
        if not self.blocking:
            await ending

    def may_be_in_transaction(self) -> bool:
        """Return whether SQLAlchemy has begun one: reaching the connection does so."""
        return bool(self.source.in_transaction())

    def is_closed(self) -> bool:
        """Return whether the connection has gone back to its pool."""
        return self.session is None and bool(self.source.closed)

    async def has_changes(self) -> bool:
        """Return whether rows have changed: a transaction that only reads has nothing to be committed."""
        session = self.session
        if session is not None and (session.new or session.dirty or session.deleted):
            return True  # not flushed
        if not self.source.in_transaction():
            return False
        await self.reach()
        transaction = self.attachment.transaction
        return transaction is not None and transaction.has_changed()

    async def has_committed(self) -> bool:
        """Return whether the session has; a connection is pooled, and used for other transactions too."""
        return self.session is not None and _COMMITTED in self.session.info

    def watch(self, on_commit: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """Report a session's end by its events, and ask for that of a connection."""
        if self.session is None:
            super().watch(on_commit, on_lost)
        elif self.last_id is not None:
            watched: list[_Watched] = self.session.info.setdefault(_WATCHED, [])
            nested = self.session.get_nested_transaction()
            watched.append(_Watched(nested, on_commit, on_lost, self))


# -- the connection under a session ------------------------------------------------------------------


def _has_connection(session: Session) -> bool:
    """Return whether the session's one connection is there already, so that asking for it waits for nothing.

    SQLAlchemy has no public word for it; without its private one, run_sync() is the way, at twice the price.
    """
    if session.in_nested_transaction():
        return False  # its first use says SAVEPOINT
    connections: Any = getattr(session.get_transaction(), "_connections", ())
    return session.bind in connections


def _grip(source: Session | Connection, store: StoreHandle) -> tuple[Any, Attachment]:
    """Return the driver's connection, in the transaction of SQLAlchemy's one, and the notes on it.

    Raises:
        InvalidSession: its engine is not attached, or less durable than the store.
    """
    connection = source.connection() if isinstance(source, Session) else source
    if not connection.in_transaction():
        # As with its first statement; else its commit() would have nothing to commit.
        connection.begin()
    proxied: PoolProxiedConnection = connection.connection
    attachment: Attachment | None = proxied.info.get(ATTACHED)
    if attachment is None:
        raise InvalidSession(_not_attached(connection))
    if store.durability == "full" and attachment.durability != "full":
        raise InvalidSession(
            'the runner has durability="full" and the engine of the session durability="normal", so that a power cut'
            ' could undo an acknowledged job: write attach(engine) without it, or JobRunner(..., durability="normal")'
        )
    return proxied.driver_connection, attachment


def _not_attached(connection: Connection) -> str:
    if connection.dialect.name != "sqlite":
        return (
            f"the session is one of {connection.dialect.name} and the jobs are in an SQLite file: one transaction"
            " cannot span both"
        )
    if connection.dialect in engines:
        return f"the session's connection was opened before its engine was attached: {ATTACH}"
    return f"the session's engine is not attached, and would break the promises of the jobs' file: {ATTACH}"


def _raise_refused(error: SQLAlchemyError, store: StoreHandle) -> NoReturn:
    """Raise SQLAlchemy's refusal of its connection as the caller is to see it."""
    if isinstance(error, DBAPIError) and isinstance(error.orig, sqlite3.Error):
        raise_as_a_session_error(error.orig, store)
    raise InvalidSession(
        f"the session gives no connection to store jobs through: {error}"
    ) from error


# -- the end of a session's transaction ---------------------------------------------------------------


class _Watched(NamedTuple):
    """Jobs of one call whose commit is still to be reported."""

    nested: SessionTransaction | None
    """The innermost SAVEPOINT that they were stored in; None for the transaction itself."""
    on_commit: Callable[[], None]
    on_lost: Callable[[], None]
    by: SqlalchemySession


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
    for one in {one.on_commit: one for one in watched}.values():
        if one.by.driver.in_transaction:
            # A session inside a transaction that somebody else has begun, and ends.
            one.by.follow(one.on_commit, one.on_lost)
        else:
            one.on_commit()


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
            one.on_lost()


# On the class: once for every session there is, which is cheaper than anew for each one that carries jobs.
event.listen(Session, "after_commit", _after_commit)
event.listen(Session, "after_rollback", _after_rollback)
event.listen(Session, "after_transaction_end", _after_end)
