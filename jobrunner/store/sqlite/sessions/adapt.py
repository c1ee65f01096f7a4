"""Picks the adapter for a session of the application by its type."""

import sqlite3
import sys

import aiosqlite

from jobrunner.core.errors import InvalidSession
from jobrunner.store.session import Session
from jobrunner.store.sqlite.sessions.driver import DriverSession, StoreHandle


def session_of(store: StoreHandle, source: object) -> Session:
    """Return a session of the application as a ``Session``.

    Raises:
        InvalidSession: it is of no known kind.
    """
    if isinstance(source, (aiosqlite.Connection, sqlite3.Connection)):
        return DriverSession(store, source)
    # Code that has such a session has imported it; other code is not to pay for it.
    if "sqlalchemy" in sys.modules:
        from jobrunner.store.sqlite.sessions.sqlalchemy import sqlalchemy_session_of  # noqa: PLC0415 - see above

        session = sqlalchemy_session_of(store, source)
        if session is not None:
            return session
    raise InvalidSession(
        f"{source!r} is no session that jobs can be stored through: hand in an AsyncSession, AsyncConnection or Session"
        " of SQLAlchemy, an aiosqlite.Connection or a sqlite3.Connection"
    )
