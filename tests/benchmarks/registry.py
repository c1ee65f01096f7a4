"""Every measurement by its name, in the order of the table."""

from collections.abc import Callable
from typing import Final

from tests.benchmarks import (
    claims,
    footprint,
    latency,
    limited,
    monitoring,
    postgres,
    rates,
    recovery,
    reporting,
    schedules,
    serving,
    sessions,
    steps,
    testing,
    throughput,
    workflows,
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
    "progress": reporting.progress,
    "start": latency.start,
    "schedule": latency.schedule,
    "claims": claims.claims,
    "claims-of-many": claims.of_many,
    "limits": limited.limits,
    "rates": rates.rates,
    "workflows": lambda bench: [*workflows.workflows(bench), *steps.steps(bench)],
    "schedules": schedules.schedules,
    "idle": footprint.idle,
    "recovery": recovery.recovery,
    "http": serving.http,
    "metrics": monitoring.metrics,
    "traces": monitoring.traces,
    "memory": footprint.memory,
    "testing": testing.testing,
    "postgres": postgres.postgres,
}
