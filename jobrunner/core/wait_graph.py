"""Which attempts stand still: those that wait for jobs that can only move if one of these attempts does.

Plain values, no I/O: attempts of this process and those that other workers tell of are computed alike.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple


class Held(NamedTuple):
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
    """The look of its worker since which it has waited for just these, without an end in between."""


class Told(NamedTuple):
    """What a worker tells the others of its attempts that wait."""

    look: int = 0
    """Its number: a worker looks again only after the one before has been stored."""
    held: Sequence[Held] = ()


class Still(NamedTuple):
    """What must still be so when a wait is refused."""

    workers: AbstractSet[int]
    """The workers that there are."""
    held: Collection[Held]
    """Attempts that their workers tell of, and that run; none of what they wait for has started or ended."""


Slots = Mapping[int, Mapping[str, int]]
"""By worker and queue."""


def full(held: Iterable[Held], slots: Slots) -> set[str]:
    """Return the queues in which no worker can start anything while these attempts hold their slots."""
    count = Counter((one.worker, one.queue) for one in held)
    served = {queue for queues in slots.values() for queue in queues}
    return {
        queue
        for queue in served
        if all(count[worker, queue] >= queues.get(queue, 0) for worker, queues in slots.items())
    }


def standing(held: Iterable[Held], slots: Slots) -> set[Held]:
    """Return the attempts that can only go on if another one of them does."""
    found = set(held)
    while True:
        seqs = {one.seq for one in found}
        closed = full(found, slots)
        going = {
            one
            for one in found
            if not (closed.issuperset(one.queues) and seqs.issuperset(one.running))
        }
        if not going:
            return found
        found -= going


def chosen(found: Collection[Held]) -> Held:
    """Return the attempt to refuse, of some that stand still: the same one, whoever asks.

    The youngest of a circle in which each waits for the others alone.  One that merely waits for such a circle would go
    on when that is broken, and its own end would let nobody go on.
    """
    leads: dict[str | int, set[str | int]] = {}
    for one in found:
        for held in (one.queue, one.seq):
            leads.setdefault(held, set()).update(one.queues, one.running)
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
