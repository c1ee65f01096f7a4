"""Runs the store's statements on the application's connections, whatever their driver is.

The statements are written for asyncpg, and for the schema ``jobrunner``.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from jobrunner.store.postgres.location import in_schema

if TYPE_CHECKING:
    from sqlalchemy import TextClause
    from sqlalchemy.engine import Connection as SqlalchemyConnection


class Lent(ABC):
    """Base of the connections with the methods of asyncpg; see ``Statements``."""

    @abstractmethod
    async def fetch(self, query: str, *args: object) -> Sequence[Any]: ...

    @abstractmethod
    async def execute(self, query: str, *args: object) -> str: ...

    async def fetchrow(self, query: str, *args: object) -> Any:
        rows = await self.fetch(query, *args)
        return rows[0] if rows else None

    async def fetchval(self, query: str, *args: object) -> Any:
        row = await self.fetchrow(query, *args)
        return None if row is None else row[0]

    async def executemany(self, query: str, args: Iterable[Sequence[object]]) -> None:
        for one in args:
            await self.execute(query, *one)

    async def cursor(self, query: str, *args: object, prefetch: int) -> AsyncIterator[Any]:
        for row in await self.fetch(query, *args):
            yield row


class _Counted(Lent):
    """Base of those whose driver counts the rows that a statement has changed."""

    @abstractmethod
    async def run(self, query: str, args: Sequence[object]) -> tuple[Sequence[Any], int]:
        """Run a statement; return its rows, and the number of rows that it changed."""

    async def fetch(self, query: str, *args: object) -> Sequence[Any]:
        rows, _ = await self.run(query, args)
        return rows

    async def execute(self, query: str, *args: object) -> str:
        _, changed = await self.run(query, args)
        return f"ROWS {changed}"


class LentAsyncpg(Lent):
    """An ``asyncpg.Connection``."""

    def __init__(self, connection: Any, schema: str) -> None:
        self._connection = connection
        self._schema = schema

    async def fetch(self, query: str, *args: object) -> Sequence[Any]:
        rows: Sequence[Any] = await self._connection.fetch(in_schema(query, self._schema), *args)
        return rows

    async def execute(self, query: str, *args: object) -> str:
        status: str = await self._connection.execute(in_schema(query, self._schema), *args)
        return status


class LentPsycopg(_Counted):
    """A ``psycopg.Connection`` or ``psycopg.AsyncConnection``."""

    def __init__(self, connection: Any, schema: str, *, blocking: bool) -> None:
        self._connection = connection
        self._schema = schema
        self._blocking = blocking

    async def run(self, query: str, args: Sequence[object]) -> tuple[Sequence[Any], int]:
        """See ``_Counted.run``; the factories that the application has set on the connection have no effect."""
        # Who has such a connection has imported the driver; jobrunner does not bring it.
        import psycopg  # noqa: PLC0415
        from psycopg.rows import tuple_row  # noqa: PLC0415

        query, given = in_schema(query, self._schema), _given(args) or None
        if self._blocking:
            with psycopg.RawCursor(self._connection, row_factory=tuple_row) as cursor:
                cursor.execute(query, given)
                return cursor.fetchall() if cursor.description else (), cursor.rowcount
        async with psycopg.AsyncRawCursor(self._connection, row_factory=tuple_row) as waiting:
            await waiting.execute(query, given)
            return await waiting.fetchall() if waiting.description else (), waiting.rowcount


class LentSqlalchemy(_Counted):
    """A ``Connection`` of SQLAlchemy, with any driver.

    SQLAlchemy knows of the statements, so that it begins the transaction in which they run.
    """

    def __init__(self, connection: "SqlalchemyConnection", schema: str) -> None:
        self._connection = connection
        self._schema = schema

    async def run(self, query: str, args: Sequence[object]) -> tuple[Sequence[Any], int]:
        named = {f"p{number}": value for number, value in enumerate(_given(args), 1)}
        result = self._connection.execute(_text(in_schema(query, self._schema)), named)
        return result.all() if result.returns_rows else (), result.rowcount


def _given(args: Sequence[object]) -> list[object]:
    """Return arguments with lists for arrays: psycopg takes a tuple for a row."""
    return [list(one) if isinstance(one, tuple) else one for one in args]


_COLON: Final = re.compile(r"(?<!:):(?!:)")
_NUMBERED: Final = re.compile(r"\$(\d+)")


@cache
def _text(query: str) -> "TextClause":
    """Return a statement with its parameters as SQLAlchemy writes them: ``(:p1)`` for ``$1``."""
    from sqlalchemy import text  # noqa: PLC0415 - only code that uses SQLAlchemy comes here

    return text(_NUMBERED.sub(r"(:p\1)", _COLON.sub(r"\\:", query)))
