"""Limits the time that a shutdown waits for running attempts and hooks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Grace:
    """Limits each wait of a shutdown to the same number of seconds.

    A second interrupt ends all of them (``cut``).
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._limits: set[asyncio.Timeout] = set()

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Raise ``TimeoutError`` in the block when its time is over, or at a ``cut``."""
        async with asyncio.timeout(self.seconds) as limit:
            self._limits.add(limit)
            try:
                yield
            finally:
                self._limits.discard(limit)

    def cut(self) -> None:
        """End every wait now, and every later one at once; call it on the event loop."""
        self.seconds = 0.0
        now_s = asyncio.get_running_loop().time()
        for limit in self._limits:
            limit.reschedule(now_s)
