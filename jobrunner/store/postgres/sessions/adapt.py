"""Chooses the adapter for a session of the application by its type."""

import sys

import asyncpg

from jobrunner.core.errors import InvalidSession
from jobrunner.store.postgres.sessions.adapter import StoreHandle
from jobrunner.store.postgres.sessions.drivers import AsyncpgSession, PsycopgSession
from jobrunner.store.session import Session


def session_of(store: StoreHandle, source: object) -> Session:
    """Return the ``Session`` for a session of the application.

    Raises:
        InvalidSession: The type of the session is not supported.
    """
    if isinstance(source, asyncpg.Connection):
        return AsyncpgSession(store, source)
    # Code that has such a session has imported its library; other code must not pay for the import.
    if (psycopg := sys.modules.get("psycopg")) is not None:
        if isinstance(source, psycopg.AsyncConnection):
            return PsycopgSession(store, source, blocking=False)
        if isinstance(source, psycopg.Connection):
            return PsycopgSession(store, source, blocking=True)
    if "sqlalchemy" in sys.modules:
        from jobrunner.store.postgres.sessions.sqlalchemy import sqlalchemy_session_of  # noqa: PLC0415 - see above

        session = sqlalchemy_session_of(store, source)
        if session is not None:
            return session
    raise InvalidSession(
        f"{source!r} is no session that jobs can be stored through: hand in an AsyncSession, AsyncConnection or Session"
        " of SQLAlchemy, or a connection of asyncpg or psycopg"
    )
