"""Computes the ticks of cron expressions, intervals and single dates.

The rules for cron expressions in a time zone whose clocks change:

- A time of day (``30 2 * * *``) ticks once per local day: at the end of the gap if the clocks skip it, at the first of
  the two if it comes twice.  A day that the calendar of the zone leaves out has no tick.
- An expression whose minute or hour begins with ``*`` (``*/30 * * * *``) follows real time: an hour that comes twice
  has its ticks twice.

Intervals have no time zone and always follow real time.  All functions are pure: they take the instant to start from.
"""

import functools
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Final, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from jobrunner.core.clock import EPOCH, MAX_US, SECOND_US, from_us, to_us
from jobrunner.core.errors import InvalidOptions, InvalidSchedule, shown
from jobrunner.core.exports import exported
from jobrunner.core.units import Seconds, instant_us, positive_us

_ALIASES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
MAX_CRON_CHARS: Final = 500
"""Enough to list each value of each field (420 characters); parsing 200,000 characters took 6.8 s."""
MAX_ZONE_CHARS: Final = 100
_FIELDS: Final = "minute, hour, day of month, month, day of week"
_FIELD_COUNT: Final = 5
_CHANGE: Final = timedelta(hours=4)
"""More than clocks have ever been set back at once."""
_UNITS: Final = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


@exported
@dataclass(frozen=True, slots=True)
class Cron:
    """A recurrence by a cron expression of five fields, in a time zone.

    ::

        Cron("0 8 * * 1-5", "Europe/Berlin").next_after(datetime.now(UTC))  # the next working day, 8:00 in Berlin

    When the clocks change, a time of day that is skipped ticks at the end of the gap, and one that comes twice ticks
    the first time only. Expressions whose minute or hour begins with ``*`` follow real time.

    Args:
        expression: Minute, hour, day of month, month, day of week, with names (``MON``, ``JAN``), lists, ranges, steps,
            ``L``, ``LW`` and ``5#2``; or ``@hourly``, ``@daily``, ``@weekly``, ``@monthly``, ``@yearly``.  If both a
            day of the month and a day of the week are given, either is enough, as in Debian's cron.  At most 500
            characters.
        timezone: A name of the time zone database, such as ``"Europe/Berlin"``.

    Raises:
        InvalidSchedule: The expression cannot be read or never matches, or the time zone is not known.
    """

    expression: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        _check_expression(self.expression)
        fields = _fields_of(self.expression)
        zone_of(self.timezone)
        try:
            next(CronSim(fields, EPOCH))
        except CronSimError as error:
            raise InvalidSchedule(
                f"the cron expression {self.expression!r} cannot be read or never comes true: {error};"
                f" its fields are {_FIELDS}"
            ) from None
        except StopIteration:
            raise InvalidSchedule(
                f"the cron expression {self.expression!r} never comes true: no year has such a day"
            ) from None

    def next_after(self, instant: datetime) -> datetime:
        """Return the first tick after an instant, in UTC.

        Args:
            instant: An aware datetime.

        Raises:
            InvalidSchedule: The instant has no time zone, or no tick is left before the calendar ends.
        """
        _check_aware(instant)
        fields, zone = _fields_of(self.expression), zone_of(self.timezone)
        minute, hour, *_ = fields.split()
        by_real_time = minute.startswith("*") or hour.startswith("*")
        try:
            if by_real_time:
                return _next_by_real_time(fields, instant.astimezone(UTC), zone)
            return _next_time_of_day(fields, instant.astimezone(UTC), zone)
        except (OverflowError, ValueError, StopIteration):
            raise InvalidSchedule(f"{self.expression!r} has no tick after {instant}") from None

    def describe(self) -> str:
        """Return the expression in English, with the time zone."""
        text = CronSim(_fields_of(self.expression), EPOCH).explain()
        return f"{text} ({self.timezone})"


