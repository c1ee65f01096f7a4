"""Wraps an open transaction, with additions to counters and statistics for its end.

Their rows are shared by all writers.  Written last and in one order, they are locked for a moment only, and no two
transactions wait for each other.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from jobrunner.core.errors import JobRunnerError
from jobrunner.store.counters import CounterKey
from jobrunner.store.postgres.connection import Statements
from jobrunner.store.postgres.driver_errors import HELD_ERRORS, ROW_ERRORS
from jobrunner.store.statistics import StatisticsRow

LOCK_TIMEOUT: Final = "200ms"
"""The longest wait for an open transaction that holds the same key, lane, queue or batch.

Less than the writes of a job may take, so that a row that is held shows as such.
"""


class Item(NamedTuple):
    """The state of a transaction at the beginning of a part of it."""

    name: str
    """Of its savepoint; each depth has another one, so that ``undo`` reaches over those inside."""
    depth: int
    counted: Counter[CounterKey]
    rows: int
    is_patient: bool


class Transaction:
    """An open transaction."""

    __slots__ = (
        "_depth",
        "_number",
        "connection",
        "counted",
        "cursor",
        "execute",
        "executemany",
        "fetch",
        "fetchrow",
        "fetchval",
        "held",
        "is_patient",
        "lock_timeout",
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
        self.lock_timeout = LOCK_TIMEOUT
        """The value that ``wait_shortly`` sets."""
        self.is_patient = True
        """False after ``wait_shortly``."""
        self._number: str | None = None
        self._depth = 0

    async def wait_shortly(self) -> None:
        """Wait for each lock no longer than ``lock_timeout`` from now on.

        Sessions of applications hold keys, lanes, queues and batches until they commit: nobody waits for one that is
        idle.
        """
        if self.is_patient:
            self.is_patient = False
            await self.execute(f"SET LOCAL lock_timeout = '{self.lock_timeout}'")

    async def wait_for_nobody(self) -> None:
        """Wait for no lock from now on, or nearly: the server takes 1 ms at the least."""
        self.lock_timeout, self.is_patient = "1ms", True
        await self.wait_shortly()

    async def wait_as_before(self) -> None:
        """Take ``wait_shortly`` back."""
        if not self.is_patient:
            self.is_patient = True
            await self.execute("SET LOCAL lock_timeout TO DEFAULT")

    async def number(self) -> str:
        """Return the number that the server has given to the transaction."""
        if self._number is None:
            self._number = await self.fetchval("SELECT pg_current_xact_id()::text")
        return self._number

    def count(self, name: str, of: Iterable[tuple[str, str]]) -> None:
        """Count each of these pairs of queue and task once under a name."""
        self.counted.update((name, queue, task) for queue, task in of)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Undo the block's own writes if it raises an error of these kinds.

        They are ours, and those of rows and of locks.
        """
        item = await self.begin_item()
        try:
            yield
        except (*ROW_ERRORS, *HELD_ERRORS, JobRunnerError):
            await self.undo(item)
            raise
        await self.keep_item(item)

    async def begin_item(self) -> Item:
        """Begin a part of the transaction, which ``undo`` or ``keep_item`` ends; parts may have parts."""
        self._depth += 1
        item = self._item(f"jobrunner_{self._depth}")
        await self.execute(f"SAVEPOINT {item.name}")
        return item

    async def undo(self, item: Item) -> None:
        """Undo what was written since ``begin_item``, also by parts that have not ended."""
        # Drivers of applications take one statement at a time.
        await self.execute(f"ROLLBACK TO SAVEPOINT {item.name}")
        await self.execute(f"RELEASE SAVEPOINT {item.name}")
        self._depth = item.depth - 1
        self.counted, self.is_patient = item.counted, item.is_patient
        del self.statistics[item.rows :]
        self.held.clear()  # which of them were locked since the savepoint is not known

    async def next_item(self, item: Item) -> Item:
        """Keep what was written since ``begin_item``, and begin the next part; not in a session of an application."""
        await self.execute(f"RELEASE SAVEPOINT {item.name}; SAVEPOINT {item.name}")
        return self._item(item.name)

    async def keep_item(self, item: Item) -> None:
        """Keep what was written since ``begin_item``."""
        await self.execute(f"RELEASE SAVEPOINT {item.name}")
        self._depth = item.depth - 1

    def _item(self, name: str) -> Item:
        return Item(name, self._depth, self.counted.copy(), len(self.statistics), self.is_patient)
