"""The application's own sessions as ``Session``, by their kind."""

import sqlite3
import sys

import aiosqlite

from jobrunner.core.errors import InvalidSession
from jobrunner.store.session import Session
from jobrunner.store.sqlite.sessions.driver import AiosqliteSession, SqliteSession, StoreHandle


def session_of(home: StoreHandle, source: object) -> Session:
    """Return what the application holds as a ``Session``.

    Raises:
        InvalidSession: it is of no known kind.
    """
    if isinstance(source, aiosqlite.Connection):
        return AiosqliteSession(home, source)
    if isinstance(source, sqlite3.Connection):
        return SqliteSession(home, source)
    # Whoever has such a session has imported it; nobody else is to pay for it.
    if "sqlalchemy" in sys.modules:
        from jobrunner.store.sqlite.sessions.sqlalchemy import alchemy_session_of  # noqa: PLC0415 - see above

        session = alchemy_session_of(home, source)
        if session is not None:
            return session
    raise InvalidSession(
        f"{source!r} is no session that jobs can be stored through: hand in an AsyncSession, AsyncConnection or Session"
        " of SQLAlchemy, an aiosqlite.Connection or a sqlite3.Connection"
    )
