"""Announces work and changes of jobs to other processes, and receives their announcements.

An announcement is only a hint: it is sent after the commit, on another connection, and may get lost.  Sent inside a
transaction, it would let all commits of the server's databases wait for each other.
"""

import asyncio
import json
from collections.abc import Callable, Collection
from secrets import token_hex
from typing import Any, Final, cast

from jobrunner.core.errors import StoreError
from jobrunner.core.logs import log_of
from jobrunner.store.postgres.connection import Connection, close, connect_line
from jobrunner.store.postgres.driver_errors import DRIVER_ERRORS
from jobrunner.store.postgres.location import location_of

logger = log_of("jobrunner")

WORK: Final = "_work"
JOBS: Final = "_jobs"
"""The channels, behind the name of the schema."""
_APART_S: Final = 0.005
"""Announcements of work in so short a time are one."""
_IDS_PER_PAYLOAD: Final = 150
"""A payload holds at most 8,000 bytes."""
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0


class Bell:
    """One listening session of a store, which also sends.

    Args:
        url: the database.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._schema = location_of(url).schema
        self._me = token_hex(8)
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._listening = asyncio.Event()
        self._ended = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()
        self._work_announced = False
        self.on_work: dict[int, Callable[[], None]] = {}
        """Called when another process announces work, by worker."""
        self.on_jobs: dict[int, tuple[frozenset[str], Callable[[], None]]] = {}
        """Called when a process, also this one, announces a change of one of the jobs, by watcher."""

    async def listen(self) -> None:
        """Begin to listen; returns once announcements arrive, or the first attempt has failed."""
        if self._task is None:
            self._task = asyncio.create_task(self._listen(), name="jobrunner-bell")
        waits = [self._task, asyncio.create_task(self._listening.wait())]
        try:
            await asyncio.wait(waits, timeout=1, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waits[1].cancel()

    async def _listen(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await self._connect()
                pause_s = _FIRST_PAUSE_S
                await self._ended.wait()
                logger.warning(
                    "the session that hears of new work has ended; another one is opened"
                )
            except (StoreError, *DRIVER_ERRORS) as error:
                logger.warning("new work is found by polling only: %s", error, like=type(error))
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            self._listening.clear()
            # Something may have been announced meanwhile.
            for call in [*self.on_work.values(), *(call for _, call in self.on_jobs.values())]:
                call()

    async def _connect(self) -> None:
        connection = await connect_line(self._url)
        self._ended.clear()
        asyncpg_connection = cast("Any", connection)
        asyncpg_connection.add_termination_listener(lambda _: self._ended.set())
        await asyncpg_connection.add_listener(self._schema + WORK, self._hear_work)
        await asyncpg_connection.add_listener(self._schema + JOBS, self._hear_jobs)
        self._connection = connection
        self._listening.set()

    def _hear_work(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        if payload != self._me:
            for call in list(self.on_work.values()):
                call()

    def _hear_jobs(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        jobs = json.loads(payload)
        for watched, call in list(self.on_jobs.values()):
            if not watched.isdisjoint(jobs):
                call()

    def announce_work(self) -> None:
        """Announce work; never waits or raises."""
        if not self._work_announced:
            self._work_announced = True
            self._send(self._announce_work())

    async def _announce_work(self) -> None:
        self._work_announced = False
        await self._notify(WORK, self._me)
        await asyncio.sleep(_APART_S if self._sending else 0)

    def announce_jobs(self, jobs: Collection[str]) -> None:
        """Announce that jobs have changed; never waits or raises."""
        ids = sorted(jobs)
        for first in range(0, len(ids), _IDS_PER_PAYLOAD):
            payload = json.dumps(ids[first : first + _IDS_PER_PAYLOAD])
            self._send(self._notify(JOBS, payload))

    def _send(self, sending: Any) -> None:
        task = asyncio.ensure_future(sending)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _notify(self, channel: str, payload: str) -> None:
        try:
            if self._connection is None or self._connection.is_closed():
                await self.listen()
            if self._connection is not None:
                await self._connection.execute(
                    "SELECT pg_notify($1, $2)", self._schema + channel, payload
                )
        except DRIVER_ERRORS as error:
            logger.warning("new work was not announced: %s", error, like=type(error))

    async def close(self) -> None:
        """End the session, after what is being sent."""
        if self._sending:
            await asyncio.wait(self._sending)
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.wait([task])
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await close(connection)
