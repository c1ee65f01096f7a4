"""Reads the wall clock and converts times to stored microseconds.

No other module reads the time of day: everything else takes ``now`` as an argument.  Durations use the event loop's
clock, and ``now_s`` on threads.  Freezing the wall clock in a test therefore freezes the library's time, and no wait
hangs.
"""

import time
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
SECOND_US = 1_000_000

MIN_US = (datetime(1, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND
MAX_US = (datetime(9999, 12, 31, tzinfo=UTC) - EPOCH) // MICROSECOND
"""The first and the last instant that are accepted: ``datetime`` ends at the years 1 and 9999."""


def now_us() -> int:
    """Return the current time in whole microseconds since 1970 (UTC), as stored."""
    return time.time_ns() // 1000


def now_s() -> float:
    """Return monotonic seconds for measuring durations, on any thread."""
    # clock_gettime, because freezegun freezes time.monotonic and its siblings.
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def utcnow() -> datetime:
    """Return the current time as an aware datetime in UTC."""
    return from_us(now_us())


def to_us(moment: datetime) -> int:
    """Return an aware datetime as microseconds since 1970 in UTC."""
    return (moment - EPOCH) // MICROSECOND


def from_us(us: int) -> datetime:
    """Return stored microseconds as an aware datetime in UTC."""
    return EPOCH + us * MICROSECOND
