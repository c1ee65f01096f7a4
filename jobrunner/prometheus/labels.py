"""Limits the values of labels, and adds up measurements under the rest."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from jobrunner.store.limit_protocol import LaneCounts
from jobrunner.store.measurements import BatchCounts, Measurements
from jobrunner.tasks.spec import TaskSpec

OTHER: Final = "other"
"""The label of all tasks, queues or schedules above the limit."""

Pair = tuple[str, str]
"""Queue and task, as labels."""

NOTHING: Final = Measurements({}, (), (), {}, 0, 0, LaneCounts(0, 0, 0), BatchCounts(0, 0))
"""The measurements of a store without jobs and workers."""


class _Label:
    """The values of a label, limited in their number.

    The first ones stay: a series must not change its meaning when a new task comes.
    """

    def __init__(self, names: Iterable[str], most: int) -> None:
        self._kept = set(list(dict.fromkeys(names))[:most])

    def __getitem__(self, name: str) -> str:
        return name if name in self._kept else OTHER


class LabelledMeasurements:
    """Measurements with the labels of their series."""

    def __init__(
        self, measured: Measurements, specs: Mapping[str, TaskSpec], most: int, now: int
    ) -> None:
        self.measured = measured
        self.now = now
        known = [(spec.options.queue, spec.name) for spec in specs.values()]
        counted = [(queue, task) for _, queue, task in measured.counters if task]
        # Those with a number first, in the order in which they got it, which is the same for each process.
        tasks = _Label((task for _, task in counted + known), most)
        served = [name for worker in measured.workers for name in worker.queues]
        present = [one.name for one in measured.queues] + served
        self.queues = _Label([*(queue for queue, _ in counted + known), *present], most)
        self.present = sorted({self.queues[queue] for queue in present})
        self.schedules = _Label(measured.last_ticks, most)
        self.pairs = sorted({(self.queues[queue], tasks[task]) for queue, task in counted + known})
        self.by_name: defaultdict[str, Counter[Pair]] = defaultdict(Counter)
        for (name, queue, task), number in measured.counters.items():
            pair = (self.queues[queue], tasks[task]) if task else ("", "")
            self.by_name[name][pair] += number

    def of(self, name: str) -> Mapping[Pair, int]:
        """Return the counters of a name; those that do not exist are 0."""
        return self.by_name.get(name, Counter())

    def histogram(self, name: str) -> Mapping[Pair, tuple[int, Counter[int]]]:
        """Return the sum and the counts of a histogram, by pair."""
        counts: defaultdict[Pair, Counter[int]] = defaultdict(Counter)
        for bucket, by_pair in self.by_name.items():
            histogram, _, power = bucket.rpartition(":")
            if histogram == name:
                for pair, number in by_pair.items():
                    counts[pair][int(power)] += number
        sums = self.of(name)
        return {pair: (sums[pair], found) for pair, found in sorted(counts.items())}
