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
    """Return a duration with its two largest units.

    Args:
        value: a timedelta, or microseconds.
    """
    if value is None:
        return "–"
    us = value if isinstance(value, int) else value // timedelta(microseconds=1)
    us = max(us, 0)
    if us < _SECOND:
        return f"{us / _MILLISECOND:.0f} ms" if us >= _MILLISECOND else "under 1 ms"
    if us < 10 * _SECOND:
        return f"{us / _SECOND:.1f} s"
    if us < _MINUTE:
        return f"{us // _SECOND} s"
    if us < 10 * _MINUTE:
        minutes, rest = divmod(us, _MINUTE)
        return f"{minutes} min {rest // _SECOND:02d} s" if rest >= _SECOND else f"{minutes} min"
    if us < _HOUR:
        return f"{us // _MINUTE} min"
    if us < _DAY:
        hours, rest = divmod(us, _HOUR)
        return f"{hours} h {rest // _MINUTE} min" if rest >= _MINUTE else f"{hours} h"
    days, rest = divmod(us, _DAY)
    if days < 10 and rest >= _HOUR:  # noqa: PLR2004 - beyond, the hours say nothing
        return f"{days} d {rest // _HOUR} h"
    return f"{days:,} days" if days > 1 else "1 day"


def rough(value: timedelta | int) -> str:
    """Return a duration with its largest unit alone, for "3 min ago"."""
    us = value if isinstance(value, int) else value // timedelta(microseconds=1)
    if us < _MINUTE:
        return f"{max(us, 0) // _SECOND} s"
    if us < _HOUR:
        return f"{us // _MINUTE} min"
    if us < _DAY:
        return duration(us // _MINUTE * _MINUTE)
    return f"{us // _DAY} d" if us < 2 * _DAY else f"{us // _DAY} days"


def size(value: int) -> str:
    """Return a number of bytes, such as ``1.31 GB``."""
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:  # noqa: PLR2004 - the step between the units
            return f"{amount:.3g} {unit}" if unit != "B" else f"{value} B"
        amount /= 1000
    return f"{amount:.3g} TB"
