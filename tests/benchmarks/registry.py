"""Every measurement by its name, in the order of the table."""

from collections.abc import Callable
from typing import Final

from tests.benchmarks import (
    claims,
    footprint,
    latency,
    recovery,
    schedules,
    serving,
    sessions,
    throughput,
)
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row

Measurement = Callable[[Bench], list[Row]]

MEASUREMENTS: Final[dict[str, Measurement]] = {
    "drain": throughput.drain,
    "tasks": throughput.tasks,
    "enqueue": throughput.enqueue,
    "options": throughput.options,
    "one-by-one": latency.one_by_one,
    "joined": sessions.joined,
    "settled": sessions.settled,
    "gate": sessions.gate,
    "writes": throughput.writes,
    "start": latency.start,
    "schedule": latency.schedule,
    "claims": claims.claims,
    "claims-of-many": claims.of_many,
    "schedules": schedules.schedules,
    "idle": footprint.idle,
    "recovery": recovery.recovery,
    "http": serving.http,
    "memory": footprint.memory,
}
