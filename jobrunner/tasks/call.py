"""Holds one call of a task before it is stored: arguments as JSON, and job options."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import partial
from typing import Any, Final, Generic, TypeVar, Unpack

from jobrunner.core.errors import InvalidOptions, shown
from jobrunner.core.exports import exported
from jobrunner.core.model import Enqueue
from jobrunner.core.units import (
    UNSET,
    Unset,
    checked_attempts,
    checked_name,
    checked_priority,
    duration_us,
    instant_us,
    positive_us,
)
from jobrunner.tasks.options import JOB_OPTIONS, JobOptions, check_options
from jobrunner.tasks.spec import TaskSpec

R_co = TypeVar("R_co", covariant=True)

MAX_KEY_CHARS: Final = 500
MAX_TAG_CHARS: Final = 200

_UNTYPEABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and lone surrogates, which UTF-8 cannot encode."""


@dataclass(frozen=True)
class ResolvedJobOptions:
    """The options of one job, checked and in microseconds; unset ones are the task's."""

    delay: int | None = None
    run_at: int | None = None
    priority: int | None = None
    key: str | None = None
    queue: str | None = None
    expires: int | Unset | None = UNSET
    """The time after the job became due, in microseconds; None for never."""
    expires_at: int | None = None
    max_attempts: int | None = None
    timeout: int | Unset | None = UNSET
    """The limit per attempt, in microseconds; None for no limit."""
    tag: str | None = None
    session: object = field(default=None, repr=False, compare=False)
    """The application's session, in whose transaction the job is stored."""

    @classmethod
    def make(cls, call: str, **options: Unpack[JobOptions]) -> "ResolvedJobOptions":
        """Check the options that a caller passed, and convert them.

        Args:
            call: The call as its user writes it, for the errors.
            **options: The options as passed.

        Raises:
            InvalidOptions: An option has an invalid value.
            TypeError: A keyword is not an option of a job.
        """
        check_options(call, options.keys(), JOB_OPTIONS)
        if options.get("delay") is not None and options.get("run_at") is not None:
            raise InvalidOptions(f"{call}() takes a delay or a run_at, not both")
        checked: dict[str, Any] = {}
        for word, value in options.items():
            if value is None:
                if word in ("expires", "timeout"):
                    checked[word] = None
            elif word == "expires" and isinstance(value, datetime):
                checked["expires_at"] = instant_us(value, "expires")
            else:
                checked[word] = _CHECKS[word](value)
        # Not by the constructor, which makes a call per field of a frozen class: this runs once per enqueue.
        made = object.__new__(cls)
        made.__dict__.update(checked)
        _check_order(made)
        return made

    def merge(self, later: "ResolvedJobOptions") -> "ResolvedJobOptions":
        """Return these options overridden by the ones that ``later`` sets.

        A later ``delay`` also removes an earlier ``run_at``, and the reverse.
        """
        if self is NO_OPTIONS:
            return later
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        if later.delay is not None or later.run_at is not None:
            values["delay"] = values["run_at"] = None
        if later.expires is not UNSET or later.expires_at is not None:
            values["expires"], values["expires_at"] = UNSET, None
        for f in fields(later):
            value = getattr(later, f.name)
            if value is not None and value is not UNSET:
                values[f.name] = value
        if later.expires is None:
            values["expires"] = None
        if later.timeout is None:
            values["timeout"] = None
        merged = ResolvedJobOptions(**values)
        _check_order(merged)
        return merged


NO_OPTIONS: Final = ResolvedJobOptions()


@exported
class Call(Generic[R_co]):
    """One call of a task with its arguments, ready to be stored.

    Made by ``task.call(...)`` and passed to ``enqueue_many`` or ``enqueue_chain``. The arguments were validated and
    written as JSON when it was made.

    ::

        await queue.enqueue_many([send_reminder.call(email) for email in emails])
    """

    __slots__ = ("args", "options", "spec")

    def __init__(self, spec: TaskSpec, args: str, options: ResolvedJobOptions = NO_OPTIONS) -> None:
        self.spec = spec
        self.args = args
        self.options = options

    def to_enqueue(self, *, id: str, now: int) -> Enqueue:
        """Return the row to store.

        Args:
            id: The id of the new job.
            now: The current time, in microseconds.

        Raises:
            InvalidOptions: The job would expire before it is due.
        """
        spec, options = self.spec, self.options
        if options is NO_OPTIONS and spec.expires is None:
            return Enqueue(id, spec.name, spec.queue, self.args, now, now, spec.priority)
        run_at = now
        if options.delay is not None:
            run_at = now + options.delay
        elif options.run_at is not None:
            # A time in the past means now: the job must not overtake jobs that already wait.
            run_at = max(now, options.run_at)
        expires_at = options.expires_at
        if expires_at is None:
            expires = spec.expires if options.expires is UNSET else options.expires
            expires_at = None if expires is None else run_at + expires
        elif expires_at <= run_at and run_at > now:
            raise InvalidOptions(f"{spec.name}: the job would expire before it is due")
        timeout = options.timeout
        return Enqueue(
            id,
            spec.name,
            spec.queue if options.queue is None else options.queue,
            self.args,
            now,
            run_at,
            spec.priority if options.priority is None else options.priority,
            options.key,
            expires_at,
            options.max_attempts,
            None if timeout is UNSET else timeout or 0,
            options.tag,
        )

    def __repr__(self) -> str:
        return f"<Call {self.spec.name}>"  # never the arguments: they may be secrets


def _check_order(options: ResolvedJobOptions) -> None:
    if (
        options.run_at is not None
        and options.expires_at is not None
        and options.expires_at <= options.run_at
    ):
        raise InvalidOptions("expires is not after run_at: the job would never run")


def _checked_text(value: str, what: str, limit: int) -> str:
    if not isinstance(value, str):
        raise InvalidOptions(f'{what}={shown(value)} is not a text: write {what}=f"..."')
    if not 0 < len(value) <= limit or _UNTYPEABLE.search(value):
        raise InvalidOptions(
            f"{what}={shown(value)} must have 1 to {limit} characters, none of them a control character"
        )
    return value


_CHECKS: Final[Mapping[str, Callable[[Any], object]]] = {
    "delay": partial(duration_us, what="delay"),
    "run_at": partial(instant_us, what="run_at"),
    "priority": checked_priority,
    "key": partial(_checked_text, what="key", limit=MAX_KEY_CHARS),
    "queue": partial(checked_name, what="queue"),
    "expires": partial(positive_us, what="expires"),
    "max_attempts": checked_attempts,
    "timeout": partial(positive_us, what="timeout"),
    "tag": partial(_checked_text, what="tag", limit=MAX_TAG_CHARS),
    "session": lambda session: session,
}
"""A function per option that checks a value and returns it in the stored unit."""
