"""The write lock of a store, fair between the writers of all its processes."""

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


# No process wakes the ones that wait for A: the next one to poll a free lock gets it. So a process polls more often the
# longer it waits. With growing pauses newcomers overtake: a light writer beside four heavy ones (2 ms each) waited
# 105 ms (p50) and 272 ms (p99); with shrinking pauses 7 and 21 ms. Only one process at a time waits for B, so it always
# gets B.
_QUEUEING: Final = _Pauses(0.001, 0.7, 0.0001)
_NEXT: Final = _Pauses(0.000_02, 1.1, 0.001)

_STUCK_AFTER_S: Final = 0.25
_STUCK_PAUSE_S: Final = 0.001
"""Pause behind a holder that hangs, so that many waiting processes do not use up the CPU."""


def _poll(fd: int, deadline_s: float, pauses: _Pauses) -> bool:
    # Polled: a blocking lockf has no timeout, so the thread would wait for ever behind a stopped holder.
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
    """A write lock that is fair between processes.

    It consists of two files: the process that holds A is next, and the process that holds B writes.  A writer that
    tries again at once finds A taken and waits like all others, while SQLite's own busy handler would let it win again
    and again.  SQLite's own lock still guarantees the exclusion.  Use it from the writer thread only: to the kernel,
    all threads of a process are one owner.
    """

    __slots__ = ("_a", "_b", "_held", "_paths")

    def __init__(self, directory: Path) -> None:
        """Open ``turnstile.a`` and ``turnstile.b`` in the directory.

        Creates the files if needed; they are never unlinked.

        Raises:
            StoreUnavailable, StoreFull: The files cannot be opened.
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
        """Acquire the write lock; block for at most ``timeout_s`` (0 tries once).

        Raises:
            StoreBusy: Other processes held the lock all the time.
            StoreUnavailable: The operating system refuses to lock.
        """
        if not self.try_acquire(timeout_s):
            raise StoreBusy(f"other processes held the write lock for {timeout_s:g} s")

    def try_acquire(self, timeout_s: float) -> bool:
        """Acquire the write lock as ``acquire``, but return False instead of raising ``StoreBusy``."""
        if self._held:
            raise RuntimeError("the turnstile is held already: one thread, once at a time")
        deadline_s = now_s() + timeout_s
        try:
            if try_lock(self._a) or _poll(self._a, deadline_s, _QUEUEING):
                try:
                    self._held = try_lock(self._b) or _poll(self._b, deadline_s, _NEXT)
                finally:
                    # In every case: if A stayed locked, no other process could ever be next.
                    fcntl.lockf(self._a, fcntl.LOCK_UN)
        except OSError as error:
            raise translated(error, self._paths[0]) from error
        return self._held

    def release(self) -> None:
        """Release the lock; does nothing if it is not held."""
        if self._held:
            self._held = False
            fcntl.lockf(self._b, fcntl.LOCK_UN)

    @contextmanager
    def held(self, timeout_s: float) -> Iterator[None]:
        """Hold the write lock inside the block; raises the same errors as ``acquire``."""
        self.acquire(timeout_s)
        try:
            yield
        finally:
            self.release()

    def in_place(self) -> bool:
        """Return whether other processes still find the two files at their paths.

        If not, new processes wait at other files, and only SQLite's own lock excludes them.
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
    """Admits one writer at a time.

    A writer is the store's own connection, a task's transaction, or another process.
    """

    def __init__(self, folder: Path) -> None:
        """Open the turnstile in the folder; raises the same errors as ``Turnstile``."""
        self._turnstile = Turnstile(folder)
        self._lock = FairLock()

    def acquire(self) -> None:
        """Acquire the lock; blocks the thread.

        Raises:
            StoreBusy: Other writers have held the lock for ``TIMEOUT_S``.
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
        """Release the lock to the next writer."""
        self._name_slow_holder()
        try:
            self._turnstile.release()
        finally:
            self._lock.release()

    @asynccontextmanager
    async def held_by_task(self, holder: str) -> AsyncIterator[None]:
        """Hold the lock inside the block, without blocking the loop.

        Args:
            holder: name of the task, for the log.

        Raises:
            StoreBusy: Other processes have held the lock for ``TIMEOUT_S``.
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
        # It polls, so it runs in a thread. A cancelled caller still waits for the thread, to release the lock.
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
        """Hold the lock as ``held_by_task`` does, but block the thread while waiting."""
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
                "%s has held the write transaction for more than %g ms, and nobody else can write: do what takes time"
                " before `job.transaction()`",
                holder,
                SLOW_S * 1000,
            )

    def in_place(self) -> bool:
        """Return whether other processes still use the same turnstile."""
        return self._turnstile.in_place()

    def close(self) -> None:
        """Release the lock and close its files; safe to call twice."""
        self._turnstile.close()
