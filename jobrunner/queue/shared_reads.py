"""Reads a job once for all callers that wait for it."""

import asyncio
from contextvars import Context
from typing import Final

from jobrunner.core.model import JobRow
from jobrunner.store.protocol import Store

POLL_S: Final = 0.5
"""The time between two reads of a job that is awaited, because it may change in another process."""


class SharedReads:
    """Reads rows for callers that wait for jobs, once for all.

    Of callers that are woken together the first one reads for itself, and all others share a second read.  So one that
    waits alone needs no task, which is a tenth of an enqueue with its result.  ``next_poll_s`` lets all that wait for
    one job poll together.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._alone: set[str] = set()
        """The jobs that a caller reads for itself."""
        self._next: dict[str, asyncio.Task[JobRow | None]] = {}
        """The shared reads that have not begun, by the id of their job."""
        self._tasks: set[asyncio.Task[JobRow | None]] = set()

    async def get(self, id: str) -> JobRow | None:
        """Return a job or dead letter as it is after this call; None if no job has this id."""
        task = self._next.get(id)
        if task is None and id not in self._alone:
            self._alone.add(id)
            try:
                return await self._store.jobs.get(id)
            finally:
                self._alone.discard(id)
        if task is None:
            # In an empty context: the read is not part of a transaction of its first caller.
            task = asyncio.create_task(self._read(id), name="jobrunner-read", context=Context())
            self._next[id] = task
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def _read(self, id: str) -> JobRow | None:
        # The first step of the task comes after those of all callers that were woken with the first one.
        del self._next[id]
        return await self._store.jobs.get(id)

    def _ended(self, task: asyncio.Task[JobRow | None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its callers have it, or have all been cancelled

    def next_poll_s(self, id: str) -> float:
        """Return the seconds until all callers poll a job again."""
        phase_s = hash(id) % 1024 / 1024 * POLL_S
        return POLL_S - (asyncio.get_running_loop().time() + phase_s) % POLL_S

    async def close(self) -> None:
        """Wait for the shared reads that have begun; their callers may be gone."""
        if self._tasks:
            await asyncio.wait(self._tasks)
