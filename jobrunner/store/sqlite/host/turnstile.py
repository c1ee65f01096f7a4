"""Who writes next: the gate orders the writers of this process, the turnstile behind it the processes on the file."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

from jobrunner.core.errors import StoreBusy
from jobrunner.core.logs import log_of
from jobrunner.store.sqlite.host.fair_lock import SLOW_S, FairLock
from jobrunner.store.sqlite.host.locks import Turnstile

logger = log_of("jobrunner")

TIMEOUT_S: Final = 5.0


class WriteLock:
    """The turns of one process's writers: of its own connection, and of the transactions of tasks on others."""

    def __init__(self, folder: Path) -> None:
        """Raises as ``Turnstile``."""
        self._turnstile = Turnstile(folder)
        self._gate = FairLock()

    def begin(self) -> None:
        """Have one's turn afterwards; blocks the thread. End it by ``end``.

        Raises:
            StoreBusy: others have not ended theirs for a long time.
        """
        if not self._gate.enter(TIMEOUT_S, self._name_slow_holder):
            raise StoreBusy(
                f"{self._gate.holder or 'the writer'} has not ended its transaction for {TIMEOUT_S:g} s"
            )
        try:
            self._turnstile.acquire(TIMEOUT_S)
        except BaseException:
            self._gate.leave()
            raise

    def end(self) -> None:
        """Let the next one in."""
        self._name_slow_holder()
        try:
            self._turnstile.release()
        finally:
            self._gate.leave()

    @asynccontextmanager
    async def of_task(self, holder: str) -> AsyncIterator[None]:
        """Let nobody else write inside the block, neither this process's writer nor another process.

        Args:
            holder: who writes, for the log.

        Raises:
            StoreBusy: other processes have not ended their turns for a long time.
        """
        await self._gate.wait()
        try:
            self._gate.held_by(holder)
            await self._acquire()
        except BaseException:
            self._gate.leave()
            raise
        try:
            yield
        finally:
            self.end()

    async def _acquire(self) -> None:
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
    def of_thread(self, holder: str) -> Iterator[None]:
        """Do as ``of_task``, and block the thread meanwhile."""
        self.begin()
        self._gate.held_by(holder)
        try:
            yield
        finally:
            self.end()

    def _name_slow_holder(self) -> None:
        holder = self._gate.slow_holder()
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
        """Give up the turn for good; safe to call twice."""
        self._turnstile.close()
