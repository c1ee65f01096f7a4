"""Turns measurements into the metric families of prometheus-client."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Final, get_args

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    Sample,
)

from jobrunner.core.clock import SECOND_US
from jobrunner.core.model import AttemptOutcome, DeadReason
from jobrunner.core.workflows import BatchState
from jobrunner.prometheus.labels import LabelledMeasurements, Pair
from jobrunner.store import counters

_REASONS: Final[tuple[DeadReason, ...]] = get_args(DeadReason)
_BATCH_OUTCOMES: Final = tuple(one for one in get_args(BatchState) if one != "running")
_OUTCOMES: Final[tuple[AttemptOutcome, ...]] = get_args(AttemptOutcome)

# The upper bounds of buckets, as powers of two: of µs, or of rows.
_WORK: Final = (10, 12, 14, *range(16, 23), 24, 26, 28, 30, 32)
"""From a millisecond to 72 minutes.

In steps of two from 66 ms to 4 s, else of four: each step is a line for each task.
"""
_PAUSES: Final = tuple(range(8, 25))
"""From a quarter of a millisecond to 17 seconds."""
_ROWS: Final = tuple(range(1, 13))


def families_of(view: LabelledMeasurements) -> Iterator[Metric]:
    """Yield every metric family."""
    yield from _jobs(view)
    yield from _times(view)
    yield from _workers(view)
    yield from _queues(view)
    yield _lanes(view)
    yield from _batches(view)
    yield from _store(view)


def _jobs(view: LabelledMeasurements) -> Iterator[Metric]:
    dead = {str(reason): view.of(counters.dead(reason)) for reason in _REASONS}
    ended = {
        "succeeded": view.of(counters.attempts("succeeded")),
        "dead": sum((Counter(one) for one in dead.values()), Counter[Pair]()),
        "cancelled": view.of(counters.CANCELLED),
        "expired": view.of(counters.EXPIRED),
    }
    # Series of 0 for these alone, so that Prometheus sees the first one; for all they would be half of the lines.
    yield _counts(view, "jobs", "Jobs that ended, by outcome.", "outcome", ended, zeros=True)
    yield _counts(
        view,
        "attempts",
        "Attempts that ended, by outcome.",
        "outcome",
        {str(outcome): view.of(counters.attempts(outcome)) for outcome in _OUTCOMES},
    )
    yield _counts(view, "dead_letters", "Jobs that became dead letters, by reason.", "reason", dead)
    retries = CounterMetricFamily(
        "jobrunner_retries",
        "Attempts that failed or timed out and whose job runs again.",
        labels=["queue", "task"],
    )
    retried = view.of(counters.RETRIED)
    for pair in view.pairs:
        retries.add_metric(pair, retried.get(pair, 0))
    yield retries
    parks = CounterMetricFamily(
        "jobrunner_parks",
        "Attempts that ended because their job sleeps, or waits for a signal or for its children.",
        labels=["queue", "task"],
    )
    # Without series of 0, since few tasks wait.
    for pair, number in sorted(view.of(counters.PARKED).items()):
        parks.add_metric(pair, number)
    yield parks


def _counts(
    view: LabelledMeasurements,
    name: str,
    text: str,
    label: str,
    values: Mapping[str, Mapping[Pair, int]],
    *,
    zeros: bool = False,
) -> Metric:
    family = CounterMetricFamily(f"jobrunner_{name}", text, labels=["queue", "task", label])
    for pair in view.pairs:
        for value, by_pair in values.items():
            if zeros or pair in by_pair:
                family.add_metric((*pair, value), by_pair.get(pair, 0))
    return family


def _times(view: LabelledMeasurements) -> Iterator[Metric]:
    waits = HistogramMetricFamily(
        "jobrunner_wait_seconds",
        "The time from due to started, of attempts that succeeded, failed or timed out.",
        labels=["queue"],
    )
    totals = Counter[str]()
    by_queue: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for (queue, _), (total, counts) in view.histogram(counters.WAIT).items():
        totals[queue] += total
        by_queue[queue].update(counts)
    for queue, counts in by_queue.items():
        buckets = _buckets(counts, _WORK)
        _add_histogram(waits, {"queue": queue}, buckets, totals[queue] / SECOND_US)
    yield waits
    runs = HistogramMetricFamily(
        "jobrunner_run_seconds",
        "The time from started to ended, of the same attempts.",
        labels=["queue", "task"],
    )
    for (queue, task), (total, counts) in view.histogram(counters.RUN).items():
        labels = {"queue": queue, "task": task}
        _add_histogram(runs, labels, _buckets(counts, _WORK), total / SECOND_US)
    yield runs


def _add_histogram(
    family: Metric,
    labels: Mapping[str, str],
    buckets: Sequence[tuple[str, float]],
    total: float,
) -> None:
    """Add the samples that ``HistogramMetricFamily.add_metric`` adds, in a third of its time."""
    name = f"{family.name}_bucket"
    family.samples += [Sample(name, {**labels, "le": bound}, value) for bound, value in buckets]
    family.samples += [
        Sample(f"{family.name}_count", {**labels}, buckets[-1][1]),
        Sample(f"{family.name}_sum", {**labels}, total),
    ]


def _buckets(
    counts: Mapping[int, int], powers: Sequence[int], unit: float = SECOND_US
) -> list[tuple[str, float]]:
    """Return cumulated buckets: below each power of two, in the unit, and all."""
    buckets: list[tuple[str, float]] = []
    rest = sorted(counts.items(), reverse=True)
    below = 0
    for power, bound in _bounds(powers, unit):
        while rest and rest[-1][0] <= power:
            below += rest.pop()[1]
        buckets.append((bound, below))
    buckets.append(("+Inf", below + sum(number for _, number in rest)))
    return buckets


@cache
def _bounds(powers: Sequence[int], unit: float) -> Sequence[tuple[int, str]]:
    return [(power, _bound(power, unit)) for power in powers]


def _bound(power: int, unit: float) -> str:
    # A number of rows is whole, so that the largest one below the power belongs to the bucket.
    return str(float((1 << power) - 1)) if unit == 1 else str((1 << power) / unit)


def _workers(view: LabelledMeasurements) -> Iterator[Metric]:
    for name, text, histogram, powers, unit in (
        ("commit_rows", "Rows that a commit of a worker wrote.", counters.COMMIT_ROWS, _ROWS, 1),
        (
            *("commit_seconds", "The time of such a commit, with the wait for the write lock."),
            *(counters.COMMIT_TIME, _PAUSES, SECOND_US),
        ),
        (
            *("loop_lag_seconds", "The delay of a timer on a worker's event loop."),
            *(counters.LOOP_LAG, _PAUSES, SECOND_US),
        ),
    ):
        family = HistogramMetricFamily(f"jobrunner_{name}", text, labels=[])
        total, counts = view.histogram(histogram).get(("", ""), (0, Counter()))
        family.add_metric([], _buckets(counts, powers, unit), total / unit)
        yield family
    yield CounterMetricFamily(
        "jobrunner_recoveries",
        "Workers that were found dead and whose jobs were recovered.",
        view.of(counters.DEAD_WORKERS).get(("", ""), 0),
    )
    yield GaugeMetricFamily("jobrunner_workers", "Workers on the file.", len(view.measured.workers))


def _queues(view: LabelledMeasurements) -> Iterator[Metric]:
    waiting = {state: Counter[str]() for state in ("queued", "scheduled", "blocked")}
    running, slots = Counter[str](), Counter[str]()
    oldest = dict.fromkeys(view.present, 0)
    paused = dict.fromkeys(view.present, 0)
    for one in view.measured.queues:
        queue = view.queues[one.name]
        for state, number in waiting.items():
            number[queue] += getattr(one, state)
        running[queue] += one.running
        paused[queue] |= one.paused
        if one.oldest_due_at is not None:
            oldest[queue] = max(oldest[queue], view.now - one.oldest_due_at)
    for worker in view.measured.workers:
        for name, number_of_slots in worker.queues.items():
            slots[view.queues[name]] += number_of_slots
    jobs = GaugeMetricFamily(
        "jobrunner_waiting_jobs",
        "Waiting jobs by state; counted up to 10,000, in turns if they are more than 1,000.",
        labels=["queue", "state"],
    )
    for queue in view.present:
        for state, number in waiting.items():
            jobs.add_metric([queue, state], number[queue])
    yield jobs
    for name, text, values in (
        ("running_jobs", "Running jobs, each of which takes a slot.", running),
        ("slots", "Slots of all workers.", slots),
        ("queue_paused", "1 if the queue is paused.", paused),
        (
            "oldest_due_age_seconds",
            "The time since the queued job that has waited longest became due; 0 if none waits.",
            {queue: age / SECOND_US for queue, age in oldest.items()},
        ),
    ):
        gauge = GaugeMetricFamily(f"jobrunner_{name}", text, labels=["queue"])
        for queue in view.present:
            gauge.add_metric([queue], values.get(queue, 0))
        yield gauge


def _lanes(view: LabelledMeasurements) -> Metric:
    lanes = GaugeMetricFamily(
        "jobrunner_lanes",
        "Lanes with queued jobs: open, full (a job must end first) or empty (their rate); each up to 10,000.",
        labels=["state"],
    )
    for state, number in view.measured.lanes._asdict().items():
        lanes.add_metric([state], number)
    return lanes


def _batches(view: LabelledMeasurements) -> Iterator[Metric]:
    unfinished = GaugeMetricFamily(
        "jobrunner_unfinished_batches",
        "Batches that have not ended: running, or cancelling (some members still stop); each up to 10,000.",
        labels=["state"],
    )
    for state, number in view.measured.batches._asdict().items():
        unfinished.add_metric([state], number)
    yield unfinished
    ended = CounterMetricFamily(
        "jobrunner_batches",
        "Batches that ended, by outcome; one that was retried ends again.",
        labels=["outcome"],
    )
    for outcome in _BATCH_OUTCOMES:
        ended.add_metric([outcome], view.of(counters.batches(outcome)).get(("", ""), 0))
    yield ended


def _store(view: LabelledMeasurements) -> Iterator[Metric]:
    size = GaugeMetricFamily(
        "jobrunner_store_bytes",
        "The size of the database and of its write-ahead log.",
        labels=["file"],
    )
    size.add_metric(["database"], view.measured.file_bytes)
    size.add_metric(["log"], view.measured.log_bytes)
    yield size
    ticks = GaugeMetricFamily(
        "jobrunner_schedule_last_tick_timestamp_seconds",
        "The last tick of a schedule, with or without a job; of the others the oldest one.",
        labels=["schedule"],
    )
    last: dict[str, int] = {}
    for id, at in view.measured.last_ticks.items():
        schedule = view.schedules[id]
        last[schedule] = min(at, last.get(schedule, at))
    for schedule, at in last.items():
        ticks.add_metric([schedule], at / SECOND_US)
    yield ticks
