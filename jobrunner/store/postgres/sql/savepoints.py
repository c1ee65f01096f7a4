"""Writes the items of a round one by one.

Sessions of applications may hold what some of them need.
"""

from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from typing import Final

from jobrunner.core.errors import StoreBusy
from jobrunner.core.model import Enqueue
from jobrunner.store.postgres.driver_errors import HELD_ERRORS, as_ours
from jobrunner.store.postgres.sql.transaction import Transaction

Place = tuple[str, object]
"""A thing that a session may hold: ``("lane", name)``, ``("batch", seq or id)`` or ``("queue", name)``."""

MOST_WAITS: Final = 5
"""A session may hold hundreds of lanes: after so many waits the others that it holds cost a millisecond each."""


def places(batch: object | None, lane: str | None) -> set[Place]:
    """Return the batch and the lane of a job."""
    both: tuple[Place, ...] = (("batch", batch), ("lane", lane))
    return {place for place in both if place[1] is not None}


def lanes_of(jobs: Iterable[Enqueue]) -> set[Place]:
    """Return the lanes of jobs."""
    return {("lane", job.lane) for job in jobs if job.lane is not None}


def queues_of(jobs: Iterable[Enqueue]) -> set[Place]:
    """Return the queues of jobs."""
    return {("queue", job.queue) for job in jobs}


class Savepoints:
    """Gives each item a savepoint, and does not wait twice for the same place."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._held: dict[Place, str] = {}
        self._times = 0

    @asynccontextmanager
    async def item(self, places: Collection[Place]) -> AsyncIterator[None]:
        """Undo the block if it raises such an error as ``Transaction.savepoint`` names.

        Args:
            places: what the block needs; if it meets a lock, one of them is taken to be held, whichever it is.

        Raises:
            StoreBusy: Another transaction holds what the block needs.
        """
        for place in places:
            if place in self._held:
                raise StoreBusy(self._held[place])
        try:
            async with self._tx.savepoint():
                yield
        except HELD_ERRORS as error:
            busy = as_ours(error)
            self._held.update(dict.fromkeys(places, str(busy)))
            self._times += 1
            if self._times == MOST_WAITS:
                await self._tx.wait_for_nobody()
            raise busy from error
