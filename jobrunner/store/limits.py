"""Decides from plain values how many jobs a limit lets start; a store's statements apply it.

No I/O; ``now`` is an argument.  A rate is kept by the generic cell rate algorithm: one number per bucket, the instant
at which it is full again, so that a process that dies leaks nothing.
"""

from typing import Final, Literal

from jobrunner.core.limits import RateLimit

SLACK_US: Final = 50_000
"""Lateness that a rate makes up for: a wake-up is late by a timer, a busy loop and a commit."""
GRAIN_US: Final = 10_000
"""A wait for tokens ends when so much time's worth is there, so that 1,000 starts a second are 100 commits."""
SKEW_US: Final = 1_000_000
"""The most by which a round's time lies before an earlier round's: it has waited for the lock since."""
NO_ROOM_LIMIT: Final = 1 << 30

LaneState = Literal["open", "full", "empty"]


class Bucket:
    """The tokens of one rate at one instant; each start takes one.

    Args:
        rate: the rate.
        full_at: the stored instant at which the bucket is full again; None if it is full.
        now: the current time.
    """

    def __init__(self, rate: RateLimit, full_at: int | None, now: int) -> None:
        self._rate = rate
        self._now = now
        self._depth = self._time_of(rate.burst) + SLACK_US
        self.full_at = max(full_at or 0, now)
        # If the clock was set back, the bucket must not stay empty for longer than it takes to fill.
        set_back = self.full_at > now + self._depth + SKEW_US
        if set_back:
            self.full_at = now + self._depth
        self.changed = set_back
        """True if ``full_at`` must be stored: after a take, and to keep a correction for a clock that was set back."""

    def _time_of(self, tokens: int) -> int:
        """Return the time in which so many tokens flow in, rounded up."""
        return -(-tokens * self._rate.per // self._rate.starts)

    @property
    def tokens(self) -> int:
        """The number of jobs that may start now."""
        time = max(0, self._now + self._depth - self.full_at)
        return time * self._rate.starts // self._rate.per

    def take(self, tokens: int) -> None:
        """Take tokens for jobs that start."""
        self.full_at += self._time_of(tokens)
        self.changed = True

    @property
    def next_at(self) -> int:
        """The instant at which an empty bucket is worth another claim: a token, or ``GRAIN_US`` of them.

        Rounded up to the grain, so that many buckets share a wake-up.
        """
        wanted = max(1, GRAIN_US * self._rate.starts // self._rate.per)
        at = self.full_at - self._depth + self._time_of(wanted)
        return -(-at // GRAIN_US) * GRAIN_US


def after_claim(*, room: int, tokens: int, blocked: bool) -> LaneState:
    """Decide the state of a lane with waiting jobs after a claim.

    If both limits are used up, the lane waits for a job to end, and for its bucket then.

    Args:
        room: the number of jobs that may still run beside those that do now.
        tokens: the tokens that are left; ``NO_ROOM_LIMIT`` without a rate.
        blocked: True if the oldest job of an ordered lane cannot start: it runs, waits for a retry or is a suspect.
    """
    if blocked or room <= 0:
        return "full"
    return "open" if tokens > 0 else "empty"
