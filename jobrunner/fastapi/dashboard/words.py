"""Writes numbers, durations and sizes for people."""

from datetime import timedelta
from typing import Final

_MILLISECOND: Final = 1_000
_SECOND: Final = 1_000_000
_MINUTE: Final = 60 * _SECOND
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR

COUNT_CAP: Final = 10_000
"""Jobs are counted up to this number, and "10,000+" stands for more."""
_SHORT: Final = 1_000


def number(value: int) -> str:
    """Return a number with commas."""
    return f"{value:,}"


def capped(value: int, cap: int = COUNT_CAP) -> str:
    """Return a count that stopped at a cap, such as ``10,000+``."""
    return f"{cap:,}+" if value >= cap else f"{value:,}"


def short(value: int, cap: int = COUNT_CAP) -> str:
    """Return a count for a narrow place, such as ``1.3k``."""
    if value < _SHORT:
        return str(value)
    return f"{cap // 1000}k+" if value >= cap else f"{value / _SHORT:.1f}k"


def count_of(value: int, noun: str) -> str:
    """Return a number with its noun, such as ``1 job`` or ``2 jobs``."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def duration(value: timedelta | int | None) -> str:
    """Return a duration with its one or two largest units.

    Args:
        value: a timedelta, or microseconds.
    """
    if value is None:
        return "–"
    us = max(value if isinstance(value, int) else value // timedelta(microseconds=1), 0)
    if us < _SECOND:
        return f"{us / _MILLISECOND:.0f} ms" if us >= _MILLISECOND else "< 1 ms"
    if us < _MINUTE:
        return f"{us / _SECOND:.1f} s" if us < 10 * _SECOND else f"{us // _SECOND} s"
    for unit, name, smaller, smaller_name in _UNITS:
        if us >= unit:
            count, rest = divmod(us, unit)
            shown = rest // smaller if count < 10 or unit == _HOUR else 0  # noqa: PLR2004 - of two digits
            text = f"{count:,} {name}"
            return f"{text} {shown} {smaller_name}" if shown else text
    raise AssertionError(us)


_UNITS: Final = (
    (_DAY, "d", _HOUR, "h"),
    (_HOUR, "h", _MINUTE, "min"),
    (_MINUTE, "min", _SECOND, "s"),
)


def rough(value: timedelta | int) -> str:
    """Return a duration with its largest unit alone, for "3 min ago"."""
    us = value if isinstance(value, int) else value // timedelta(microseconds=1)
    if us < _MINUTE:
        return f"{max(us, 0) // _SECOND} s"
    if us < _HOUR:
        return f"{us // _MINUTE} min"
    if us < _DAY:
        return duration(us // _MINUTE * _MINUTE)
    return f"{us // _DAY:,} d"


def size(value: int) -> str:
    """Return a number of bytes, such as ``1.31 GB``."""
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:  # noqa: PLR2004 - the step between the units
            return f"{amount:.3g} {unit}" if unit != "B" else f"{value} B"
        amount /= 1000
    return f"{amount:.3g} TB"


def pair(first: timedelta | None, second: timedelta | None) -> str:
    """Return two durations, with their unit once if it is the same.

    For example ``4 / 41 ms``.
    """
    left, right = duration(first), duration(second)
    if left == right == "–":
        return left
    unit = f" {right.rpartition(' ')[2]}"
    return f"{left.removesuffix(unit) if left.count(' ') == 1 else left} / {right}"


def rate(value: float) -> str:
    """Return a number per minute; small ones with a decimal."""
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"  # noqa: PLR2004 - of two digits
