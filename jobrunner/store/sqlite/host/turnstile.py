"""The write lock of a store: fair between the writers of one process, and between the processes on the file."""

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from jobrunner.core.clock import now_s
from jobrunner.core.errors import StoreBusy
from jobrunner.core.logs import log_of
from jobrunner.store.sqlite.host.fair_lock import SLOW_S, FairLock
from jobrunner.store.sqlite.host.record_locks import (
    inode_of,
    is_at,
    open_or_create,
    store_errors,
    translated,
    try_lock,
)

logger = log_of("jobrunner")

TIMEOUT_S: Final = 5.0


class _Pauses(NamedTuple):
    first_s: float
    change: float
    last_s: float


# Whoever queues at A is woken by nobody and wins by asking at the right moment; so the longer one waits, the more often
# one asks. With pauses that grow, newcomers overtake: a light writer beside four heavy ones (2 ms each) then waited
# 105 ms (p50) and 272 (p99), so 7 and 21. Only one process at a time waits for B, and gets it in any case.
_QUEUEING: Final = _Pauses(0.001, 0.7, 0.0001)
_NEXT: Final = _Pauses(0.000_02, 1.1, 0.001)

_STUCK_AFTER_S: Final = 0.25
_STUCK_PAUSE_S: Final = 0.001
"""Behind a holder that stands still, a crowd must not eat the processor."""


def _poll(fd: int, deadline_s: float, pauses: _Pauses) -> bool:
    # Polled: a blocking lockf has no time-out, and behind a stopped holder the thread would never come back.
    pause_s, change, last_s = pauses
    started_s = at_s = now_s()
    while at_s < deadline_s:
        time.sleep(min(pause_s, deadline_s - at_s))
        if try_lock(fd):
            return True
        at_s = now_s()
        if at_s - started_s > _STUCK_AFTER_S:
            pause_s = _STUCK_PAUSE_S
        else:
            pause_s = max(pause_s * change, last_s) if change < 1 else min(pause_s * change, last_s)
    return False


class Turnstile:
    """The write lock of a store, fair between processes.

    Two files: whoever holds A is next; the holder of B writes.  A writer that comes back at once finds A taken and
    waits like everybody else, while SQLite's own busy handler lets it win again and again.  SQLite's lock beneath stays
    the real exclusion.  Used from the writer thread alone: to the kernel, two threads are one owner.
    """

    __slots__ = ("_a", "_b", "_held", "_paths")

    def __init__(self, directory: Path) -> None:
        """Open ``turnstile.a`` and ``turnstile.b`` in the directory, making them if need be; they are never unlinked.

        Raises:
            StoreUnavailable, StoreFull: they cannot be opened.
        """
        self._paths = (directory / "turnstile.a", directory / "turnstile.b")
        self._held = False
        with store_errors(self._paths[0]):
            self._a = open_or_create(self._paths[0])
        try:
            self._b = open_or_create(self._paths[1])
        except OSError as error:
            os.close(self._a)
            raise translated(error, self._paths[1]) from error

    def acquire(self, timeout_s: float) -> None:
        """Hold the write lock afterwards; block for ``timeout_s`` at most (0 tries once).

        Raises:
            StoreBusy: others held it all the time.
            StoreUnavailable: the system refuses to lock.
        """
        if not self.try_acquire(timeout_s):
            raise StoreBusy(f"other processes held the write lock for {timeout_s:g} s")

    def try_acquire(self, timeout_s: float) -> bool:
        """Do as ``acquire``, but return False in place of raising ``StoreBusy``."""
        if self._held:
            raise RuntimeError("the turnstile is held already: one thread, once at a time")
        deadline_s = now_s() + timeout_s
        try:
            if try_lock(self._a) or _poll(self._a, deadline_s, _QUEUEING):
                try:
                    self._held = try_lock(self._b) or _poll(self._b, deadline_s, _NEXT)
                finally:
                    # In every case: a place at the head that nobody stands in would stop everybody.
                    fcntl.lockf(self._a, fcntl.LOCK_UN)
        except OSError as error:
            raise translated(error, self._paths[0]) from error
        return self._held

    def release(self) -> None:
        """Let the next one in; nothing happens if the lock is not held."""
        if self._held:
            self._held = False
            fcntl.lockf(self._b, fcntl.LOCK_UN)

    @contextmanager
    def held(self, timeout_s: float) -> Iterator[None]:
        """Hold the write lock inside the block; raises as ``acquire``."""
        self.acquire(timeout_s)
        try:
            yield
        finally:
            self.release()

    def in_place(self) -> bool:
        """Return whether other processes still find the two files at their paths.

        If not, newcomers queue at other files, and nothing but SQLite's own lock stands between them and us.
        """
        with store_errors(self._paths[0].parent):
            return all(
                is_at(path, inode_of(os.fstat(fd)))
                for path, fd in zip(self._paths, (self._a, self._b), strict=True)
            )

    def close(self) -> None:
        """Release and close; safe to call twice."""
        self.release()
        for fd in (self._b, self._a):
            if fd >= 0:
                os.close(fd)
        self._a = self._b = -1


