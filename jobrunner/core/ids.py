"""Makes public ids: UUIDs of version 7, before anything is stored.

Source: RFC 9562, section 5.7.  The standard library has ``uuid7`` only from Python 3.14 on.
"""

import os
from typing import Final

_AT_ONCE: Final = 256
"""Ids per call of ``os.urandom``: the system call costs as much as the rest of an id."""
_DIGITS: Final = 20

_chances: Final[list[str]] = []
"""Random hexadecimal digits for the next ids; each entry is used once."""

# Otherwise a forked child would make the same ids as its parent.
os.register_at_fork(after_in_child=_chances.clear)


def new_id(now: int) -> str:
    """Return a UUIDv7 of the time ``now`` (µs).

    It holds the time to the millisecond; the other 74 bits are random.
    """
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
