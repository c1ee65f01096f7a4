"""Deletes what is past its retention, in slices that hold the write lock shortly."""

from collections.abc import Mapping
from typing import Final

from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.store.protocol import Store
from jobrunner.store.statistics import HOURS_KEPT_US, MINUTE_US, MINUTES_KEPT_US
from jobrunner.tasks.spec import TaskSpec
from jobrunner.worker.settings import Settings

ROWS_PER_SLICE: Final = 500
AUDIT_RETENTION_US: Final = 365 * 24 * 3600 * SECOND_US
"""A year."""


class Retention:
    """Deletes jobs, dead letters, ticks and audit entries past their retention."""

    def __init__(self, store: Store, specs: Mapping[str, TaskSpec], settings: Settings) -> None:
        self._store = store
        self._specs = specs
        self._settings = settings

    async def prune(self) -> int:
        """Delete in slices, and return the number of deleted jobs and dead letters."""
        now = now_us()
        settings = self._settings
        by_task = {
            name: now - spec.options.retention
            for name, spec in self._specs.items()
            if spec.options.retention is not None
        }
        total = 0
        while True:
            pruned = await self._store.jobs.prune(
                finished_before=now - settings.retention_us,
                by_task=by_task,
                died_before=now - settings.dead_letter_retention_us,
                keep_finished=settings.keep_finished,
                limit=ROWS_PER_SLICE,
            )
            total += pruned
            if pruned < ROWS_PER_SLICE:
                break
        ticks = ROWS_PER_SLICE
        while ticks == ROWS_PER_SLICE:
            ticks = await self._store.schedules.prune_ticks(
                before=now - settings.retention_us, limit=ROWS_PER_SLICE
            )
        entries = ROWS_PER_SLICE
        while entries == ROWS_PER_SLICE:
            entries = await self._store.audit.prune(
                before=now - AUDIT_RETENTION_US, limit=ROWS_PER_SLICE
            )
        return total


class StatisticsRetention:
    """Rolls minutes of statistics up into hours, and deletes old minutes and hours."""

    def __init__(self, store: Store) -> None:
        self._statistics = store.statistics

    async def run(self) -> None:
        """Roll up the minutes that are over, one by one, then delete in slices."""
        now = now_us()
        while await self._statistics.roll_up(before=now - now % MINUTE_US):
            pass
        deleted = ROWS_PER_SLICE
        while deleted == ROWS_PER_SLICE:
            deleted = await self._statistics.prune(
                minutes_before=now - MINUTES_KEPT_US,
                hours_before=now - HOURS_KEPT_US,
                limit=ROWS_PER_SLICE,
            )
