"""Opens connections to the server, each with the settings of its role."""

import socket
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cache
from typing import Any, ClassVar, Final, Protocol, cast

import asyncpg

from jobrunner.store.postgres.driver_errors import CONNECTION_ERRORS, as_ours
from jobrunner.store.postgres.location import SCHEMA, in_schema, location_of

CONNECT_S: Final = 5.0

WRITER: Final[Mapping[str, str]] = {
    "application_name": "jobrunner",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "10s",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    # The plans of a round must be those by index whatever the statistics say: until the first ANALYZE they are those of
    # an empty table.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
READER: Final[Mapping[str, str]] = {
    "application_name": "jobrunner reader",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "10s",
    "jit": "off",
}
LINE: Final[Mapping[str, str]] = {
    "application_name": "jobrunner line",
    "statement_timeout": "5s",
    "idle_session_timeout": "0",
    # The server notices within five seconds that a worker's machine is gone.
    "tcp_keepalives_idle": "2",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "5000",
}
"""The settings of a connection that holds a worker's lock, or that listens."""


class Statements(Protocol):
    """The methods of an asyncpg connection that run statements; asyncpg has no types.

    The connections of applications get them too, whatever their driver is.
    """

    async def fetch(self, query: str, *args: object) -> Sequence[Any]: ...
    async def fetchrow(self, query: str, *args: object) -> Any: ...
    async def fetchval(self, query: str, *args: object) -> Any: ...
    async def execute(self, query: str, *args: object) -> str: ...
    async def executemany(self, query: str, args: Iterable[Sequence[object]]) -> None: ...
    def cursor(self, query: str, *args: object, prefetch: int) -> AsyncIterable[Any]: ...


class Connection(Statements, Protocol):
    """The other methods that the store uses of connections that it has opened."""

    def transaction(
        self, *, isolation: str | None = None, readonly: bool = False
    ) -> AbstractAsyncContextManager[Any]: ...
    def is_closed(self) -> bool: ...
    async def close(self, *, timeout: float | None = None) -> None: ...
    def terminate(self) -> None: ...


class _InSchema(asyncpg.Connection):  # type: ignore[misc]
    """A connection on which statements mean another schema than ``jobrunner``."""

    schema: ClassVar[str]

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
        return await super().fetch(in_schema(query, self.schema), *args, **options)

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        return await super().fetchrow(in_schema(query, self.schema), *args, **options)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        return await super().fetchval(in_schema(query, self.schema), *args, **options)

    async def execute(self, query: str, *args: Any, **options: Any) -> Any:
        return await super().execute(in_schema(query, self.schema), *args, **options)

    async def executemany(self, command: str, args: Any, **options: Any) -> None:
        await super().executemany(in_schema(command, self.schema), args, **options)

    def cursor(self, query: str, *args: Any, **options: Any) -> Any:
        return super().cursor(in_schema(query, self.schema), *args, **options)


@cache
def _class_for(schema: str) -> type[Any]:
    """Return the class of connections for a store in a schema."""
    if schema == SCHEMA:
        return cast("type[Any]", asyncpg.Connection)
    return type("ConnectionInSchema", (_InSchema,), {"schema": schema})


async def connect(url: str, settings: Mapping[str, str]) -> Connection:
    """Open a connection to the primary of the hosts that a URL names.

    Raises:
        StoreError: The server refuses it, or cannot be reached.
        ConfigurationError: The URL cannot be used.
    """
    connection = await _connect(url, settings)
    _give_up(connection, _PATIENT)
    return connection


async def connect_line(url: str) -> Connection:
    """Open a connection that both sides give up soon when the network is cut: this one first."""
    connection = await _connect(url, LINE)
    _give_up(connection, _IMPATIENT)
    return connection


_IMPATIENT: Final = {
    "TCP_KEEPIDLE": 2,
    "TCP_KEEPINTVL": 1,
    "TCP_KEEPCNT": 2,
    "TCP_USER_TIMEOUT": 4_000,
}
# The system's own limits let a round wait for a server that is gone for a quarter of an hour.
_PATIENT: Final = {
    "TCP_KEEPIDLE": 5,
    "TCP_KEEPINTVL": 2,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 10_000,
}


async def _connect(url: str, settings: Mapping[str, str]) -> Connection:
    location = location_of(url)
    try:
        connection = await asyncpg.connect(
            location.dsn,
            server_settings=dict(settings),
            timeout=CONNECT_S,
            statement_cache_size=500,
            target_session_attrs="read-write",
            connection_class=_class_for(location.schema),
        )
    except CONNECTION_ERRORS as error:
        raise as_ours(error) from error
    return cast("Connection", connection)


def _give_up(connection: Connection, limits: Mapping[str, int]) -> None:
    """End a connection on which the other side acknowledges nothing for so long."""
    transport = cast("Any", connection)._transport  # noqa: SLF001 - asyncpg shows its socket nowhere else
    its_socket = transport.get_extra_info("socket")
    if its_socket is not None and its_socket.family != socket.AF_UNIX:
        its_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in limits.items():
            if hasattr(socket, name):  # Linux has all of them
                its_socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def close(connection: Connection) -> None:
    """Close a connection; one that does not answer is dropped."""
    try:
        await connection.close(timeout=CONNECT_S)
    except (TimeoutError, *CONNECTION_ERRORS):
        connection.terminate()
