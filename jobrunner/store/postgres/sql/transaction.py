"""Wraps an open transaction, with additions to counters and statistics for its end.

Their rows are shared by all writers.  Written last and in one order, they are locked for a moment only, and no two
transactions wait for each other.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from jobrunner.store.counters import CounterKey
from jobrunner.store.postgres.connection import Statements
from jobrunner.store.postgres.driver_errors import HELD_ERRORS, ROW_ERRORS
from jobrunner.store.statistics import StatisticsRow


class Transaction:
    """An open transaction."""

    __slots__ = (
        "connection",
        "counted",
        "cursor",
        "execute",
        "executemany",
        "fetch",
        "fetchrow",
        "fetchval",
        "held",
        "statistics",
    )

    def __init__(self, connection: Statements) -> None:
        self.connection = connection
        self.fetch = connection.fetch
        self.fetchrow = connection.fetchrow
        self.fetchval = connection.fetchval
        self.cursor = connection.cursor
        self.execute = connection.execute
        self.executemany = connection.executemany
        self.counted = Counter[CounterKey]()
        """Added to the counters at the end."""
        self.statistics: list[StatisticsRow] = []
        """Added to the minutes at the end."""
        self.held: set[int] = set()
        """The batches whose rows it has locked; see ``batch_locks``."""

    def count(self, name: str, of: Iterable[tuple[str, str]]) -> None:
        """Count each of these pairs of queue and task once under a name."""
        self.counted.update((name, queue, task) for queue, task in of)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Undo the block's own writes if it raises a row error, and raise it."""
        counted, rows = self.counted.copy(), len(self.statistics)
        await self.execute("SAVEPOINT jobrunner_item")
        try:
            yield
        except (*ROW_ERRORS, *HELD_ERRORS):
            await self.undo(counted, rows)
            raise
        await self.execute("RELEASE SAVEPOINT jobrunner_item")

    async def undo(self, counted: Counter[CounterKey], rows: int) -> None:
        """Go back to the savepoint and remove it."""
        # Drivers of applications take one statement at a time.
        await self.execute("ROLLBACK TO SAVEPOINT jobrunner_item")
        await self.execute("RELEASE SAVEPOINT jobrunner_item")
        self.counted = counted
        del self.statistics[rows:]
        self.held.clear()  # which of them were locked since the savepoint is not known
