"""The worker of this process, as far as the queue depends on it."""

import asyncio
from typing import Protocol

from jobrunner.core.errors import StoreError
from jobrunner.core.job import Health
from jobrunner.worker.deadlock import Deadlocks


class LocalWorker(Protocol):
    """The worker that belongs to an open queue, whether or not it runs jobs."""

    failed: StoreError | None
    """The error that stopped it for good."""
    has_failed: asyncio.Event
    """Set together with ``failed``."""
    deadlocks: Deadlocks | None
    """The waits of its attempts; None where it runs none."""

    def wake(self) -> None:
        """See to it that jobs which are due now are found now, here and in other processes."""
        ...

    async def cancel_requested(self, seq: int) -> None:
        """Pass on that a running job is to be cancelled."""
        ...

    def is_ready(self) -> bool:
        """Return ``Health.ready`` alone, without reading the store."""
        ...

    async def health(self) -> Health:
        """Return whether the promises are being kept just now, and what stands in the way."""
        ...
