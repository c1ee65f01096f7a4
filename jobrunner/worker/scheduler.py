"""Fires the schedules of one worker: sleeps until the next tick, then adds fires to a round.

Each round returns the time of the next tick, so schedules are not queried while none is due.  If several workers find
the same tick due, the round of one of them writes it and the store refuses those of the others.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from jobrunner.core.clock import SECOND_US, from_us, now_us
from jobrunner.core.errors import JobRunnerError, StoreError
from jobrunner.core.logs import log_of
from jobrunner.core.schedule import Definition, Fire, Fired, ScheduleChange, ScheduleRow
from jobrunner.store.committer import Committer
from jobrunner.store.protocol import Store
from jobrunner.tasks.schedule_options import reconcile
from jobrunner.tasks.spec import TaskSpec
from jobrunner.tasks.ticks import fire_of

logger = log_of("jobrunner")

FIRES_PER_ROUND: Final = 100
"""Planning one takes about 50 µs: ten thousand ticks at midnight must not block the event loop for half a second."""
LONGEST_SLEEP_S: Final = 3600.0
"""The longest timer: timers beyond about a day are not exact, and the poll reads the clock much earlier anyway."""


class Scheduler:
    """Fires the schedules whose tasks one worker knows."""

    def __init__(self, store: Store, committer: Committer, specs: Mapping[str, TaskSpec]) -> None:
        self._tasks = frozenset(specs)
        self._stuck: dict[str, tuple[ScheduleRow, str]] = {}
        """The schedules that this process cannot fire, by id, each with the reason."""
        self.next_tick: int | None = None
        """The time (µs) of the next tick, as the last round returned it; None if there is none."""
        self._store = store
        self._committer = committer
        self._specs = specs
        self._timer: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._failing = False

    def start(self) -> None:
        """Start to fire schedules."""
        self._task = asyncio.create_task(self._run(), name="jobrunner-scheduler")

    def begin_stop(self) -> None:
        """Stop firing; fires that a round already carries are written."""
        self._stopping = True
        self._disarm()
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        """Stop firing, and wait for the end of the task."""
        self.begin_stop()
        if self._task is not None:
            await asyncio.wait([self._task])

    def set_next_tick(self, next_tick: int | None) -> None:
        """Set the timer to the next tick (µs), as the last round returned it."""
        self.next_tick = next_tick
        self._disarm()
        if next_tick is None or self._stopping:
            return
        wait_s = (next_tick - now_us()) / SECOND_US
        if wait_s <= 0:
            self._wake.set()
        else:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(min(wait_s, LONGEST_SLEEP_S), self._wake.set)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.fire_due()
            except Exception as error:
                # Most likely the store is unavailable for a moment. The next poll wakes this task again.
                if not self._failing:
                    logger.error(
                        "schedules could not be fired, and are tried again: %s",
                        error,
                        exc_info=not isinstance(error, JobRunnerError),
                    )
                self._failing = True
            else:
                if self._failing:
                    self._failing = False
                    logger.info("schedules are fired again")

    async def fire_due(self) -> int:
        """Fire one slice of the due schedules, and return the number that advanced.

        If more schedules are due, the round that carries the slice reports it and wakes this task again.
        """
        now = now_us()
        limit = FIRES_PER_ROUND + len(self._stuck)
        rows = await self._store.schedules.due(self._tasks, now=now, limit=limit)
        fires = self._planned(rows, now)
        if not fires:
            # The timer was a moment early. Or another worker was faster: then the next poll returns the next tick.
            if self.next_tick is not None and self.next_tick > now:
                self.set_next_tick(self.next_tick)
            return 0
        answers = await self._committer.fire(fires)
        steps = 0
        for fire, fired in zip(fires, answers, strict=True):
            if isinstance(fired, StoreError):
                self._set_aside(fire.seen, fired)
            elif fired.advanced:
                steps += 1
                _log(fire, fired)
        return steps

    def _planned(self, rows: Sequence[ScheduleRow], now: int) -> list[Fire]:
        """Return the steps of the schedules that can be fired here."""
        fires: list[Fire] = []
        for row in rows:
            if self._stuck.get(row.id, (None, ""))[0] == row:
                continue
            try:
                fires.append(fire_of(row, self._specs[row.definition.task], now))
            except (JobRunnerError, ValueError, TypeError) as error:
                # A bad row must not delay the other schedules.
                self._set_aside(row, error)
            else:
                self._stuck.pop(row.id, None)
        return fires

    def _set_aside(self, row: ScheduleRow, error: Exception) -> None:
        """Skip a schedule until it is changed, and log that once."""
        self._stuck[row.id] = (row, str(error))
        logger.error("schedule %s cannot be fired by this process: %s", row.id, error)

    @property
    def problems(self) -> list[str]:
        """A sentence for each schedule that cannot be fired."""
        return [f"schedule {id} cannot be fired: {why}" for id, (_, why) in self._stuck.items()]


def _log(fire: Fire, fired: Fired) -> None:
    for outcome, count in fired.skipped.items():
        logger.info("schedule %s: %d tick(s) made no job (%s)", fire.seen.id, count, outcome)
    if logger.isEnabledFor(logging.DEBUG):
        for job in fired.jobs:
            following = None if fire.next is None else from_us(fire.next).isoformat()
            logger.debug("schedule %s made job %s; next tick %s", fire.seen.id, job.id, following)


async def declare_schedules(
    store: Store,
    declared: Mapping[str, Definition],
    *,
    revision: int,
    elsewhere: frozenset[str],
) -> Sequence[ScheduleChange]:
    """Store the schedules that the code declares, and return the changes.

    Raises:
        StoreError: The store could not write; nothing was changed.
    """
    while True:
        rows = {row.id: row for row in await store.schedules.declared()}
        for id in declared:
            # A schedule that was made at run time and has been moved into the code.
            if id not in rows and (row := await store.schedules.get(id)) is not None:
                rows[id] = row
        changes = reconcile(
            declared, rows.values(), revision=revision, now=now_us(), elsewhere=elsewhere
        )
        if not changes or await store.schedules.change(changes):
            return changes
