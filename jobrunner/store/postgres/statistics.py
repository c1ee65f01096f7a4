"""Implements ``StatisticsStore`` on PostgreSQL."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from threading import Thread

from jobrunner.store.measurements import Measurements
from jobrunner.store.postgres.access import Access
from jobrunner.store.postgres.connection import READER, close, connect
from jobrunner.store.postgres.driver_errors import DRIVER_ERRORS, as_ours
from jobrunner.store.postgres.sql import measurements, statistics
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.statistics import By, Per, StatisticsRow


class PostgresStatistics:
    """The ``StatisticsStore`` of a PostgreSQL store."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def read(
        self,
        *,
        per: Per,
        since: int,
        until: int,
        by: By,
        queue: str | None = None,
        task: str | None = None,
    ) -> Sequence[StatisticsRow]:
        wanted = statistics.Wanted(per, since, until, by, queue, task)
        return await self._access.read(statistics.read, wanted)

    def measure(self) -> Measurements:
        """See ``StatisticsStore.measure``; reads on a connection and a loop of a short-lived thread."""
        self._access.require_open()
        answer: Future[Measurements] = Future()

        def run() -> None:
            try:
                answer.set_result(asyncio.run(_measure(self._access.url)))
            except BaseException as error:  # noqa: BLE001 - the calling thread raises it
                answer.set_exception(error)

        thread = Thread(target=run, name="jobrunner-measure", daemon=True)
        thread.start()
        thread.join()
        return answer.result()

    async def roll_up(self, *, before: int) -> bool:
        return await self._access.write(statistics.roll_up, before)

    async def prune(self, *, minutes_before: int, hours_before: int, limit: int) -> int:
        return await self._access.write(statistics.prune, minutes_before, hours_before, limit)


async def _measure(url: str) -> Measurements:
    connection = await connect(url, READER)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return await measurements.read(Transaction(connection))
    except DRIVER_ERRORS as error:
        raise as_ours(error) from error
    finally:
        await close(connection)
