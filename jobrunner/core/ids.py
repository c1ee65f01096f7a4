"""Public ids: UUIDs of version 7, made by the client before anything is stored.

Source: RFC 9562, section 5.7.  Made here because the standard library has them from Python 3.14 on only.
"""

import os
from typing import Final

_AT_ONCE: Final = 256
"""For how many ids chance is fetched in one go: asking the kernel costs as much as the rest of an id."""
_DIGITS: Final = 20

_chances: Final[list[str]] = []
"""Hexadecimal digits, each used once."""

# A forked child would make the ids of its parent.
os.register_at_fork(after_in_child=_chances.clear)


def new_id(now: int) -> str:
    """Return a UUIDv7 whose time is ``now`` (µs) to the millisecond; its other 74 bits are random."""
    try:
        chance = _chances.pop()
    except IndexError:
        chance = _fetch()
    time = f"{now // 1000 & 0xFFFF_FFFF_FFFF:012x}"
    variant = "89ab"[int(chance[3], 16) & 0x3]
    return f"{time[:8]}-{time[8:]}-7{chance[:3]}-{variant}{chance[4:7]}-{chance[8:]}"


def _fetch() -> str:
    digits = os.urandom(_AT_ONCE * _DIGITS // 2).hex()
    first, *others = (digits[at : at + _DIGITS] for at in range(0, len(digits), _DIGITS))
    _chances.extend(others)
    return first
