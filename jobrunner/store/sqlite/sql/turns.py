"""Remembers the lane that was served last, so that lanes take turns.

A round of turns goes through the lanes in the order in which they were listed.  It ends with the lane that was the
newest when it began: however many new lanes arrive meanwhile, each lane comes in each round.

The positions are kept in memory, per connection: workers in other processes make rounds of their own, and a process
that starts again begins with a new one.  Positions in the file would make each claim write to all lanes that it serves.
"""

from typing import Final, NamedTuple


class Position(NamedTuple):
    """The progress of a round of turns."""

    turn: int
    id: int
    """With ``turn``, the lane that was served last."""
    last: int
    """The newest lane when the round began; later ones wait for the next round."""


_BEFORE_ALL: Final = (-(2**63), 0)


class Turns:
    """The position in the current round, per queue and priority."""

    def __init__(self) -> None:
        self._positions: dict[tuple[str, int], Position] = {}

    def position(self, queue: str, priority: int, newest: int) -> Position:
        """Return the position.

        Args:
            queue: the queue of the lanes.
            priority: the priority of their next jobs.
            newest: the newest lane, with which a first round ends.
        """
        found = self._positions.get((queue, priority))
        return Position(*_BEFORE_ALL, newest) if found is None else found

    def served(self, queue: str, priority: int, position: Position) -> None:
        """Set the position to the lane that was served last."""
        self._positions[queue, priority] = position
