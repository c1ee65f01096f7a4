"""A task as the runner knows it, and how durations and instants are read from the caller's words."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final

from jobrunner.clock import MAX_US, MICROSECOND, MIN_US, SECOND_US, to_us
from jobrunner.codec import ArgsCodec, ResultCodec
from jobrunner.context import JobContext
from jobrunner.errors import InvalidOptions, InvalidTask, shown
from jobrunner.function import read_function
from jobrunner.injection import Dependency
from jobrunner.retry import RetryPolicy

Seconds = float | timedelta
"""A duration: a plain number is seconds."""

MAX_DURATION_US: Final = 36_525 * 24 * 3600 * SECOND_US
"""A hundred years; with it, no sum of an instant and a duration leaves the calendar."""
MAX_PRIORITY: Final = 32_767

DEFAULT_TIMEOUT_US: Final = 300 * SECOND_US

_SCHEDULE_ID: Final = re.compile(r"\w[\w.:@+-]{0,199}", re.ASCII)
"""Nothing that would have to be escaped in a URL's path."""
_NAME: Final = re.compile(r"[A-Za-z_][\w.:-]{0,199}", re.ASCII)


class Unset(Enum):
    """The type of ``UNSET``, where None means something of its own."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


def duration_us(value: Seconds, what: str) -> int:
    """Return a duration in whole microseconds.

    Args:
        value: seconds or a timedelta, from 0 to a hundred years.
        what: the option's name, for the error.

    Raises:
        InvalidOptions: it is not a duration, negative, not finite or too long.
    """
    if isinstance(value, timedelta):
        us = value // MICROSECOND
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        # Compared as it is: NaN and infinities fail here too, before a product could overflow.
        us = round(value * SECOND_US) if 0 <= value <= MAX_DURATION_US // SECOND_US else -1
    else:
        raise InvalidOptions(f"{what} takes seconds or a timedelta, not {value!r}")
    if not 0 <= us <= MAX_DURATION_US:
        raise InvalidOptions(f"{what}={value!r} is not a duration from 0 to 100 years")
    return us


def positive_us(value: Seconds, what: str) -> int:
    """Return a duration in whole microseconds, at least one; see ``duration_us``."""
    us = duration_us(value, what)
    if us == 0:
        raise InvalidOptions(f"{what}={value!r} must be more than 0; None means none")
    return us


def instant_us(value: datetime, what: str) -> int:
    """Return an instant as microseconds since 1970 in UTC.

    Args:
        value: an aware datetime.
        what: the option's name, for the error.

    Raises:
        InvalidOptions: it is not a datetime, has no time zone or lies beyond the calendar.
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
    """Return a name of a task or a queue as it is.

    Raises:
        InvalidOptions: it has characters that a name has not, or more than 200.
    """
    if not isinstance(value, str) or _NAME.fullmatch(value) is None:
        raise InvalidOptions(
            f"{what}={shown(value)} is not a name: a letter or _, then letters, digits and _ . : -, at most 200 in all"
        )
    return value


def checked_schedule_id(value: str) -> str:
    """Return a schedule's id as it is.

    Raises:
        InvalidOptions: it has characters that an id has not, or more than 200.
    """
    if not isinstance(value, str) or _SCHEDULE_ID.fullmatch(value) is None:
        raise InvalidOptions(
            f"id={shown(value)} is no id of a schedule: letters, digits and _ . : @ + -, at most 200, no sign in front"
        )
    return value


def checked_priority(value: int) -> int:
    """Return a priority as it is.

    Raises:
        InvalidOptions: it is not a whole number of 16 bits.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not -MAX_PRIORITY <= value <= MAX_PRIORITY:
        raise InvalidOptions(
            f"priority={value!r} is not a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}; higher runs first"
        )
    return value


def checked_attempts(value: int) -> int:
    """Return a number of attempts as it is.

    Raises:
        InvalidOptions: it is not a whole number, or less than one.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not 1 <= value <= MAX_PRIORITY:
        raise InvalidOptions(
            f"max_attempts={value!r} is not a whole number from 1 to {MAX_PRIORITY}; it counts all runs, 1 is no retry"
        )
    return value


