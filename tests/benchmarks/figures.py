"""Numbers and how they are said: pure functions and values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

Unit = Literal["/s", "ms", "µs", "s", "%", "MB", "×"]

_DIGITS: dict[Unit, int] = {"/s": 0, "ms": 2, "µs": 1, "s": 3, "%": 2, "MB": 1, "×": 3}


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` (0 to 1) of ``values`` do not exceed: the nearest rank."""
    if not values:
        raise ValueError("a percentile of nothing")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def say(value: float, unit: Unit) -> str:
    """Return a value as the table shows it."""
    text = f"{value:,.{_DIGITS[unit]}f}"
    return text + unit if unit in {"/s", "×"} else f"{text} {unit}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Each sample is a run; ``ours`` and ``raw`` are compared by their medians.
    """

    figure: str
    unit: Unit
    ours: Sequence[float]
    raw: Sequence[float] = ()
    beside: str = ""
    """A description of ``raw``, if it is not plain ``sqlite3``."""
    judged: Literal["ratio", "itself"] = "itself"
    """``ratio``: the target applies to ours divided by raw; ``itself``: to ours."""
    target: float | None = None
    aim: float | None = None
    more_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        """Ours over raw, by their medians."""
        return median(self.ours) / median(self.raw) if self.raw else None

    @property
    def value(self) -> float:
        """The figure that is compared with the target."""
        ratio = self.ratio
        return ratio if self.judged == "ratio" and ratio is not None else median(self.ours)

    @property
    def ok(self) -> bool | None:
        """True if the target is reached; None if there is no target."""
        return None if self.target is None else self._reaches(self.target)

    def _reaches(self, goal: float) -> bool:
        return self.value >= goal if self.more_is_better else self.value <= goal

    def cells(self) -> tuple[str, ...]:
        """Return the row as the table shows it."""
        unit: Unit = "×" if self.judged == "ratio" else self.unit
        sign = "≥" if self.more_is_better else "≤"
        raw = say(median(self.raw), self.unit) if self.raw else "–"
        return (
            self.figure,
            say(median(self.ours), self.unit),
            f"{raw} ({self.beside})" if self.beside and self.raw else raw,
            "–" if self.ratio is None else say(self.ratio, "×"),
            "–" if self.target is None else f"{sign} {say(self.target, unit)}",
            "–" if self.aim is None else f"{sign} {say(self.aim, unit)}",
            {True: "yes", False: "NO", None: "–"}[self.ok],
        )

    def as_json(self) -> dict[str, object]:
        """Return the row with every sample."""
        return {
            "figure": self.figure,
            "unit": self.unit,
            "jobrunner": median(self.ours),
            "raw": median(self.raw) if self.raw else None,
            "beside": self.beside or ("sqlite3" if self.raw else None),
            "ratio": self.ratio,
            "judged": self.judged,
            "target": self.target,
            "aim": self.aim,
            "more_is_better": self.more_is_better,
            "ok": self.ok,
            "samples": {"jobrunner": list(self.ours), "raw": list(self.raw)},
        }


HEADINGS = ("figure", "jobrunner", "raw", "ratio", "target", "aim", "ok?")


def table(rows: Sequence[Row]) -> str:
    """Return the rows as one aligned table."""
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = tuple("─" * width for width in widths)
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in (lines[0], rule, *lines[1:])
    )
