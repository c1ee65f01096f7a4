"""Proves that a worker lives: a session holds the advisory lock of its number.

The server frees the lock when the session ends, however the process or its network dies.  A line that is lost is taken
up again; until then the worker is in doubt, and if it was found dead meanwhile it stays lost.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, cast

from jobrunner.core.errors import StoreError
from jobrunner.core.logs import log_of
from jobrunner.store.postgres.connection import Connection, close, connect_line
from jobrunner.store.postgres.driver_errors import DRIVER_ERRORS, as_ours
from jobrunner.store.protocol import Standing

logger = log_of("jobrunner")

_LOCK_S: Final = 4.0
_FIRST_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 0.5

# The session that held the lock may live on at the server, which has not noticed its end; nobody else ends it.
_END_GHOST: Final = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2"""
_SELF: Final = """
SELECT pid, backend_start, left(pg_walfile_name(pg_current_wal_lsn()), 8)
FROM pg_stat_activity WHERE pid = pg_backend_pid()"""


class Line:
    """The session that holds one worker's lock.

    Args:
        url: the database.
        worker: the worker's number.
    """

    def __init__(self, url: str, worker: int) -> None:
        self._url = url
        self.worker = worker
        self.standing: Standing = "doubtful"
        self.on_standing: Callable[[Standing], None] | None = None
        """Called when the standing has changed."""
        self._connection: Connection | None = None
        self._session: tuple[int, Any] | None = None
        """Process and start of the session at the server."""
        self._timeline: str | None = None
        self._again: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Take the lock.

        Raises:
            StoreBusy: Another session holds it.
            StoreError: The server cannot be reached.
        """
        connection = await connect_line(self._url)
        try:
            if self._session is not None:
                await connection.fetch(_END_GHOST, *self._session)
            await connection.execute(f"SET lock_timeout = {round(_LOCK_S * 1000)}")
            await connection.execute("SELECT pg_advisory_lock($1)", self.worker)
            pid, started, timeline = await connection.fetchrow(_SELF)
            self._session = (pid, started)
            # After a fail-over numbers come again: what runs here may be another job there.
            same = self._timeline in (None, timeline)
            self._timeline = timeline
            known = not self._again or await self._has_row(connection)
        except DRIVER_ERRORS as error:
            await close(connection)
            raise as_ours(error) from error
        except BaseException:
            # Cancelled: a session that nobody knows of would hold the lock.
            connection.terminate()
            raise
        self._connection = connection
        self.standing = "held" if same and known else "lost"
        cast("Any", connection).add_termination_listener(self._ended)

    async def _has_row(self, connection: Connection) -> bool:
        row = await connection.fetchrow(
            "SELECT FROM jobrunner.workers WHERE worker = $1", self.worker
        )
        return row is not None

    def _ended(self, _: object) -> None:
        if self._connection is None:
            return  # by ``close`` or ``abandon``
        self._connection = None
        if self.standing == "lost":
            return
        self.standing = "doubtful"
        logger.warning(
            "worker %d has lost its session with the database, and claims nothing until it has it again",
            self.worker,
        )
        self._again = asyncio.ensure_future(self._take_up())
        self._announce()

    async def _take_up(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await self.open()
            except StoreError:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                continue
            if self.standing == "lost":
                logger.error("worker %d was found dead while it was cut off", self.worker)
            else:
                logger.info("worker %d has its session again", self.worker)
            self._announce()
            return

    def _announce(self) -> None:
        if self.on_standing is not None:
            self.on_standing(self.standing)

    async def close(self) -> None:
        """Free the lock and end the session."""
        await self._stop()
        if (connection := self._connection) is not None:
            self._connection = None
            if not connection.is_closed():
                # The lock is free when this returns; a session ends some milliseconds after its connection. After an
                # error it is free then too.
                with suppress(*DRIVER_ERRORS):
                    await connection.execute("SELECT pg_advisory_unlock_all()")
            await close(connection)

    async def _stop(self) -> None:
        if self._again is not None and not self._again.done():
            self._again.cancel()
            await asyncio.wait([self._again])

    def abandon(self) -> None:
        """End the session without a word, as a kill does."""
        if self._again is not None:
            self._again.cancel()
        if (connection := self._connection) is not None:
            self._connection = None
            connection.terminate()
