"""Finds deadlocks among attempts that wait for jobs which only move if one of these attempts does.

Plain values, no I/O: attempts of this process and those that other workers report are computed alike.
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
    """What it waits for, and what must run before that, by ``seq``, but for what is running."""
    queues: tuple[str, ...]
    """Where the jobs that must move first wait for a slot."""
    running: tuple[int, ...]
    """Those of the jobs that must move first which are running, by ``seq``."""
    since: int = 0
    """The report of its worker since which it has waited for just these, without an end in between."""


class WaitReport(NamedTuple):
    """A worker's attempts that wait for jobs, as the other workers see them."""

    number: int = 0
    """Grows by one: a worker reports again only after the one before has been stored."""
    attempts: Sequence[WaitingAttempt] = ()


class Snapshot(NamedTuple):
    """A deadlock as it was found, which must still hold when a wait is refused."""

    workers: AbstractSet[int]
    """The workers that have joined."""
    attempts: Collection[WaitingAttempt]
    """Attempts that their workers report, and that run; no job that they wait for has started or ended."""


Slots = Mapping[int, Mapping[str, int]]
"""By worker and queue."""


def full_queues(attempts: Iterable[WaitingAttempt], slots: Slots) -> set[str]:
    """Return the queues in which no worker can start anything while these attempts hold their slots."""
    count = Counter((one.worker, one.queue) for one in attempts)
    served = {queue for queues in slots.values() for queue in queues}
    return {
        queue
        for queue in served
        if all(count[worker, queue] >= queues.get(queue, 0) for worker, queues in slots.items())
    }


def deadlocked(attempts: Iterable[WaitingAttempt], slots: Slots) -> set[WaitingAttempt]:
    """Return the largest set of attempts that can only go on if another one of the set does."""
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
    """Return the attempt of a deadlock to refuse; every worker finds the same one.

    The youngest of a circle in which each waits for the others alone.  One that merely waits for such a circle would go
    on when that is broken, and its own end would let nobody go on.
    """
    leads: dict[str | int, set[str | int]] = {}
    for one in found:
        for place in (one.queue, one.seq):
            leads.setdefault(place, set()).update(one.queues, one.running)
    # What can be reached from a place in such a circle is the circle; from elsewhere it is more than one.
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
