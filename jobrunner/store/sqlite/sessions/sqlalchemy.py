"""Adapts SQLAlchemy's sessions to ``Session``; imported only if SQLAlchemy is in use.

``Session`` and ``AsyncSession`` have events for the end of a transaction.  The commit event of an ``AsyncConnection``
comes before its rows are visible, so its transaction is watched like that of a bare connection.
"""

import sqlite3
from collections.abc import Callable
from typing import Any, NoReturn

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncSession,
    async_scoped_session,
)
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.pool import PoolProxiedConnection

from jobrunner.core.errors import InvalidSession
from jobrunner.store.sessions import events
from jobrunner.store.sqlite.sessions import borrowed
from jobrunner.store.sqlite.sessions.driver import (
    SessionAdapter,
    StoreHandle,
    Verb,
    raise_as_a_session_error,
)
from jobrunner.store.sqlite.sessions.engine import ATTACH, ATTACHED, Attachment, engines


def sqlalchemy_session_of(store: StoreHandle, source: Any) -> "SqlalchemySession | None":
    """Return the ``Session`` for a session of SQLAlchemy; None for other objects."""
    if isinstance(source, (scoped_session, async_scoped_session)):
        source = source()
    if isinstance(source, (Session, AsyncSession, AsyncConnection)):
        return SqlalchemySession(store, source)
    return None


class SqlalchemySession(SessionAdapter):
    """Adapts an ``AsyncSession``, an ``AsyncConnection`` or a ``Session``.

    With the last everything runs in the calling thread.
    """

    attachment: Attachment

    def __init__(
        self, store: StoreHandle, source: Session | AsyncSession | AsyncConnection
    ) -> None:
        super().__init__(store, source, blocking=isinstance(source, Session))
        self.session: Session | None = None
        """The session whose events report the end of its transactions; None for a connection."""
        if not isinstance(source, AsyncConnection):
            self.session = source.sync_session if isinstance(source, AsyncSession) else source

    async def reach(self) -> Any:
        """Return the connection of the session's transaction, which begins if needed.

        Raises:
            InvalidSession: SQLAlchemy gives no connection, or the engine is not attached or less durable than the
                store.
        """
        session = self.session
        try:
            if session is not None and (self.blocking or _has_connection(session)):
                driver, self.attachment = _driver_connection(session, self.store)
            else:
                driver, self.attachment = await self.source.run_sync(_driver_connection, self.store)
        except SQLAlchemyError as error:
            _raise_refused(error, self.store)
        if self.blocking and not isinstance(driver, sqlite3.Connection):
            raise InvalidSession(
                "the Session stands on an async engine: hand in the AsyncSession that it belongs to"
            )
        return driver

    def prepare(self, conn: sqlite3.Connection) -> None:
        """Check the connection once: its engine has set the pragmas."""
        if self.attachment.file is not self.store.file:
            borrowed.prepare(conn, self.store.file, self.store.durability)
            self.attachment.file = self.store.file

    async def end(self, verb: Verb) -> None:
        """Commit or roll back by the session's own method."""
        ending = getattr(self.source, verb)()
        if not self.blocking:
            await ending

    def may_be_in_transaction(self) -> bool:
        """Return whether SQLAlchemy has begun a transaction; ``reach`` begins one."""
        return bool(self.source.in_transaction())

    def is_closed(self) -> bool:
        """Return whether the connection has gone back to its pool."""
        return self.session is None and bool(self.source.closed)

    async def has_changes(self) -> bool:
        """Return whether rows have changed; a transaction that only reads has no changes."""
        session = self.session
        if session is not None and (session.new or session.dirty or session.deleted):
            return True  # not flushed
        if not self.source.in_transaction():
            return False
        await self.reach()
        transaction = self.attachment.transaction
        return transaction is not None and transaction.has_changed()

    async def has_committed(self) -> bool:
        """Return whether the session has committed; always False for a connection.

        A pooled connection also serves other transactions, so its state proves nothing.
        """
        return self.session is not None and events.has_committed(self.session)

    def watch(self, on_commit: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """Use the events of a session; follow the transaction of a connection."""
        if self.session is None:
            super().watch(on_commit, on_lost)
        elif self.last_id is not None:
            events.watch(self.session, self, on_commit, on_lost)

    def is_open(self) -> bool:
        """Return whether the connection is in a transaction."""
        return bool(self.driver.in_transaction)


# -- the connection under a session ------------------------------------------------------------------


def _has_connection(session: Session) -> bool:
    """Return whether the session already has its connection, so that ``_driver_connection`` does not wait.

    SQLAlchemy has no public attribute for this. The alternative to the private one is run_sync(), at twice the cost.
    """
    if session.in_nested_transaction():
        return False  # its first use emits SAVEPOINT
    connections: Any = getattr(session.get_transaction(), "_connections", ())
    return session.bind in connections


def _driver_connection(source: Session | Connection, store: StoreHandle) -> tuple[Any, Attachment]:
    """Return the driver's connection, in a transaction of SQLAlchemy, and its attachment.

    Raises:
        InvalidSession: The engine is not attached or is less durable than the store.
    """
    connection = source.connection() if isinstance(source, Session) else source
    if not connection.in_transaction():
        # As its first statement would; otherwise its commit() would do nothing.
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
    """Raise an error of SQLAlchemy as the error that the session's user sees."""
    if isinstance(error, DBAPIError) and isinstance(error.orig, sqlite3.Error):
        raise_as_a_session_error(error.orig, store)
    raise InvalidSession(
        f"the session gives no connection to store jobs through: {error}"
    ) from error
