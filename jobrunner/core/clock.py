"""The wall clock: the one module that asks the time of day, and the µs form in which times are stored.

Everything else is handed ``now``; durations come from the event loop's clock, and on threads from ``now_s``.  So a
frozen clock freezes the library, but no wait.
"""

import time
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
SECOND_US = 1_000_000

MIN_US = (datetime(1, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND
MAX_US = (datetime(9999, 12, 31, tzinfo=UTC) - EPOCH) // MICROSECOND
"""The first and the last instant that can be named: beyond them ``datetime`` has no word for the day."""


def now_us() -> int:
    """Return the present as whole microseconds since 1970 in UTC, the form in which times are stored."""
    return time.time_ns() // 1000


def now_s() -> float:
    """Return a clock for durations, on any thread."""
    # clock_gettime: freezegun stops the others.
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def utcnow() -> datetime:
    """Return the present as an aware datetime in UTC."""
    return from_us(now_us())


def to_us(moment: datetime) -> int:
    """Return an aware datetime as microseconds since 1970 in UTC."""
    return (moment - EPOCH) // MICROSECOND


def from_us(us: int) -> datetime:
    """Return stored microseconds as an aware datetime in UTC."""
    return EPOCH + us * MICROSECOND
