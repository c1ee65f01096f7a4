"""Shows this worker to the others and keeps a list of them."""

from collections.abc import Awaitable, Callable, Sequence

from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.core.model import WorkerRow
from jobrunner.store.protocol import Store


class Peers:
    """Keeps a list of the other workers of the store.

    Args:
        store: The store.
        number: Returns the number of this worker.
        on_missing: Called if this worker's row is missing; None for a process without a row.
    """

    def __init__(
        self,
        store: Store,
        number: Callable[[], int],
        on_missing: Callable[[], Awaitable[None]] | None,
    ) -> None:
        self.rows: Sequence[WorkerRow] = ()
        self._store = store
        self._number = number
        self._on_missing = on_missing

    @property
    def tasks(self) -> frozenset[str]:
        """The tasks that at least one other worker knows."""
        return frozenset[str]().union(*(row.tasks for row in self.rows))

    async def refresh(self) -> None:
        """Read the workers' rows."""
        rows = await self._store.workers.list()
        own = self._number()
        self.rows = [row for row in rows if row.worker != own]
        if self._on_missing is not None and len(self.rows) == len(rows):
            await self._on_missing()


class Heartbeat:
    """Updates the worker's row, which shows that its event loop runs."""

    def __init__(
        self, store: Store, number: Callable[[], int], on_restored: Callable[[], Awaitable[None]]
    ) -> None:
        self._store = store
        self._number = number
        self._on_restored = on_restored
        self._lag: int | None = None

    def count_lag(self, lag_s: float) -> None:
        """Keep the longest delay of the loop for the next beat."""
        self._lag = max(round(lag_s * SECOND_US), self._lag or 0)

    async def beat(self) -> None:
        """Update the row; call ``on_restored`` if it was missing and is stored again."""
        lag, self._lag = self._lag, None
        if await self._store.workers.beat(self._number(), now=now_us(), lag=lag):
            await self._on_restored()