@exported
@dataclass(frozen=True, slots=True)
class Every:
    """A recurrence at a fixed interval, in real time.

    ::

        Every(timedelta(minutes=5))

    Args:
        interval: Seconds or a timedelta, at least one second.

    Raises:
        InvalidSchedule: The interval is not valid.
    """

    interval: Seconds

    def __post_init__(self) -> None:
        try:
            us = positive_us(self.interval, "interval")
        except InvalidOptions as error:
            raise InvalidSchedule(str(error)) from None
        if us < SECOND_US:
            raise InvalidSchedule(
                f"interval={self.interval!r} is less than a second: for a quicker rhythm write a task that loops"
            )
        # One form per interval, so that 300, 300.0 and timedelta(minutes=5) make equal objects.
        object.__setattr__(self, "interval", timedelta(microseconds=us))

    @property
    def interval_us(self) -> int:
        """The interval in microseconds."""
        return positive_us(self.interval, "interval")

    def next_after(self, instant: datetime) -> datetime:
        """Return the instant one interval later, in UTC.

        Args:
            instant: An aware datetime.

        Raises:
            InvalidSchedule: The instant has no time zone, or the calendar ends before the next tick.
        """
        _check_aware(instant)
        us = to_us(instant) + self.interval_us
        if us > MAX_US:
            raise InvalidSchedule(f"{self.describe()} has no tick after {instant}")
        return from_us(us)

    def describe(self) -> str:
        """Return the interval in English."""
        left, words = self.interval_us, []
        for unit, seconds in _UNITS:
            count, left = divmod(left, seconds * SECOND_US)
            if count:
                words.append(f"{count} {unit}{'s' if count > 1 else ''}")
        if left:
            words.append(f"{left / 1000:g} ms")
        text = " ".join(words)
        return f"Every {text.removeprefix('1 ') if len(words) == 1 else text}"


@dataclass(frozen=True, slots=True)
class Once:
    """A single tick.

    Args:
        at: An aware datetime.

    Raises:
        InvalidSchedule: The datetime has no time zone, or lies beyond the calendar.
    """

    at: datetime

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "at", from_us(instant_us(self.at, "run_at")))
        except InvalidOptions as error:
            raise InvalidSchedule(str(error)) from None

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the tick if it is after the instant, else None."""
        _check_aware(instant)
        return self.at if self.at > instant else None

    def describe(self) -> str:
        """Return the date in English."""
        return f"Once, at {self.at:%Y-%m-%d %H:%M:%S} UTC"


Recurrence = Cron | Every | Once


# -- on the wall clock ------------------------------------------------------------------------


def _next_time_of_day(fields: str, instant: datetime, zone: tzinfo) -> datetime:
    """Return the first tick after an instant in UTC, by time of day."""
    for tick in CronSim(fields, instant.astimezone(zone)):
        # cronsim searches by wall time: in the second of two equal hours it may return a tick of the first.
        found = tick.astimezone(UTC)
        if found > instant and not _is_of_no_day(tick, fields, zone):
            return found
    raise StopIteration


def _is_of_no_day(tick: datetime, fields: str, zone: tzinfo) -> bool:
    """Return whether a tick belongs to a day that the zone left out.

    cronsim moves such a tick to another day. Apia, for example, left out 30 December 2011.
    """
    wall = tick.replace(tzinfo=None, fold=0)
    noon_before = datetime.combine(wall.date(), time()) - timedelta(hours=12)
    if _on_the_clock(noon_before, zone, fold=0) is not None:
        return False
    return next(CronSim(fields, wall - timedelta(seconds=1))) != wall


def _next_by_real_time(fields: str, instant: datetime, zone: tzinfo) -> datetime:
    """Return the first instant after another one at which the local time matches.

    Both are in UTC.
    """
    wall = instant.astimezone(zone).replace(tzinfo=None, fold=0)
    match = next(CronSim(fields, wall))
    found = _on_the_clock(match, zone, fold=0)
    if found is not None and _is_calm(instant, zone) and _is_calm(found, zone):
        return found
    # The clocks change nearby, so local time repeats or skips. Compare all matches in a window around the instant.
    # (cronsim's own handling loses ticks where the clocks change by half an hour.)
    first: datetime | None = None
    for match in CronSim(fields, wall - _CHANGE):
        if first is not None and match > first.astimezone(zone).replace(tzinfo=None) + _CHANGE:
            return first
        for fold in (0, 1):
            found = _on_the_clock(match, zone, fold=fold)
            if found is not None and found > instant and (first is None or found < first):
                first = found
    raise StopIteration


def _on_the_clock(wall: datetime, zone: tzinfo, *, fold: Literal[0, 1]) -> datetime | None:
    """Return the UTC instant at which a zone shows a local time; None if it never does.

    ``fold`` selects the first or the second time.
    """
    found = wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
    return found if found.astimezone(zone).replace(tzinfo=None, fold=0) == wall else None


def _is_calm(instant: datetime, zone: tzinfo) -> bool:
    """Return whether a zone's clocks do not change within four hours of an instant."""
    offsets = {
        moment.astimezone(zone).utcoffset()
        for moment in (instant - _CHANGE, instant, instant + _CHANGE)
    }
    return len(offsets) == 1


