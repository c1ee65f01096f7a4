"""Remembers the lane that was served last, so that lanes take turns.

A round of turns goes through the lanes in the order in which they were listed.  It ends with the lane that was the
newest when it began: however many new lanes arrive meanwhile, each lane comes in each round.

The places are kept in memory, per connection: workers in other processes make rounds of their own, and a process that
starts again begins with a new one.  Places in the file would make each claim write to all lanes that it serves.
"""

from typing import Final, NamedTuple


class Place(NamedTuple):
    """The progress of a round of turns."""

    turn: int
    """With ``id``, the place of the lane that was served last."""
    id: int
    last: int
    """The newest lane when the round began; later ones wait for the next round."""


_BEFORE_ALL: Final = (-(2**63), 0)


class Turns:
    """The place of the current round, per queue and priority."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, int], Place] = {}

    def place(self, queue: str, priority: int, newest: int) -> Place:
        """Return the current place.

        Args:
            queue: The queue of the lanes.
            priority: The priority of their next jobs.
            newest: The newest lane, at which a first round ends.
        """
        place = self._places.get((queue, priority))
        return Place(*_BEFORE_ALL, newest) if place is None else place

    def serve(self, queue: str, priority: int, place: Place) -> None:
        """Set the place, after a lane there was served."""
        self._places[queue, priority] = place
