"""Pairs of measurements before and after a change, and what their ratios say: pure functions and values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A confidence interval of a median, with its minimum probability."""

    low: float
    high: float
    coverage: float


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return the narrowest interval between order statistics that holds the median with this confidence.

    The true median lies outside the k-th smallest to the k-th largest of n values only if fewer than k of them fall
    on one side of it, which for fair coins is ``2 * P(Binomial(n, 1/2) < k)``: nothing is assumed of the distribution.
    From nine values on the interval leaves out the smallest and the largest, from twelve on two at each end.

    Raises:
        ValueError: even the whole range does not hold the median so surely: fewer than six values for 95 %.
    """
    ordered = sorted(values)
    count = len(ordered)
    outside = 0.0
    best: Interval | None = None
    for left_out in range((count + 1) // 2):
        outside += 2 * math.comb(count, left_out) / 2**count
        if 1 - outside < confidence:
            break
        best = Interval(ordered[left_out], ordered[-1 - left_out], 1 - outside)
    if best is None:
        raise ValueError(f"{count} values are too few for an interval of {confidence:.0%}")
    return best


@dataclass(frozen=True, slots=True)
class Cost:
    """The processor time and the wall-clock time of a program, in seconds."""

    cpu: float
    wall: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of before / after over all pairs, with its interval: above 1, the change made it faster."""

    median: float
    interval: Interval

    @classmethod
    def of(cls, before: Sequence[float], after: Sequence[float]) -> "Ratio":
        """Compare pair by pair."""
        ratios = [one / other for one, other in zip(before, after, strict=True)]
        return cls(median(ratios), median_interval(ratios))

    @property
    def verdict(self) -> str:
        """Say which is faster, if the interval does."""
        if self.interval.low > 1:
            return "faster"
        return "SLOWER" if self.interval.high < 1 else "–"

    def __str__(self) -> str:
        """Write it as the table shows it."""
        return f"{self.median:.3f}× [{self.interval.low:.3f}, {self.interval.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One program, run in turns before and after: the n-th of each make a pair."""

    program: str
    does: str
    before: Sequence[Cost] = ()
    after: Sequence[Cost] = ()
    failed_before: str = ""
    """The reason that the older revision cannot run it; empty if both ran."""

    def ratio(self, measure: str) -> Ratio:
        """Return before / after of ``cpu`` or ``wall``."""
        return Ratio.of(self._values(self.before, measure), self._values(self.after, measure))

    def cells(self) -> tuple[str, ...]:
        """Return the comparison as the table shows it."""
        if self.failed_before:
            return (self.program, *[""] * 6)
        return (self.program, *self._of("cpu"), *self._of("wall"))

    def _of(self, measure: str) -> tuple[str, str, str]:
        ratio = self.ratio(measure)
        before, after = (
            median(self._values(costs, measure)) for costs in (self.before, self.after)
        )
        return f"{before:.3f} → {after:.3f}", str(ratio), ratio.verdict

    @staticmethod
    def _values(costs: Sequence[Cost], measure: str) -> list[float]:
        return [getattr(cost, measure) for cost in costs]

    def as_json(self) -> dict[str, Any]:
        """Return the ratios, and all samples."""
        found: dict[str, Any] = {"program": self.program, "does": self.does}
        if self.failed_before:
            return found | {"failed_before": self.failed_before}
        for measure in ("cpu", "wall"):
            ratio = self.ratio(measure)
            found[measure] = {
                "ratio": ratio.median,
                "interval": [ratio.interval.low, ratio.interval.high],
                "coverage": ratio.interval.coverage,
                "before": self._values(self.before, measure),
                "after": self._values(self.after, measure),
            }
        return found


HEADINGS = ("program", "CPU-seconds", "before / after", "", "wall seconds", "before / after", "")


def table(comparisons: Sequence[Comparison]) -> str:
    """Return the comparisons as one aligned table, and below it what could not be compared."""
    lines = [HEADINGS, *(each.cells() for each in comparisons)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (HEADINGS, tuple("─" * width for width in widths), *lines[1:])
    ]
    failed = [
        f"{each.program}: the older revision cannot run it: {each.failed_before}"
        for each in comparisons
        if each.failed_before
    ]
    return "\n".join([*rows, *failed])