def zone_of(name: str) -> tzinfo:
    """Return a time zone by its name.

    Raises:
        InvalidSchedule: The time zone database does not have the name, or is not installed.
    """
    if not isinstance(name, str):
        raise InvalidSchedule(
            f"timezone={shown(name)} is not the name of a time zone: write one, such as 'Europe/Berlin'"
        )
    if len(name) > MAX_ZONE_CHARS:
        raise InvalidSchedule(
            f"timezone= has {len(name):,} characters, and no zone has a name of more than {MAX_ZONE_CHARS}: write one,"
            " such as 'Europe/Berlin'"
        )
    return _zone_of(name)


@functools.lru_cache(maxsize=1024)
def _zone_of(name: str) -> tzinfo:
    if name == "UTC":
        # Not ZoneInfo("UTC"): datetime has a fast path for this object.
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise InvalidSchedule(
            f"timezone={name!r} is not in the time zone database: write a name such as 'Europe/Berlin'"
            f"{'' if _has_database() else ' (no database is there at all: install tzdata)'}"
        ) from None


def _has_database() -> bool:
    try:
        ZoneInfo("Europe/Berlin")
    except (KeyError, OSError):
        return False
    return True


def _check_expression(expression: str) -> None:
    if not isinstance(expression, str):
        raise InvalidSchedule(f'{shown(expression)} is not a cron expression: write "0 8 * * *"')
    if len(expression) > MAX_CRON_CHARS:
        raise InvalidSchedule(
            f"the cron expression {expression[:20]!r}... has {len(expression):,} characters, more than"
            f" {MAX_CRON_CHARS}: write ranges and steps, such as */5 or 8-18, in place of long lists"
        )


@functools.lru_cache(maxsize=1024)
def _fields_of(expression: str) -> str:
    """Return the five fields of an expression, with aliases and spaces normalised."""
    text = expression.strip()
    if text.startswith("@"):
        known = _ALIASES.get(text.lower())
        if known is None:
            raise InvalidSchedule(
                f"the cron expression {expression!r} is none of {', '.join(_ALIASES)}"
            )
        return known
    fields = text.split()
    if len(fields) == _FIELD_COUNT + 1:
        raise InvalidSchedule(
            f"the cron expression {expression!r} has six fields: leave the seconds out, or write"
            " every(seconds=...)"
        )
    if len(fields) != _FIELD_COUNT:
        raise InvalidSchedule(
            f"the cron expression {expression!r} has {len(fields)} field(s), not five: {_FIELDS}"
        )
    return " ".join(fields)


def _check_aware(instant: datetime) -> None:
    if instant.utcoffset() is None:
        raise InvalidSchedule(
            f"{instant!r} has no time zone, so it names no instant: write datetime(..., tzinfo=UTC)"
        )
