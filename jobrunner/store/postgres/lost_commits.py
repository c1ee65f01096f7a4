"""Finds out whether a commit whose answer was lost has been carried out.

Once the session that carried it is over, nothing about it changes any more: the server says of a transaction's number
whether it was committed, and the rows of a statement without a number are there or not.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from jobrunner.core.errors import StoreError, StoreOutcomeUnknown
from jobrunner.core.logs import log_of
from jobrunner.store.postgres.connection import READER, Connection, close, connect
from jobrunner.store.postgres.driver_errors import DRIVER_ERRORS

T = TypeVar("T")

logger = log_of("jobrunner")

PATIENCE_S: Final = 15.0
"""Longer than a server lets a session idle in a transaction, and than most restarts take."""
_PAUSE_S: Final = 0.05

SELF: Final = """
SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"""
# Behind a pooler the same session serves others next: an idle one has nothing under way.
_UNDER_WAY: Final = """
SELECT true FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2 AND state <> 'idle'"""
XID: Final = "SELECT pg_current_xact_id_if_assigned()::text"
_STATUS: Final = "SELECT pg_xact_status($1::text::xid8)"
_UNKNOWN: Final = "the connection was lost while a commit was on its way: it may be stored or not"


class Backend(NamedTuple):
    """A session at the server."""

    pid: int
    started: Any


class CommitLost(Exception, Generic[T]):
    """The connection was lost while a commit was on its way.

    Args:
        find: returns on another connection, once the session is over, the one answer of what was committed; None if it
            was not.
    """

    def __init__(self, find: Callable[[Connection], Awaitable[Sequence[T] | None]]) -> None:
        self.find = find
        self.backend: Backend
        """The session that carried the commit."""


async def committed(connection: Connection, xid: str) -> bool:
    """Return whether a transaction that is over was committed."""
    return bool(await connection.fetchval(_STATUS, xid) == "committed")


async def found_out(url: str, lost: CommitLost[T]) -> Sequence[T] | None:
    """Return the one answer of what was committed; None if nothing was.

    Raises:
        StoreOutcomeUnknown: The server stays away, or its session does not end.
    """
    logger.warning("the connection was lost during a commit; looking up whether it is stored")
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    return await _look(url, lost)
                except (StoreError, *DRIVER_ERRORS):
                    await asyncio.sleep(_PAUSE_S)
    except TimeoutError as error:
        raise StoreOutcomeUnknown(_UNKNOWN) from error


async def _look(url: str, lost: CommitLost[T]) -> Sequence[T] | None:
    connection = await connect(url, READER)
    try:
        while await connection.fetchval(_UNDER_WAY, *lost.backend):  # noqa: ASYNC110 - the server does not say when
            await asyncio.sleep(_PAUSE_S)
        return await lost.find(connection)
    finally:
        await close(connection)
