"""Stores the limits that the code declares, and keeps the list of lanes correct."""

from collections.abc import Callable, Mapping
from typing import Final

from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.core.limits import NO_LIMIT, LimitName
from jobrunner.core.logs import log_of
from jobrunner.store.protocol import Store
from jobrunner.tasks.spec import TaskSpec
from jobrunner.worker.settings import Settings

logger = log_of("jobrunner")

BUCKETS_KEPT_US: Final = 60 * SECOND_US
"""No round waits so long for the write lock that its time lies further back."""


class DeclaredLimits:
    """Keeps the stored limits equal to those declared in code."""

    def __init__(self, store: Store, *, specs: Mapping[str, TaskSpec], settings: Settings) -> None:
        self._store = store
        self._revision = settings.revision
        self._limits = {
            LimitName("queue", name): queue.limit for name, queue in settings.queues.items()
        }
        for name, spec in specs.items():
            limits = spec.limits
            self._limits[LimitName("task", name)] = NO_LIMIT if limits is None else limits.own
            self._limits[LimitName("lanes", name)] = NO_LIMIT if limits is None else limits.lane

    async def declare(self) -> None:
        """Store the declared limits, and remove those that are no longer declared."""
        if await self._store.limits.declare(self._limits, revision=self._revision):
            self._store.workers.notify()


class BucketRetention:
    """Deletes the buckets of keys whose jobs have all started."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self) -> None:
        """Delete what is full; see ``LimitStore.prune``."""
        await self._store.limits.prune(before=now_us() - BUCKETS_KEPT_US)


class LaneRepair:
    """Corrects the list of lanes, if something outside the library has changed it."""

    def __init__(self, store: Store, wake: Callable[[], None]) -> None:
        self._store = store
        self._wake = wake

    async def run(self) -> None:
        """Repair the list, and wake workers if it had faults; see ``LimitStore.repair``."""
        repaired = await self._store.limits.repair(now=now_us())
        if repaired:
            logger.warning("the list of lanes was repaired: %d lane(s) are open again", repaired)
            self._wake()