class WriteLock:
    """Lets one writer through at a time: the store's connection, a task's transaction, or another process."""

    def __init__(self, folder: Path) -> None:
        """Raises as ``Turnstile``."""
        self._turnstile = Turnstile(folder)
        self._lock = FairLock()

    def acquire(self) -> None:
        """Acquire the lock; blocks the thread until it has it.

        Raises:
            StoreBusy: others have held it for a long time.
        """
        if not self._lock.acquire_blocking(TIMEOUT_S, self._name_slow_holder):
            raise StoreBusy(
                f"{self._lock.holder or 'the writer'} has not ended its transaction for {TIMEOUT_S:g} s"
            )
        try:
            self._turnstile.acquire(TIMEOUT_S)
        except BaseException:
            self._lock.release()
            raise

    def release(self) -> None:
        """Let the next one in."""
        self._name_slow_holder()
        try:
            self._turnstile.release()
        finally:
            self._lock.release()

    @asynccontextmanager
    async def held_by_task(self, holder: str) -> AsyncIterator[None]:
        """Keep this process's writer and other processes from writing inside the block.

        Args:
            holder: who writes, for the log.

        Raises:
            StoreBusy: other processes have held it for a long time.
        """
        await self._lock.acquire()
        try:
            self._lock.name_holder(holder)
            await self._acquire_turnstile()
        except BaseException:
            self._lock.release()
            raise
        try:
            yield
        finally:
            self.release()

    async def _acquire_turnstile(self) -> None:
        if self._turnstile.try_acquire(0):
            return
        # It polls, so in a thread; and whoever is cancelled waits for it, or nobody would give the lock back.
        acquiring = asyncio.get_running_loop().run_in_executor(
            None, self._turnstile.acquire, TIMEOUT_S
        )
        try:
            await asyncio.shield(acquiring)
        except asyncio.CancelledError:
            while not acquiring.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([acquiring])
            if acquiring.exception() is None:
                self._turnstile.release()
            raise

    @contextmanager
    def held_by_thread(self, holder: str) -> Iterator[None]:
        """Do as ``held_by_task``, and block the thread meanwhile."""
        self.acquire()
        self._lock.name_holder(holder)
        try:
            yield
        finally:
            self.release()

    def _name_slow_holder(self) -> None:
        holder = self._lock.slow_holder()
        if holder is not None:
            logger.warning(
                "%s has had the write transaction for more than %g ms, and nobody else can write: do what takes time"
                " before `job.transaction()`",
                holder,
                SLOW_S * 1000,
            )

    def in_place(self) -> bool:
        """Return whether other processes still queue at the same turnstile."""
        return self._turnstile.in_place()

    def close(self) -> None:
        """Release it for good; safe to call twice."""
        self._turnstile.close()
