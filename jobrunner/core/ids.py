"""Makes public ids: UUIDs of version 7, before anything is stored.

Source: RFC 9562, section 5.7.  The standard library has ``uuid7`` only from Python 3.14 on.
"""

import os
import re
from typing import Final

_AT_ONCE: Final = 256
"""Ids per call of ``os.urandom``: the system call costs as much as the rest of an id."""
_DIGITS: Final = 19
"""Random digits of an id: the last 19 of its 32, one of which has two random bits."""
_PARTS: Final = re.compile("(...)(.)(...)(.{12})")
_VARIANTS: Final = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
"""By random digit, the one with the two bits that are the same in all UUIDs."""

_endings: Final[list[str]] = []
"""The random parts of the next ids; each entry is used once."""
_beginning: tuple[int, str] = (-1, "")
"""The millisecond of the last id, and the part of the id that holds it."""

# Otherwise a forked child would make the same ids as its parent.
os.register_at_fork(after_in_child=_endings.clear)


def new_id(now: int) -> str:
    """Return a UUIDv7 of the time ``now`` (µs).

    It holds the time to the millisecond; the other 74 bits are random.
    """
    # Most ids are made many at a time.
    millisecond, beginning = _beginning
    if millisecond != now // 1000:
        beginning = _begin(now // 1000)
    try:
        return beginning + _endings.pop()
    except IndexError:
        return beginning + _fetch()


def _begin(millisecond: int) -> str:
    global _beginning  # noqa: PLW0603 - one tuple, so that threads see both values or none
    time = f"{millisecond & 0xFFFF_FFFF_FFFF:012x}"
    beginning = f"{time[:8]}-{time[8:]}-7"
    _beginning = millisecond, beginning
    return beginning


def _fetch() -> str:
    digits = os.urandom(_AT_ONCE * _DIGITS // 2).hex()
    first, *others = [
        f"{high}-{_VARIANTS[variant]}{middle}-{low}"
        for high, variant, middle, low in _PARTS.findall(digits)
    ]
    _endings.extend(others)
    return first
