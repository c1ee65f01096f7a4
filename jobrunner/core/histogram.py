"""Histograms of durations in µs whose percentiles are at most a tenth off.

Each lane counts the durations between two bounds, which grow by the fourth root of two: each power of two has four
lanes.  Histograms of several processes, minutes or tasks are merged by adding their counts.

All counts together are one integer with 64 bits for each lane.  So one addition adds all lanes, and a few operations
encode them, whatever their number: a worker with hundreds of tasks does this for each of them every few seconds.
"""

import math
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Final

LANES: Final = 253
"""The lanes of all durations below 2⁶³ µs: the difference of two times that a store can hold is never longer."""

_BYTES: Final = 8
"""The bytes of a count."""
_BITS: Final = 8 * _BYTES
_ONE: Final = [1 << lane * _BITS for lane in range(LANES)]
"""The integer of a histogram with one duration, by lane."""
_MANY: Final = 40
"""From so many durations on, counting them by lane first is cheaper than adding up integers."""
_ALL: Final = struct.Struct(f"<{LANES}Q")
_ABOVE: Final = [
    int.from_bytes((b"\0" * kept + b"\xff" * (_BYTES - kept)) * LANES, "little")
    for kept in range(_BYTES + 1)
]
"""The bits of all counts that lie above their lowest bytes, by the number of these."""


def lane_of(duration: int) -> int:
    """Return the lane of a duration in µs; a negative one counts as 0."""
    return (max(duration, 0) ** 4).bit_length()


def bounds(lane: int) -> tuple[int, int]:
    """Return the shortest and the longest duration of a lane, in µs.

    The shortest is above the longest if the lane has none, as some below 4 µs.
    """
    return (_fourth_root(1 << lane - 1), _fourth_root(1 << lane) - 1) if lane else (0, 0)


def _fourth_root(value: int) -> int:
    """Return the least number whose fourth power is at least this one."""
    return math.isqrt(math.isqrt(value - 1)) + 1


class Histogram:
    """The number of durations by lane."""

    __slots__ = ("packed",)

    def __init__(self, durations: Sequence[int] = ()) -> None:
        """Count durations in µs."""
        self.packed = 0
        """The counts, 64 bits each."""
        if not durations:
            return
        if min(durations) < 0:
            durations = [max(duration, 0) for duration in durations]
        # ``lane_of``, without a line of Python for each duration.
        lanes = map(int.bit_length, map(pow, durations, repeat(4)))
        if len(durations) < _MANY:
            self.packed = sum(map(_ONE.__getitem__, lanes))
        else:
            self.packed = _pack(Counter(lanes))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.packed == other.packed

    __hash__ = None  # type: ignore[assignment] # it can change

    def __repr__(self) -> str:
        return f"Histogram of {self.counts}"

    @classmethod
    def of_counts(cls, counts: Mapping[int, int]) -> "Histogram":
        """Return the histogram with these counts by lane."""
        self = cls()
        self.packed = _pack(counts)
        return self

    @property
    def counts(self) -> Mapping[int, int]:
        """The counts that are not 0 by lane, in the order of the lanes."""
        counts = _ALL.unpack(self.packed.to_bytes(_ALL.size, "little"))
        return {lane: count for lane, count in enumerate(counts) if count}

    @property
    def total(self) -> int:
        """The number of durations."""
        return sum(self.counts.values())

    def by_power(self) -> Mapping[int, int]:
        """Return the counts by the bit length of a duration: four lanes are one power of two."""
        packed = self.packed
        if not packed:
            return {}
        # Only the lanes that have some, which are few: a worker with hundreds of tasks asks this for each.
        first = ((packed & -packed).bit_length() - 1) // _BITS
        number = (packed.bit_length() - 1) // _BITS + 1 - first
        lanes = (packed >> first * _BITS).to_bytes(number * _BYTES, "little")
        powers: dict[int, int] = {}
        for lane, count in enumerate(struct.unpack(f"<{number}Q", lanes), first + 3):
            if count:
                powers[lane // 4] = powers.get(lane // 4, 0) + count
        return powers

    def add(self, other: "Histogram") -> None:
        """Add the counts of another histogram."""
        self.packed += other.packed

    def percentiles(self, *shares: float) -> Sequence[int | None]:
        """Return the durations in µs that these shares of all do not exceed.

        It is the geometric middle of a lane, rounded, so at most a tenth and half a µs off; None if there are none.

        Args:
            shares: from 0 to 1, in ascending order.
        """
        counts = self.counts
        total = sum(counts.values())
        if not total:
            return [None] * len(shares)
        found: list[int] = []
        lanes = iter(counts.items())
        lane = passed = 0
        for share in shares:
            while passed < share * total:
                lane, count = next(lanes)
                passed += count
            found.append(round(math.sqrt(math.prod(bounds(lane)))))
        return found

    # -- as bytes ---------------------------------------------------------------------

    def encode(self) -> bytes:
        """Return the counts as bytes, for ``decode``.

        They are the first lane and the bytes of each count, then the lowest bytes of the counts from the first lane to
        the last one, their second lowest bytes, and so on.
        """
        counts = self.packed
        if not counts:
            return b""
        first = ((counts & -counts).bit_length() - 1) // _BITS
        width = 1
        while counts & _ABOVE[width]:
            width += 1
        lanes = (counts.bit_length() - 1) // _BITS + 1
        wide = (counts >> first * _BITS).to_bytes((lanes - first) * _BYTES, "little")
        return bytes((first, width)) + b"".join([wide[byte::_BYTES] for byte in range(width)])

    @classmethod
    def decode(cls, encoded: bytes) -> "Histogram":
        """Return the histogram that was encoded."""
        self = cls()
        self.add_encoded(encoded)
        return self

    def add_encoded(self, encoded: bytes) -> None:
        """Add the counts of an encoded histogram."""
        if not encoded:
            return
        first, width = encoded[:2]
        lanes = (len(encoded) - 2) // width
        wide = bytearray(lanes * _BYTES)
        for byte in range(width):
            wide[byte::_BYTES] = encoded[2 + byte * lanes : 2 + (byte + 1) * lanes]
        self.packed += int.from_bytes(wide, "little") << first * _BITS


def _pack(counts: Mapping[int, int]) -> int:
    """Return counts by lane as one integer."""
    if not counts:
        return 0
    first, last = min(counts), max(counts)
    own = map(counts.get, range(first, last + 1), repeat(0))
    return int.from_bytes(struct.pack(f"<{last + 1 - first}Q", *own), "little") << first * _BITS
