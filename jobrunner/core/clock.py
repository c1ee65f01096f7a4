"""Reads the wall clock and converts times to stored microseconds.

No other module reads the time of day: everything else takes ``now`` as an argument.  Durations use the event loop's
clock, and ``now_s`` on threads.  Freezing the wall clock in a test therefore freezes the library's time, and no wait
hangs.  The testing kit replaces the wall clock by one that a test moves.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
SECOND_US = 1_000_000

MIN_US = (datetime(1, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND
MAX_US = (datetime(9999, 12, 31, tzinfo=UTC) - EPOCH) // MICROSECOND
"""The first and the last instant that are accepted: ``datetime`` ends at the years 1 and 9999."""


_replacement: Callable[[], int] | None = None
"""Returns the time in place of the system's clock; only in tests."""

_offset_us = 0
"""Added to the system's clock; see ``follow``."""

_kept: Final[ContextVar[bool]] = ContextVar("jobrunner.clock_kept", default=False)
"""True in the tasks of a runner that no tester has taken over: they read the system's clock beside a tester."""


def now_us() -> int:
    """Return the current time in whole microseconds since 1970 (UTC), as stored."""
    if _replacement is None or _kept.get():
        return system_us() + _offset_us
    return _replacement()


def system_us() -> int:
    """Return what the time module gives, in whole microseconds; freezegun and time-machine replace it."""
    return time.time_ns() // 1000


def follow(offset_us: int) -> None:
    """Read the clock of a server that several machines share, for the whole process.

    Args:
        offset_us: how far the server is ahead of the system's clock; 0 to read that again.
    """
    global _offset_us  # noqa: PLW0603 - every module reads the time by `now_us`
    _offset_us = offset_us


@contextmanager
def replaced(source: Callable[[], int]) -> Iterator[None]:
    """Read the wall clock from a function inside the block.

    This holds in the whole process, except for code inside ``kept``.

    Args:
        source: Returns microseconds since 1970 (UTC); may be called on any thread.
    """
    global _replacement  # noqa: PLW0603 - every module reads the time by `now_us`
    before, _replacement = _replacement, source
    try:
        yield
    finally:
        _replacement = before


@contextmanager
def kept() -> Iterator[None]:
    """Read the system's clock inside the block, whatever replaces it.

    Tasks and timers that the block makes read it too."""
    token = _kept.set(True)
    try:
        yield
    finally:
        _kept.reset(token)


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
