"""Keeps claims quick and clocks together: removes dead rows, warns of what holds them, follows the server's clock."""

import asyncio
import time
from typing import Final

from jobrunner.core import clock
from jobrunner.core.clock import SECOND_US, now_s
from jobrunner.core.errors import StoreError
from jobrunner.core.logs import log_of
from jobrunner.store.postgres import locks
from jobrunner.store.postgres.access import Access
from jobrunner.store.postgres.connection import READER, close, connect
from jobrunner.store.postgres.driver_errors import DRIVER_ERRORS
from jobrunner.store.postgres.sql.transaction import Transaction

logger = log_of("jobrunner")

EVERY_S: Final = 10.0
MOST_DEAD: Final = 40_000
"""Dead rows of ``jobs`` at which one process vacuums: each job leaves two, and claims walk over their index entries."""
OLD_SNAPSHOT_S: Final = 60
"""A longer transaction is a mistake, or a backup, and keeps dead rows of the whole database from being removed."""
CLOCK_US: Final = SECOND_US // 4
"""Clocks that differ by less are the same: the way to the server and back takes a part of it."""

_DEAD: Final = """
SELECT coalesce(pg_stat_get_dead_tuples('jobrunner.jobs'::regclass), 0)"""
# The oldest snapshot that keeps rows, with how long its transaction has run.
_OLDEST: Final = """
SELECT pid, coalesce(application_name, ''), extract(epoch FROM clock_timestamp() - xact_start)::bigint
FROM pg_stat_activity
WHERE backend_xmin IS NOT NULL AND backend_type = 'client backend' AND pid <> pg_backend_pid()
    AND clock_timestamp() - xact_start > make_interval(secs => $1)
ORDER BY age(backend_xmin) DESC LIMIT 1"""
_ELECT: Final = "SELECT pg_try_advisory_lock($1, $2)"
_NOW: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"


class PostgresUpkeep:
    """The chores of one store, each now and then."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._last_s: float | None = None
        self._vacuum: asyncio.Task[None] | None = None
        self._warned: int | None = None
        """The session that the log has named."""

    async def open(self) -> None:
        """Follow the server's clock."""
        await self._follow_clock()

    async def run(self) -> None:
        """Do what is due; a vacuum goes on after the return."""
        if self._last_s is not None and now_s() - self._last_s < EVERY_S:
            return
        self._last_s = now_s()
        await self._follow_clock()
        if await self._access.read(_dead_rows) < MOST_DEAD:
            self._warned = None
            return
        await self._warn_of_snapshot()
        if self._vacuum is None or self._vacuum.done():
            self._vacuum = asyncio.create_task(self._vacuum_once(), name="jobrunner-vacuum")

    async def close(self) -> None:
        """Break a vacuum off; another process does it anew."""
        if self._vacuum is not None:
            self._vacuum.cancel()
            await asyncio.wait([self._vacuum])

    async def _follow_clock(self) -> None:
        """Let this process read the server's time: jobs start by one clock, whatever those of the machines say."""
        before = machine_us()
        server = await self._access.read(_server_now)
        offset = server - (before + machine_us()) // 2
        clock.follow(offset if abs(offset) > CLOCK_US else 0)

    async def _warn_of_snapshot(self) -> None:
        found = await self._access.read(_oldest_snapshot)
        if found is None or found[0] == self._warned:
            return
        pid, name, seconds = found
        self._warned = pid
        logger.warning(
            "session %d (%s) of the database has had a transaction open for %d s, so no dead row can be removed, and"
            " claims of jobs become slower: end it, or write SELECT pg_terminate_backend(%d)",
            pid,
            name,
            seconds,
            pid,
        )

    async def _vacuum_once(self) -> None:
        """Vacuum, unless another process does; without the right to, the server's autovacuum has to do."""
        try:
            connection = await connect(self._access.url, {**READER, "statement_timeout": "0"})
            try:
                if await connection.fetchval(_ELECT, *locks.VACUUM.key):
                    # With ANALYZE, so that no plan is kept that was made for a smaller table.
                    await connection.execute("VACUUM (ANALYZE, SKIP_LOCKED) jobrunner.jobs")
            finally:
                await close(connection)
        except (StoreError, *DRIVER_ERRORS) as error:
            logger.warning("the table of jobs could not be vacuumed: %s", error, like=type(error))


def machine_us() -> int:
    """Return the machine's time, also where a test freezes that of its process."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME) // 1000


async def _dead_rows(tx: Transaction) -> int:
    return int(await tx.fetchval(_DEAD))


async def _oldest_snapshot(tx: Transaction) -> tuple[int, str, int] | None:
    row = await tx.fetchrow(_OLDEST, float(OLD_SNAPSHOT_S))
    return None if row is None else (row[0], row[1], row[2])


async def _server_now(tx: Transaction) -> int:
    return int(await tx.fetchval(_NOW))
