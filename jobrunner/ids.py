"""Public ids: UUIDs of version 7, made by the client before anything is stored.

Source: RFC 9562, section 5.7.  Made here because the standard library has them from Python 3.14 on only.
"""

import os


def new_id(now: int) -> str:
    """Return a UUIDv7 whose time is ``now`` (µs) to the millisecond; its other 74 bits are random."""
    time = f"{now // 1000 & 0xFFFF_FFFF_FFFF:012x}"
    chance = os.urandom(10).hex()
    variant = "89ab"[int(chance[3], 16) & 0x3]
    return f"{time[:8]}-{time[8:]}-7{chance[:3]}-{variant}{chance[4:7]}-{chance[8:]}"
