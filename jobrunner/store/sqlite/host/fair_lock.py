"""A FIFO lock between the writer thread and the tasks that hold transactions on other connections.

Without it a transaction on the application's own connection would have to win SQLite's lock against a committer that
comes back at once, and the committer against four such tasks: the longest waits were eight times as long.
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
"""A task that holds the lock for longer is named in the log: nobody else writes meanwhile."""


class FairLock:
    """A lock for threads and for tasks of the loop, fair between them."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[Future[None]] = deque()
        self._taken = False
        self.holder: str | None = None
        """The task that holds it; None if it is nobody's, or the writer's."""
        self._since_s = 0.0

    def acquire_blocking(
        self, timeout_s: float, on_slow: Callable[[], None] = lambda: None
    ) -> bool:
        """Acquire the lock, or return False after ``timeout_s``; blocks the thread.

        Args:
            on_slow: called after each ``SLOW_S`` of waiting: its holder may have just got it.
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
            # If it cannot be cancelled any more, the lock has just been handed over.
            return not waiter.cancel()
        return True

    async def acquire(self) -> None:
        """Acquire the lock; the loop goes on meanwhile."""
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
        """Hand the lock over to the waiter that came first."""
        with self._mutex:
            self.holder = None
            while self._waiting:
                waiter = self._waiting.popleft()
                if waiter.set_running_or_notify_cancel():
                    waiter.set_result(None)
                    return
            self._taken = False

    # -- who is slow --------------------------------------------------------------------

    def name_holder(self, holder: str) -> None:
        """Note the holder by the name that its user knows."""
        self.holder, self._since_s = holder, now_s()

    def slow_holder(self) -> str | None:
        """Return the task that has held the lock for too long, once per holding."""
        holder = self.holder
        if holder is None or now_s() - self._since_s < SLOW_S:
            return None
        self._since_s = float("inf")
        return holder
