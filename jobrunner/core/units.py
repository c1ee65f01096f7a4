"""Checks durations, instants, names and limits from callers and returns their stored form."""

import re
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from jobrunner.core.clock import MAX_US, MICROSECOND, MIN_US, SECOND_US, to_us
from jobrunner.core.errors import InvalidOptions, shown

Seconds = float | timedelta
"""A duration: a number of seconds, or a timedelta."""

MAX_DURATION_US: Final = 36_525 * 24 * 3600 * SECOND_US
"""A hundred years: with this limit an instant plus a duration stays within the calendar."""
MAX_PRIORITY: Final = 32_767

_SCHEDULE_ID: Final = re.compile(r"\w[\w.:@+-]{0,199}", re.ASCII)
"""Only characters that need no escape in the path of a URL."""
_STEP: Final = re.compile(r"\w[\w.:@+-]{0,199}", re.ASCII)
"""Only characters that need no escape in the path of a URL, where the name of a signal stands."""
_NAME: Final = re.compile(r"[A-Za-z_][\w.:-]{0,199}", re.ASCII)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Unset(Enum):
    """The type of ``UNSET``, the default of options for which None has a meaning."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


def written_duration(text: str) -> timedelta | None:
    """Return the duration that a number with a unit means: 90s, 30m, 24h, 7d or 2w.

    Returns:
        None if the text is no such duration.

    Raises:
        OverflowError: It is too long for a timedelta.
    """
    number, unit = text[:-1], text[-1:]
    if number.isascii() and number.isdigit() and unit in _UNITS:
        return timedelta(**{_UNITS[unit]: int(number)})
    return None


def duration_us(value: Seconds, what: str) -> int:
    """Return a duration in whole microseconds.

    Args:
        value: Seconds or a timedelta, from 0 to a hundred years.
        what: The option's name, for the error.

    Raises:
        InvalidOptions: The value is not a duration, is negative, not finite or too long.
    """
    if isinstance(value, timedelta):
        us = value // MICROSECOND
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        # Compared before it is multiplied: NaN and infinities fail here too, and no product can overflow.
        us = round(value * SECOND_US) if 0 <= value <= MAX_DURATION_US // SECOND_US else -1
    else:
        raise InvalidOptions(f"{what} takes seconds or a timedelta, not {value!r}")
    if not 0 <= us <= MAX_DURATION_US:
        raise InvalidOptions(f"{what}={value!r} is not a duration from 0 to 100 years")
    return us


def positive_us(value: Seconds, what: str) -> int:
    """Return a duration in whole microseconds, at least one.

    Args:
        value: Seconds or a timedelta, more than 0 and up to a hundred years.
        what: The option's name, for the error.

    Raises:
        InvalidOptions: The value is not such a duration.
    """
    us = duration_us(value, what)
    if us == 0:
        raise InvalidOptions(f"{what}={value!r} must be more than 0; None means none")
    return us


def instant_us(value: datetime, what: str) -> int:
    """Return an instant as microseconds since 1970 in UTC.

    Args:
        value: An aware datetime.
        what: The option's name, for the error.

    Raises:
        InvalidOptions: The value is not a datetime, has no time zone or lies beyond the calendar.
    """
    if not isinstance(value, datetime):
        raise InvalidOptions(f"{what} takes a datetime, not {value!r}")
    if value.utcoffset() is None:
        raise InvalidOptions(
            f"{what}={value!r} has no time zone, so it names no instant: write datetime(..., tzinfo=UTC)"
        )
    us = to_us(value)
    if not MIN_US <= us <= MAX_US:
        raise InvalidOptions(f"{what}={value!r} is too far away")
    return us


def checked_name(value: str, what: str) -> str:
    """Return the name of a task or a queue, if it is valid.

    Raises:
        InvalidOptions: The name has a character that is not allowed, or more than 200 characters.
    """
    if not isinstance(value, str) or _NAME.fullmatch(value) is None:
        raise InvalidOptions(
            f"{what}={shown(value)} is not a name: a letter or _, then letters, digits and _ . : -, at most 200 in all"
        )
    return value


def is_step_name(value: object) -> bool:
    """Return whether a value is a valid name of a step or signal."""
    return isinstance(value, str) and _STEP.fullmatch(value) is not None


def checked_schedule_id(value: str) -> str:
    """Return the id of a schedule, if it is valid.

    Raises:
        InvalidOptions: The id has a character that is not allowed, or more than 200 characters.
    """
    if not isinstance(value, str) or _SCHEDULE_ID.fullmatch(value) is None:
        raise InvalidOptions(
            f"id={shown(value)} is no id of a schedule: letters, digits and _ . : @ + -, at most 200, no sign in front"
        )
    return value


def checked_priority(value: int) -> int:
    """Return a priority, if it is valid.

    Raises:
        InvalidOptions: The priority is not a whole number from -32,767 to 32,767.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not -MAX_PRIORITY <= value <= MAX_PRIORITY:
        raise InvalidOptions(
            f"priority={value!r} is not a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}; higher runs first"
        )
    return value


def checked_attempts(value: int) -> int:
    """Return a number of attempts, if it is valid.

    Raises:
        InvalidOptions: The number is not a whole number from 1 to 32,767.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not 1 <= value <= MAX_PRIORITY:
        raise InvalidOptions(
            f"max_attempts={value!r} is not a whole number from 1 to {MAX_PRIORITY}; it counts all runs, 1 is no retry"
        )
    return value
