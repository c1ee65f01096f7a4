"""The worker of this process, as the queue uses it."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from jobrunner.core.errors import StoreError
from jobrunner.core.health import Health
from jobrunner.worker.deadlock import Deadlocks


class LocalWorker(Protocol):
    """The worker that belongs to an open queue, even with ``work=False``."""

    failed: StoreError | None
    """The error that stopped the worker for good; None while it works."""
    has_failed: asyncio.Event
    """Set together with ``failed``."""
    deadlocks: Deadlocks | None
    """The waits of its attempts, in which deadlocks are found; None if it runs no jobs."""

    def wake(self) -> None:
        """Make workers find due jobs now, in this process and in others."""
        ...

    def cancel_requested(self, seqs: Sequence[int]) -> None:
        """Notify the workers that these running jobs are to be cancelled."""
        ...

    def is_ready(self) -> bool:
        """Return ``Health.ready`` without reading the store."""
        ...

    async def health(self) -> Health:
        """Return the health of the runner and the problems that it has now."""
        ...
