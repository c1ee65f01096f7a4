"""Cancels and reschedules the jobs that match a filter, slice by slice."""

from collections.abc import Callable
from typing import Final

from jobrunner.core.clock import now_us
from jobrunner.core.counts import CancelCounts, RescheduleCounts
from jobrunner.core.model import Filter
from jobrunner.queue.parts import QueueParts

CHANGED_PER_SLICE: Final = 500
"""The most jobs that one transaction finds; if it cancels, their chains may add more."""

OnSlice = Callable[[int], None] | None


async def cancel_all(parts: QueueParts, where: Filter, on_slice: OnSlice) -> CancelCounts:
    """Cancel the unfinished jobs that match; see ``JobQueue.cancel_all``."""
    cancelled, requested, before = 0, 0, None
    while True:
        done = await parts.store.jobs.cancel_all(
            where, before=before, now=now_us(), limit=CHANGED_PER_SLICE
        )
        parts.worker.cancel_requested(done.requested)
        for id in done.cancelled:
            parts.events.wake(id)
        cancelled += len(done.cancelled)
        requested += len(done.requested)
        if on_slice is not None:
            on_slice(len(done.cancelled) + len(done.requested))
        if done.cursor is None:
            return CancelCounts(cancelled, requested)
        before = done.cursor


async def reschedule_all(
    parts: QueueParts, where: Filter, run_at: int, on_slice: OnSlice, *, dry_run: bool
) -> RescheduleCounts:
    """Reschedule the waiting jobs that match; see ``JobQueue.reschedule_all``."""
    rescheduled, expiring, before = 0, 0, None
    while True:
        done = await parts.store.jobs.reschedule_all(
            where,
            before=before,
            run_at=run_at,
            now=now_us(),
            limit=CHANGED_PER_SLICE,
            dry_run=dry_run,
        )
        if not dry_run:
            parts.worker.wake()
        rescheduled += done.rescheduled
        expiring += done.expiring
        if on_slice is not None:
            on_slice(done.rescheduled)
        if done.cursor is None:
            return RescheduleCounts(rescheduled, expiring)
        before = done.cursor
