"""Histograms of durations whose percentiles are at most an eighth off.

Each lane counts the durations between two bounds.  Durations below 4 µs have a lane each.  From there on each power of
two has four lanes of equal width.  Histograms of several processes, minutes or tasks are merged by adding their counts.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import Final

LANES: Final = 176
"""The last lane also holds everything above 2⁴⁵ µs, which is more than a year."""

_GAP: Final = 4
"""The largest distance of two lanes in a segment: a new one would take as many bytes as the empty lanes between."""
_FORMATS: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}
"""The formats of ``struct`` by the bytes of a count."""


def lane_of(duration: int) -> int:
    """Return the lane of a duration in µs; a negative one counts as 0."""
    if duration < 4:  # noqa: PLR2004 - see the module's docstring
        return max(duration, 0)
    bits = duration.bit_length()
    return min(4 * bits - 12 + (duration >> bits - 3), LANES - 1)


def bounds(lane: int) -> tuple[int, int]:
    """Return the shortest and the longest duration of a lane, in µs."""
    if lane < 4:  # noqa: PLR2004 - as above
        return lane, lane
    power, quarter = divmod(lane, 4)
    width = 1 << power - 1
    return (4 + quarter) * width, (5 + quarter) * width - 1


class Histogram:
    """The number of durations by lane."""

    __slots__ = ("counts",)

    def __init__(self, durations: Iterable[int] = ()) -> None:
        """Count durations in µs."""
        self.counts: dict[int, int] = {}
        counts = self.counts
        for duration in durations:
            # ``lane_of``, inlined: a call would take as long again.
            if duration > 3:  # noqa: PLR2004 - as there
                bits = duration.bit_length()
                lane = 4 * bits - 12 + (duration >> bits - 3)
            else:
                lane = max(0, duration)
            if lane in counts:
                counts[lane] += 1
            else:
                counts[lane] = 1
        if counts and max(counts) >= LANES:
            self.counts = {lane: count for lane, count in counts.items() if lane < LANES - 1}
            self.counts[LANES - 1] = sum(
                count for lane, count in counts.items() if lane >= LANES - 1
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.counts == other.counts

    __hash__ = None  # type: ignore[assignment] # it can change

    def __repr__(self) -> str:
        return f"Histogram of {dict(sorted(self.counts.items()))}"

    @property
    def total(self) -> int:
        """The number of durations."""
        return sum(self.counts.values())

    def add(self, other: "Histogram") -> None:
        """Add the counts of another histogram."""
        counts = self.counts
        for lane, count in other.counts.items():
            counts[lane] = counts.get(lane, 0) + count

    def percentiles(self, *shares: float) -> Sequence[int | None]:
        """Return the durations in µs that these shares of all do not exceed.

        It is the middle of a lane, so it is at most an eighth off; None if there are no durations.

        Args:
            shares: from 0 to 1, in ascending order.
        """
        total = self.total
        if not total:
            return [None] * len(shares)
        found: list[int] = []
        lanes = iter(sorted(self.counts.items()))
        lane = passed = 0
        for share in shares:
            while passed < share * total:
                lane, count = next(lanes)
                passed += count
            found.append(sum(bounds(lane)) // 2)
        return found

    # -- as bytes ---------------------------------------------------------------------

    def encode(self) -> bytes:
        """Return the counts as bytes, for ``decode``.

        A segment has the counts of consecutive lanes: the first lane, the number of lanes, the bytes of each count, and
        the counts, lowest byte first.
        """
        counts = self.counts
        lanes = sorted(counts)
        encoded = b""
        begin = 0
        for end in range(1, len(lanes) + 1):
            if end < len(lanes) and lanes[end] - lanes[end - 1] <= _GAP:
                continue
            first, last = lanes[begin], lanes[end - 1]
            own = [counts.get(lane, 0) for lane in range(first, last + 1)]
            width = _width(max(own))
            encoded += bytes((first, len(own), width))
            encoded += struct.pack(f"<{len(own)}{_FORMATS[width]}", *own)
            begin = end
        return encoded

    @classmethod
    def decode(cls, encoded: bytes) -> "Histogram":
        """Return the histogram that was encoded."""
        self = cls()
        self.add_encoded(encoded)
        return self

    def add_encoded(self, encoded: bytes) -> None:
        """Add the counts of an encoded histogram."""
        counts = self.counts
        at = 0
        while at < len(encoded):
            first, number, width = encoded[at : at + 3]
            at += 3
            own = struct.unpack_from(f"<{number}{_FORMATS[width]}", encoded, at)
            at += number * width
            for lane, count in enumerate(own, first):
                if count:
                    counts[lane] = counts.get(lane, 0) + count


def _width(count: int) -> int:
    """Return the number of bytes that a count takes."""
    if count < 1 << 8:
        return 1
    return 2 if count < 1 << 16 else 4 if count < 1 << 32 else 8
