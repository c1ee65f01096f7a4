"""Runs periodic chores when they are due, concurrently: a slow one delays no other."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from jobrunner.core.errors import StoreError, StoreFailed
from jobrunner.core.logs import log_of

logger = log_of("jobrunner")

TICK_S: Final = 0.2
"""Seconds between two checks for due chores: the jobs of a dead process wait that long."""


class Period:
    """A period of some seconds.

    Args:
        seconds: The length.
        begun: True if the first period begins now; by default ``begin`` begins it.
    """

    def __init__(self, seconds: float, *, begun: bool = False) -> None:
        self._seconds = seconds
        self._begun_s = asyncio.get_running_loop().time() if begun else -math.inf

    def is_over(self) -> bool:
        """Return whether ``begin`` would begin the next period."""
        return self._is_over(asyncio.get_running_loop().time())

    def begin(self) -> bool:
        """Begin the next period if the current one is over; return whether it was."""
        now_s = asyncio.get_running_loop().time()
        if not self._is_over(now_s):
            return False
        self._begun_s = now_s
        return True

    def _is_over(self, now_s: float) -> bool:
        # Rather a twentieth of the period early than a whole tick late.
        return now_s - self._begun_s >= self._seconds * 0.95

    def lasts(self, seconds: float) -> None:
        """Change the length of the current period and of the next ones."""
        self._seconds = seconds

    def end(self) -> None:
        """End the current period now."""
        self._begun_s = -math.inf


@dataclass(frozen=True, slots=True)
class Chore:
    """A function that is called once in each period."""

    name: str
    """The name in the log and, while it fails, in health."""
    period: Period
    run: Callable[[], Awaitable[object]]
    on_ring: bool = False
    """True if a ring of the doorbell makes it due at once."""


class ChoreRunner:
    """Runs chores when they are due, each in its own task."""

    def __init__(
        self,
        chores: Sequence[Chore],
        on_fatal: Callable[[StoreError], None],
        on_lag: Callable[[float], None] | None = None,
    ) -> None:
        """``on_lag`` is called at each tick with the seconds that the loop was late."""
        self.by_name: Mapping[str, Chore] = {chore.name: chore for chore in chores}
        self.under_way: dict[str, asyncio.Task[None]] = {}
        """The running chores by name."""
        self.failing: set[str] = set()
        self._on_fatal = on_fatal
        self._on_lag = on_lag
        self._rung = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Run chores when they are due, until ``stop``."""
        self._task = asyncio.create_task(self._run(), name="jobrunner-chores")

    async def stop(self) -> None:
        """Cancel the running chores and wait until they have ended."""
        if self._task is not None:
            tasks = [self._task, *self.under_way.values()]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def ring(self) -> None:
        """Run the chores with ``on_ring`` at once."""
        self._rung.set()

    async def run_due(self) -> None:
        """Run the due chores, and return when all of them have ended."""
        await self.all_ended()
        self._begin_due()
        await self.all_ended()

    async def all_ended(self) -> None:
        """Wait until no chore is running."""
        if self.under_way:
            await asyncio.wait(self.under_way.values())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if self._rung.is_set():
                self._rung.clear()
                for chore in self.by_name.values():
                    if chore.on_ring:
                        chore.period.end()
            self._begin_due()
            due_s = loop.time() + TICK_S
            try:
                async with asyncio.timeout_at(due_s):
                    await self._rung.wait()
            except TimeoutError:
                if self._on_lag is not None:
                    self._on_lag(loop.time() - due_s)

    def _begin_due(self) -> None:
        for name, chore in self.by_name.items():
            # A chore that is still running starts again after it has ended.
            if name not in self.under_way and chore.period.begin():
                task = asyncio.create_task(self._try(chore), name=f"jobrunner-{name}")
                self.under_way[name] = task
                task.add_done_callback(partial(self._ended, name))

    def _ended(self, name: str, _: asyncio.Task[None]) -> None:
        del self.under_way[name]

    async def _try(self, chore: Chore) -> None:
        name = chore.name
        try:
            await chore.run()
        except StoreFailed as error:
            self._on_fatal(error)
        except Exception as error:
            if name not in self.failing:
                self.failing.add(name)
                expected = isinstance(error, StoreError)
                logger.error(
                    "%s failed and is tried again: %s",
                    name,
                    error,
                    exc_info=not expected,
                    like=name,
                )
        else:
            if name in self.failing:
                self.failing.discard(name)
                logger.info("%s works again", name, like=name)
