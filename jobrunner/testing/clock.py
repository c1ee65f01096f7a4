"""A wall clock that stands still until a test moves it.

It moves the clocks of freezegun and time-machine too."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from jobrunner.core.clock import from_us, system_us, to_us
from jobrunner.tasks.recurrence import zone_of


class TestClock:
    """The clock of one tester; jobrunner reads it in place of the system's clock.

    While freezegun or time-machine has replaced the time of the process, this clock shows their time and moves it.
    """

    __test__ = False

    def __init__(self) -> None:
        self._now = system_us()
        self._now = self.now_us()

    def now_us(self) -> int:
        """Return the time in microseconds since 1970 (UTC); on any thread."""
        # Not by the time module: freezegun shows the real time to code in a thread.
        frozen = _freezegun()
        if frozen is not None:
            return to_us(frozen().replace(tzinfo=UTC))
        if _time_machine() is not None:
            return system_us()
        return self._now

    def move_to(self, instant: int) -> None:
        """Move this clock, and that of freezegun or time-machine, forward to an instant (µs).

        An instant in the past changes nothing.
        """
        step = instant - self.now_us()
        if step <= 0:
            return
        frozen, traveller = _freezegun(), _time_machine()
        if frozen is not None:
            # Not by tick(), which in freeze_time(..., tick=True) forgets the time that has passed.
            frozen.move_to(from_us(instant).replace(tzinfo=None))
        elif traveller is not None:
            traveller.shift(timedelta(microseconds=step))
        # Kept for the time after their block.
        self._now = max(self._now, instant)


def instant_of(moment: datetime | str, zone: str | None) -> int:
    """Return a moment as microseconds since 1970 in UTC.

    Args:
        moment: An aware datetime, or an ISO date and time such as ``"2026-11-30 08:00"``.
        zone: The time zone of a moment that names none, such as ``"Europe/Berlin"``; None for UTC.

    Raises:
        ValueError: The text is no date and time, the zone is unknown, or a naive datetime comes without a zone.
    """
    at = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    if at.tzinfo is None:
        if zone is None and not isinstance(moment, str):
            raise ValueError(
                f'travel_to({moment!r}) names no time zone: write travel_to(..., zone="Europe/Berlin"), or an aware'
                " datetime"
            )
        at = at.replace(tzinfo=UTC if zone is None else zone_of(zone))
    return to_us(at)


class _Frozen:
    """The innermost frozen time of freezegun."""

    def __init__(self, factory: Any) -> None:
        self.move_to: Callable[[datetime], object] = factory.move_to
        self._factory = factory

    def __call__(self) -> datetime:
        now: datetime = self._factory()
        return now


def _freezegun() -> _Frozen | None:
    api: Any = sys.modules.get("freezegun.api")
    return _Frozen(api.freeze_factories[-1]) if api is not None and api.freeze_factories else None


def _time_machine() -> Any:
    """Return the innermost traveller of time-machine; None while it is not in use."""
    module: Any = sys.modules.get("time_machine")
    # The list has another name before time-machine 3.
    stack = getattr(module, "traveller_stack", None) or getattr(module, "coordinates_stack", None)
    return stack[-1] if stack else None
