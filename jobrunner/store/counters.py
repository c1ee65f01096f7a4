"""Names the counters of a store, which only grow.

A counter belongs to a queue and a task, or to the store as a whole, as those of workers and batches do: then both are
empty.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

CounterKey = tuple[str, str, str]
"""Name, queue and task."""
Counters = Mapping[CounterKey, int]

RETRIED: Final = "retried"
"""Attempts that failed or timed out and whose job runs again."""
CANCELLED: Final = "jobs:cancelled"
EXPIRED: Final = "jobs:expired"
"""Jobs that ended in these two states."""
PARKED: Final = "parked"
"""Attempts that ended because their job waits."""
DEAD_WORKERS: Final = "workers:dead"
"""Workers that were found dead, and whose jobs were recovered."""

WAIT: Final = "wait"
RUN: Final = "run"
COMMIT_ROWS: Final = "commit:rows"
COMMIT_TIME: Final = "commit:time"
LOOP_LAG: Final = "lag"
"""Histograms: each has a counter of this name, the sum of all values, and one for each bucket.

Times are in µs.
"""


def attempts(outcome: str) -> str:
    """Return the name for attempts with an outcome."""
    return f"attempts:{outcome}"


def dead(reason: str) -> str:
    """Return the name for dead letters with a reason."""
    return f"dead:{reason}"


def batches(state: str) -> str:
    """Return the name for batches that ended in a state."""
    return f"batches:{state}"


def histogram(name: str, values: Collection[int]) -> dict[str, int]:
    """Return what values add to the counters of a histogram: to their sum, and to their buckets.

    The bucket of a value is its bit length, so it ends at the next power of two.
    """
    found = Counter(map(int.bit_length, values))
    return {name: sum(values), **{f"{name}:{power}": count for power, count in found.items()}}
