"""Finds out from the text of a statement whether it will commit.

Python's driver announces no commit, neither before nor after it.  A statement that is wrongly taken for one that
commits does no harm: the guard is called at a moment more.
"""

import re
import sqlite3
from typing import Any, Final

import aiosqlite

_BEFORE_A_WORD: Final = re.compile(r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/|;)*([a-zA-Z]*)", re.DOTALL)
_ENDS: Final = frozenset({"COMMIT", "END", "RELEASE"})
_CHANGES_ROWS: Final = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE"})
_CHANGES_TABLES: Final = frozenset(
    {"CREATE", "DROP", "ALTER", "REINDEX", "ANALYZE", "VACUUM", "PRAGMA"}
)
_WRITES_SOMEWHERE: Final = re.compile(
    r"\b(insert|update|delete|replace|create|drop|alter|reindex|analyze|vacuum)\b", re.IGNORECASE
)
_RETURNS: Final = re.compile(r"\breturning\b", re.IGNORECASE)
_PRAGMA_WRITES: Final = re.compile(r"\b(user_version|application_id)\s*[=(]", re.IGNORECASE)


class Statement:
    """The text of a statement, or of a script."""

    __slots__ = ("_sql", "is_script", "word")

    def __init__(self, sql: Any, *, is_script: bool = False) -> None:
        self._sql = sql if isinstance(sql, str) else ""  # the driver refuses anything else
        self.is_script = is_script
        found = _BEFORE_A_WORD.match(self._sql)
        self.word = found.group(1).upper() if found else ""
        """Its first word."""

    @property
    def is_suspect(self) -> bool:
        """True if it may commit, or begins a savepoint, whatever the connection's state."""
        return (
            self.is_script
            or self.word in _ENDS
            or self.word in _CHANGES_ROWS
            or self.word in _CHANGES_TABLES
            or self.word in ("WITH", "SAVEPOINT")
        )

    def has_committed(self, conn: sqlite3.Connection | aiosqlite.Connection) -> bool:
        """Return whether the connection has committed by running it."""
        # With autocommit=False the driver begins the next transaction at once.
        return self.word in ("COMMIT", "END") or not conn.in_transaction

    @property
    def returns_rows(self) -> bool:
        """True if it commits only once its rows are read."""
        return _RETURNS.search(self._sql) is not None

    @property
    def writes(self) -> bool:
        """True if it writes, and the driver begins no transaction before it."""
        if self.word == "WITH" or self.is_script:
            return _WRITES_SOMEWHERE.search(self._sql) is not None
        if self.word == "PRAGMA":
            return _PRAGMA_WRITES.search(self._sql) is not None
        return self.word in _CHANGES_TABLES


class Transactions:
    """Knows which transactions a savepoint has begun: its RELEASE is their commit."""

    def __init__(self) -> None:
        self._begun_by_savepoint: set[int] = set()
        """The ``id()`` of connections."""

    def may_commit(self, conn: sqlite3.Connection, statement: Statement) -> bool:
        """Return whether the connection may commit by running a statement now."""
        if conn.in_transaction:
            if statement.is_script:
                return True  # the driver commits before a script
            if statement.word == "RELEASE":
                return id(conn) in self._begun_by_savepoint
            return statement.word in _ENDS
        self._begun_by_savepoint.discard(id(conn))
        if statement.word == "SAVEPOINT":
            self._begun_by_savepoint.add(id(conn))
        if statement.word in _CHANGES_ROWS and not statement.is_script:
            autocommit = getattr(conn, "autocommit", -1)  # since Python 3.12
            # Otherwise the driver begins a transaction.
            return conn.isolation_level is None or autocommit is True
        return statement.writes
