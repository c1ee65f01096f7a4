"""Defines what a monitoring system reads of a store."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jobrunner.core.model import QueueStats, WorkerRow
from jobrunner.store.counters import Counters
from jobrunner.store.limit_protocol import LaneCounts


class BatchCounts(NamedTuple):
    """The number of batches that have not ended; each up to a cap."""

    running: int
    """Nobody has requested their cancel."""
    cancelling: int
    """Their cancel was requested, and some of their members have not ended yet."""


class Measurements(NamedTuple):
    """The counters and the present state of a store."""

    counters: Counters
    """Every counter, the one that was first added to before the others."""
    queues: Sequence[QueueStats]
    """The queues that have unfinished jobs or are paused, as of ``JobStore.queues``.

    Counts above 1,000 may be of an earlier measurement.
    """
    workers: Sequence[WorkerRow]
    last_ticks: Mapping[str, int]
    """The last tick (µs) of each schedule that has had one, the oldest schedule first."""
    file_bytes: int
    """The size of the database."""
    log_bytes: int
    """The size of its write-ahead log; 0 if the store has none."""
    lanes: LaneCounts
    """The lanes with queued jobs, by the reason why they wait; each up to 10,000."""
    batches: BatchCounts
    """The batches that have not ended; each up to 10,000."""
