"""Adapts SQLAlchemy's sessions to ``Session``; imported only if SQLAlchemy is in use.

All statements go through SQLAlchemy: a session that has executed nothing yet has begun no transaction on its driver's
connection, and what is sent there would commit by itself.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn, TypeVar

from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from jobrunner.core.errors import InvalidSession, JobRunnerError
from jobrunner.core.shield import at_once
from jobrunner.store.postgres.connection import Statements
from jobrunner.store.postgres.sessions.adapter import SessionAdapter, StoreHandle, Verb
from jobrunner.store.postgres.sessions.drivers import state_of
from jobrunner.store.postgres.sessions.errors import as_session_error
from jobrunner.store.postgres.sessions.lent import LentSqlalchemy
from jobrunner.store.sessions import events
from jobrunner.store.sessions.watcher import State

T = TypeVar("T")

_DRIVERS: Final = ("asyncpg", "psycopg", "psycopg2")


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

    def __init__(
        self, store: StoreHandle, source: Session | AsyncSession | AsyncConnection
    ) -> None:
        super().__init__(store, source, blocking=isinstance(source, Session))
        self.driver: Any = None
        """The driver's connection that was used last."""
        self.session: Session | None = None
        """The session whose events report the end of its transactions; None for a connection."""
        if not isinstance(source, AsyncConnection):
            self.session = source.sync_session if isinstance(source, AsyncSession) else source

    async def reached(self, function: Callable[[Statements, Any], Awaitable[T]]) -> T:
        try:
            if self.blocking:
                return self._reached(self.source, function)
            answer: T = await self.source.run_sync(self._reached, function)
        except SQLAlchemyError as error:
            _raise_refused(error, self.store)
        return answer

    def _reached(
        self, source: Session | Connection, function: Callable[[Statements, Any], Awaitable[T]]
    ) -> T:
        """Call the function with the connection, in the thread or greenlet of SQLAlchemy."""
        if self.blocking and self.source.get_bind().dialect.is_async:
            raise InvalidSession(
                "the Session stands on an async engine: hand in the AsyncSession that it belongs to"
            )
        connection = source.connection() if isinstance(source, Session) else source
        self._require(connection)
        if not connection.in_transaction():
            connection.begin()
        self.driver = connection.connection.driver_connection

        async def call() -> T:
            return await function(LentSqlalchemy(connection, self.store.schema), self.driver)

        return at_once(call())

    def _require(self, connection: Connection) -> None:
        dialect = connection.dialect
        if dialect.name != "postgresql" or dialect.driver not in _DRIVERS:
            raise InvalidSession(
                f"the session is one of {dialect.name}+{dialect.driver} and the jobs are in {self.store.name}: one"
                " transaction cannot span both, and jobs are stored through asyncpg or psycopg"
            )

    async def start(self) -> None:
        """Do nothing: SQLAlchemy begins a transaction before the first statement."""

    async def end(self, verb: Verb) -> None:
        """Commit or roll back by the session's own method."""
        ending = getattr(self.source, verb)()
        if not self.blocking:
            await ending

    def is_in_transaction(self) -> bool:
        return bool(self.source.in_transaction())

    def begins_itself(self) -> bool:
        return True

    def state(self) -> State:
        """See ``SessionAdapter.state``; a connection that went back to its pool may serve another user."""
        if self.session is None and self.source.closed:
            return "closed"
        return state_of(self.driver)

    def is_open(self) -> bool:
        """Return whether the driver's connection is in a transaction."""
        return state_of(self.driver) == "open"

    async def has_changes(self) -> bool:
        """Return whether rows have changed; a transaction that only reads has no changes."""
        session = self.session
        if session is not None and (session.new or session.dirty or session.deleted):
            return True  # not flushed
        return await super().has_changes()

    async def has_committed(self) -> bool:
        """Return whether the session has committed."""
        if self.session is not None:
            return events.has_committed(self.session)
        return await super().has_committed()

    def watch(self, on_commit: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """Use the events of a session; follow the transaction of a connection."""
        if self.session is None:
            super().watch(on_commit, on_lost)
        elif self.last_id is not None:
            events.watch(self.session, self, on_commit, on_lost)


def _raise_refused(error: SQLAlchemyError, store: StoreHandle) -> NoReturn:
    """Raise an error of SQLAlchemy as the error that the session's user sees."""
    ours: JobRunnerError | None = as_session_error(error, store.name)
    raise ours or InvalidSession(
        f"the session gives no connection to store jobs through: {error}"
    ) from error
