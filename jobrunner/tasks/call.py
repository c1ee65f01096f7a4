"""One call of a task that is not yet stored: its arguments as JSON, and the options of the job."""

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
"""Control characters, and the halves of characters that UTF-8 does not know."""


@dataclass(frozen=True)
class ResolvedJobOptions:
    """The options of one job, checked and in microseconds; what is not set is the task's."""

    delay: int | None = None
    run_at: int | None = None
    priority: int | None = None
    key: str | None = None
    queue: str | None = None
    expires: int | Unset | None = UNSET
    """After it became due; None for never."""
    expires_at: int | None = None
    max_attempts: int | None = None
    timeout: int | Unset | None = UNSET
    """Per attempt; None for none."""
    tag: str | None = None
    session: object = field(default=None, repr=False, compare=False)
    """The application's own, whose transaction the job is to be part of."""

    @classmethod
    def make(cls, call: str, **options: Unpack[JobOptions]) -> "ResolvedJobOptions":
        """Check the options as a caller wrote them.

        Args:
            call: how the caller wrote it, for the errors.
            **options: as they were written.

        Raises:
            InvalidOptions: a value that cannot be.
            TypeError: a word that is no option of a job.
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
        # Not by the constructor, which takes a call for each field of a frozen class: options are set per enqueue.
        made = object.__new__(cls)
        made.__dict__.update(checked)
        _check_order(made)
        return made

    def merge(self, later: "ResolvedJobOptions") -> "ResolvedJobOptions":
        """Return these options with those set that ``later`` sets; its delay drops a run_at, and the reverse."""
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
    """One call of a task, ready to be stored; made by ``task.call(...)``, handed to ``enqueue_many``."""

    __slots__ = ("args", "options", "spec")

    def __init__(self, spec: TaskSpec, args: str, options: ResolvedJobOptions = NO_OPTIONS) -> None:
        self.spec = spec
        self.args = args
        self.options = options

    def to_enqueue(self, *, id: str, now: int) -> Enqueue:
        """Return the row to store.

        Args:
            id: the new job's.
            now: the present, in microseconds.

        Raises:
            InvalidOptions: the job would expire before it is due.
        """
        spec, options = self.spec, self.options
        if options is NO_OPTIONS and spec.expires is None:
            return Enqueue(id, spec.name, spec.queue, self.args, now, now, spec.priority)
        run_at = now
        if options.delay is not None:
            run_at = now + options.delay
        elif options.run_at is not None:
            # An instant that is past means now: a job must not overtake the ones that have waited.
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
"""The check of each option, which returns the value in the stored unit."""
