"""Finds deadlocks among attempts that wait for the results of other jobs.

Such attempts are in a deadlock if each of them can only go on after another one of them.  Pure functions, no I/O: the
attempts of this process and those that other workers report are treated alike.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple


class WaitingAttempt(NamedTuple):
    """An attempt that holds a slot and waits for other jobs."""

    worker: int
    seq: int
    lease: int
    queue: str
    jobs: tuple[int, ...]
    """The ``seq`` of each job that it waits for or that must run before that, except the running ones."""
    queues: tuple[str, ...]
    """The queues in which the jobs that must run first wait for a slot."""
    running: tuple[int, ...]
    """The ``seq`` of each job that must finish first and is running."""
    since: int = 0
    """The number of the worker's report since which the attempt has waited, without a break, for just these jobs."""


class WaitReport(NamedTuple):
    """The waiting attempts of one worker, as it reports them to the others."""

    number: int = 0
    """Grows by one with each report: a worker makes the next one only after the last one is stored."""
    attempts: Sequence[WaitingAttempt] = ()


class Snapshot(NamedTuple):
    """A deadlock as it was found; checked again before a wait is refused."""

    workers: AbstractSet[int]
    """The ids of the registered workers."""
    attempts: Collection[WaitingAttempt]
    """Running attempts that their workers report; no job that they wait for has started or ended."""


Slots = Mapping[int, Mapping[str, int]]
"""Number of slots by worker and queue."""


def full_queues(attempts: Iterable[WaitingAttempt], slots: Slots) -> set[str]:
    """Return the queues whose slots are all held by these attempts, on every worker."""
    count = Counter((one.worker, one.queue) for one in attempts)
    served = {queue for queues in slots.values() for queue in queues}
    return {
        queue
        for queue in served
        if all(count[worker, queue] >= queues.get(queue, 0) for worker, queues in slots.items())
    }


def deadlocked(attempts: Iterable[WaitingAttempt], slots: Slots) -> set[WaitingAttempt]:
    """Return the largest set of attempts that all wait for others of the set."""
    found = set(attempts)
    while True:
        seqs = {one.seq for one in found}
        closed = full_queues(found, slots)
        going = {
            one
            for one in found
            if not (closed.issuperset(one.queues) and seqs.issuperset(one.running))
        }
        if not going:
            return found
        found -= going


def victim_of(found: Collection[WaitingAttempt]) -> WaitingAttempt:
    """Return the attempt of a deadlock whose wait to refuse; every worker finds the same one.

    It is the youngest attempt of a circle, in which each waits only for others of the circle.  An attempt outside that
    waits for the circle goes on once the circle is broken; refusing its wait would free nobody.
    """
    leads: dict[str | int, set[str | int]] = {}
    for one in found:
        for place in (one.queue, one.seq):
            leads.setdefault(place, set()).update(one.queues, one.running)
    # From inside a circle exactly the circle can be reached; from outside, the circle and more.
    places = set[str | int]().union(*leads.values())
    reached = [_reached(leads, place) for place in places]
    smallest = min(map(len, reached))
    circles = set[str | int]().union(*(one for one in reached if len(one) == smallest))
    return max(
        (one for one in found if one.queue in circles or one.seq in circles),
        key=lambda one: (one.seq, one.lease),
    )


def _reached(leads: Mapping[str | int, AbstractSet[str | int]], place: str | int) -> set[str | int]:
    places, todo = set[str | int](), [place]
    while todo:
        place = todo.pop()
        if place not in places:
            places.add(place)
            todo.extend(leads.get(place, ()))
    return places
