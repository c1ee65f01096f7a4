"""Reads the SQLSTATE of a driver's error, whatever the driver is."""

from collections.abc import Iterator
from typing import Final

IN_THE_WAY: Final = frozenset({"40001", "40P01"})
"""Another transaction was in the way: a serialization failure or a deadlock. The same one again will do."""


def states_of(error: BaseException) -> Iterator[str]:
    """Yield the SQLSTATE of an error and of those that it wraps."""
    seen: set[int] = set()
    wrapped: list[BaseException | None] = [error]
    while wrapped:
        one = wrapped.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        state = getattr(one, "sqlstate", None) or getattr(one, "pgcode", None)
        if isinstance(state, str):
            yield state
        wrapped += [getattr(one, "orig", None), one.__cause__]


def is_in_the_way(error: BaseException) -> bool:
    """Return whether a transaction failed only because of another one."""
    return not IN_THE_WAY.isdisjoint(states_of(error))
