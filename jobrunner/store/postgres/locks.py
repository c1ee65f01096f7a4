"""Names the advisory locks that transactions of the store take."""

from collections.abc import Iterable
from typing import Final, NamedTuple
from zlib import crc32

from jobrunner.store.postgres.connection import Statements

_CLASS: Final = 0x6A6F6272
"""``jobr``: the first half of our locks' keys. Those of workers have one key of 64 bits, which is another space."""

LANE_LOCKS: Final = 256
"""Ordered lanes share so many locks: the server's table of locks has room for some thousands only."""


class Lock(NamedTuple):
    """An advisory lock; ordered, so that all take several in the same order."""

    number: int

    @property
    def key(self) -> tuple[int, int]:
        """Both halves of the server's key."""
        return _CLASS, self.number


MIGRATION: Final = Lock(1)
STATISTICS: Final = Lock(2)
STARTS: Final = Lock(3)
VACUUM: Final = Lock(4)
_FIRST_LANE: Final = 1_000
_FIRST_QUEUE: Final = 2_000
_QUEUES: Final = 1_000


def of_lane(lane: str) -> Lock:
    """Return the lock that an enqueue into an ordered lane holds until its commit."""
    return Lock(_FIRST_LANE + crc32(lane.encode("utf-8", "replace")) % LANE_LOCKS)


def of_queue(queue: str) -> Lock:
    """Return the lock that an enqueue into a limited queue holds until its commit."""
    return Lock(_FIRST_QUEUE + crc32(queue.encode("utf-8", "replace")) % _QUEUES)


async def lock(connection: Statements, *locks: Lock) -> None:
    """Wait for locks and hold them until the end of the transaction."""
    await lock_all(connection, locks)


async def lock_all(connection: Statements, locks: Iterable[Lock]) -> None:
    """Do the same for any number of locks."""
    numbers = sorted({one.number for one in locks})
    if numbers:
        await connection.execute(
            "SELECT pg_advisory_xact_lock($1, number) FROM unnest($2::int[]) AS wanted (number)",
            _CLASS,
            numbers,
        )
