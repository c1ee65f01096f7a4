"""Chooses the adapter for a session of the application by its type."""

import sqlite3
import sys

import aiosqlite

from jobrunner.core.errors import InvalidSession
from jobrunner.store.session import Session
from jobrunner.store.sqlite.sessions.driver import DriverSession, StoreHandle


def session_of(store: StoreHandle, source: object) -> Session:
    """Return the ``Session`` for a session of the application.

    Raises:
        InvalidSession: The type of the session is not supported.
    """
    if isinstance(source, (aiosqlite.Connection, sqlite3.Connection)):
        return DriverSession(store, source)
    # Code that has such a session has imported SQLAlchemy; other code must not pay for the import.
    if "sqlalchemy" in sys.modules:
        from jobrunner.store.sqlite.sessions.sqlalchemy import sqlalchemy_session_of  # noqa: PLC0415 - see above

        session = sqlalchemy_session_of(store, source)
        if session is not None:
            return session
    raise InvalidSession(
        f"{source!r} is no session that jobs can be stored through: hand in an AsyncSession, AsyncConnection or Session"
        " of SQLAlchemy, an aiosqlite.Connection or a sqlite3.Connection"
    )
