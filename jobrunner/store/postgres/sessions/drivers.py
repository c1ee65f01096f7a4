"""Adapts bare connections of asyncpg and psycopg to ``Session``."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import asyncpg

from jobrunner.core.errors import InvalidSession
from jobrunner.store.postgres.connection import Statements
from jobrunner.store.postgres.sessions.adapter import SessionAdapter, StoreHandle, Verb
from jobrunner.store.postgres.sessions.errors import CLOSED
from jobrunner.store.postgres.sessions.lent import LentAsyncpg, LentPsycopg
from jobrunner.store.sessions.watcher import State

T = TypeVar("T")

_IDLE: Final = 0
_UNKNOWN: Final = 4
"""libpq's numbers for the state of a connection's transaction."""


class AsyncpgSession(SessionAdapter):
    """Adapts an ``asyncpg.Connection``, also one that a pool has lent."""

    def __init__(self, store: StoreHandle, source: Any) -> None:
        super().__init__(store, source, blocking=False)
        self._begun: Any = None
        """The transaction that ``start`` has begun."""

    async def reached(self, function: Callable[[Statements, Any], Awaitable[T]]) -> T:
        try:
            if self.source.is_closed():
                raise InvalidSession(CLOSED)
        except asyncpg.InterfaceError as error:
            raise InvalidSession(CLOSED) from error  # given back to its pool
        # What a pool lends has no weak references; the connection below has.
        below = getattr(self.source, "_con", self.source)
        return await function(LentAsyncpg(self.source, self.store.schema), below)

    async def start(self) -> None:
        # By its own method, so that `connection.transaction()` of the application makes savepoints inside.
        begun = self.source.transaction()
        await begun.start()
        self._begun = begun

    async def end(self, verb: Verb) -> None:
        begun, self._begun = self._begun, None
        if not self.is_in_transaction():
            return
        if begun is not None:
            await getattr(begun, verb)()
        else:
            # A block of the application ends it: it has nothing left to do then, and the server says so in its log.
            await self.source.execute(verb.upper())

    def is_in_transaction(self) -> bool:
        return self.state() == "open"

    def begins_itself(self) -> bool:
        return False

    def state(self) -> State:
        try:
            if self.source.is_closed():
                return "closed"
            return "open" if self.source.is_in_transaction() else "ended"
        except asyncpg.InterfaceError:
            return "closed"


class PsycopgSession(SessionAdapter):
    """Adapts a ``psycopg.AsyncConnection`` or ``psycopg.Connection``.

    With the latter everything runs in the calling thread.
    """

    def __init__(self, store: StoreHandle, source: Any, *, blocking: bool) -> None:
        super().__init__(store, source, blocking=blocking)
        self._lent = LentPsycopg(source, store.schema, blocking=blocking)

    async def reached(self, function: Callable[[Statements, Any], Awaitable[T]]) -> T:
        if self.source.closed:
            raise InvalidSession(CLOSED)
        return await function(self._lent, self.source)

    async def start(self) -> None:
        # Otherwise the driver begins one before the next statement.
        if self.source.autocommit:
            await self._lent.execute("BEGIN")

    async def end(self, verb: Verb) -> None:
        # Its own methods refuse to work inside `connection.transaction()`, which then has nothing left to do.
        if self.is_in_transaction():
            await self._lent.execute(verb.upper())

    def is_in_transaction(self) -> bool:
        return int(self.source.info.transaction_status) not in (_IDLE, _UNKNOWN)

    def begins_itself(self) -> bool:
        return not self.source.autocommit

    def state(self) -> State:
        return state_of(self.source)


def state_of(driver: Any) -> State:
    """Return the state of the transaction of a driver's connection."""
    if isinstance(driver, asyncpg.Connection):
        if driver.is_closed():
            return "closed"
        return "open" if driver.is_in_transaction() else "ended"
    if driver.closed:
        return "closed"
    return "ended" if int(driver.info.transaction_status) == _IDLE else "open"
