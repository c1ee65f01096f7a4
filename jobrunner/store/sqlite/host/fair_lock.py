"""A FIFO lock between the writer thread and tasks that hold their own transaction.

Without it, a transaction on the application's connection competes for SQLite's lock with a committer that tries again
at once, and the committer with several such tasks: with four tasks the longest waits were eight times as long.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Final

from jobrunner.core.clock import now_s

SLOW_S: Final = 0.25
"""A task that holds the lock for longer is logged by name, since it blocks all other writers."""


class FairLock:
    """A lock for threads and for tasks of the loop, fair between them."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[Future[None]] = deque()
        self._taken = False
        self.holder: str | None = None
        """The task that holds the lock; None if it is free or held by the writer thread."""
        self._since_s = 0.0

    def acquire_blocking(
        self, timeout_s: float, on_slow: Callable[[], None] = lambda: None
    ) -> bool:
        """Acquire the lock and block the thread meanwhile; return False after ``timeout_s``.

        Args:
            timeout_s: maximum time to wait.
            on_slow: called after each ``SLOW_S`` of waiting; repeated, since the holder may change meanwhile.
        """
        waiter = self._queue()
        if waiter is None:
            return True
        while timeout_s > SLOW_S:
            with suppress(TimeoutError):
                waiter.result(SLOW_S)
                return True
            on_slow()
            timeout_s -= SLOW_S
        try:
            waiter.result(timeout_s)
        except TimeoutError:
            # A waiter that cannot be cancelled has just got the lock.
            return not waiter.cancel()
        return True

    async def acquire(self) -> None:
        """Acquire the lock without blocking the loop."""
        waiter = self._queue()
        if waiter is None:
            return
        try:
            await asyncio.wrap_future(waiter)
        except asyncio.CancelledError:
            if not waiter.cancel():
                self.release()
            raise

    def _queue(self) -> Future[None] | None:
        with self._mutex:
            if not self._taken:
                self._taken = True
                return None
            waiter: Future[None] = Future()
            self._waiting.append(waiter)
            return waiter

    def release(self) -> None:
        """Release the lock to the first waiter."""
        with self._mutex:
            self.holder = None
            while self._waiting:
                waiter = self._waiting.popleft()
                if waiter.set_running_or_notify_cancel():
                    waiter.set_result(None)
                    return
            self._taken = False

    # -- slow holders -------------------------------------------------------------------

    def name_holder(self, holder: str) -> None:
        """Record the name of the task that holds the lock, and the time."""
        self.holder, self._since_s = holder, now_s()

    def slow_holder(self) -> str | None:
        """Return the holder's name once it has held the lock for ``SLOW_S``; only once per hold."""
        holder = self.holder
        if holder is None or now_s() - self._since_s < SLOW_S:
            return None
        self._since_s = float("inf")
        return holder