@dataclass(frozen=True, slots=True, eq=False)
class TaskSpec:
    """A task: its function, what it takes and gives, and its defaults.  Two are the same if they are one object."""

    name: str
    """As stored: with the router's prefix, never with the module."""
    fn: Callable[..., Any]
    is_async: bool
    wants_context: bool
    args: ArgsCodec
    result: ResultCodec
    queue: str
    priority: int
    policy: RetryPolicy
    timeout: int | None
    """Per attempt, in microseconds; None for none."""
    expires: int | None
    """Microseconds after it became due; None for never."""
    retention: int | None
    """Microseconds after it finished; None for the runner's."""
    aliases: tuple[str, ...]
    """Older stored names that it still answers to, prefix and all."""
    where: str
    """``file.py:12``."""
    positional_only: tuple[tuple[str, Any], ...] = ()
    """Name and default of the parameters that cannot be given by name."""
    injected: tuple[Dependency, ...] = ()
    """What each attempt is handed besides its arguments."""

    def check_injected(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        """Refuse a direct call that leaves to the function what only an attempt resolves.

        Raises:
            TypeError: a parameter that is injected is not given.
        """
        try:
            given = inspect.signature(self.fn).bind_partial(*args, **kwargs).arguments
        except TypeError:
            return  # Python's own words for a wrong call are the right ones
        missing = [need.name for need in self.injected if need.name not in given]
        if missing:
            called = self.fn.__name__
            raise TypeError(
                f"{called}() is called directly, and only an attempt of a job is handed {', '.join(missing)}:"
                f" write {called}(..., {', '.join(f'{name}=...' for name in missing)}), or enqueue it"
            )

    def call(self, ctx: JobContext, kwargs: Mapping[str, Any]) -> Any:
        """Call the function with decoded arguments; an ``async`` one returns its coroutine."""
        if self.positional_only:
            named = dict(kwargs)
            first = [named.pop(name, default) for name, default in self.positional_only]
            return self.fn(ctx, *first, **named) if self.wants_context else self.fn(*first, **named)
        return self.fn(ctx, **kwargs) if self.wants_context else self.fn(**kwargs)


def make_spec(
    fn: Callable[..., Any],
    *,
    prefix: str,
    name: str | None,
    queue: str,
    priority: int,
    policy: RetryPolicy,
    timeout: int | None,
    expires: int | None,
    retention: int | None,
    aliases: Iterable[str],
    namespace: Mapping[str, Any] | None,
) -> TaskSpec:
    """Make a task of a function.

    Args:
        fn: the decorated function.
        prefix: the router's, put before the name.
        name: in place of the function's own; None for that.
        aliases: whole stored names, prefix included.
        namespace: the names around the decorator, see ``read_function``.

    Raises:
        InvalidTask: the function cannot be a task as it stands.
        InvalidOptions: a name is none.
    """
    function = read_function(fn, namespace)
    bare = fn.__name__ if name is None else name
    if bare == "<lambda>":
        raise InvalidTask(
            f"the lambda at {function.where} has no name to be stored under: write a def, or name=..."
        )
    stored = checked_name(prefix + bare if isinstance(bare, str) else bare, "name")
    if isinstance(aliases, str):
        raise InvalidOptions(f"aliases={aliases!r} is one text: write aliases=[{aliases!r}]")
    return TaskSpec(
        name=stored,
        fn=fn,
        is_async=function.is_async,
        wants_context=function.wants_context,
        args=ArgsCodec(
            stored,
            function.parameters,
            frozenset(need.name for need in function.injected),
            written=fn.__name__,
            wrapper=function.wrapper,
        ),
        result=ResultCodec(stored, function.returns),
        queue=queue,
        priority=priority,
        policy=policy,
        timeout=timeout,
        expires=expires,
        retention=retention,
        aliases=tuple(checked_name(alias, "aliases") for alias in aliases),
        where=function.where,
        positional_only=tuple(
            (p.name, p.default) for p in function.parameters if p.kind is p.POSITIONAL_ONLY
        ),
        injected=function.injected,
    )
