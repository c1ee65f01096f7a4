"""Public ids: UUIDs of version 7, made by the client before anything is stored.

Source: RFC 9562, section 5.7.  Made here because the standard library has them from Python 3.14 on only.
"""

import os


def new_id(now: int) -> str:
    """Return a UUIDv7 whose time is ``now`` (µs) to the millisecond; its other 74 bits are random."""
    bits = int.from_bytes(os.urandom(10))
    value = (now // 1000 & 0xFFFF_FFFF_FFFF) << 80 | bits
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
