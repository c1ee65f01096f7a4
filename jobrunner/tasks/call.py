"""One call of a task that is not yet stored: its arguments as JSON, and the options of the job."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Final, Generic, TypeVar

from jobrunner.core.errors import InvalidOptions, shown
from jobrunner.core.exports import exported
from jobrunner.core.hints import JOB_OPTIONS, refuse_words
from jobrunner.core.model import Enqueue
from jobrunner.core.units import (
    UNSET,
    Seconds,
    Unset,
    checked_attempts,
    checked_name,
    checked_priority,
    duration_us,
    instant_us,
    positive_us,
)
from jobrunner.tasks.spec import TaskSpec

R_co = TypeVar("R_co", covariant=True)

MAX_KEY_CHARS: Final = 500
MAX_TAG_CHARS: Final = 200

_UNTYPEABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and the halves of characters that UTF-8 does not know."""


@dataclass(frozen=True, slots=True)
class Options:
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
    def make(
        cls,
        call: str,
        *,
        delay: Seconds | None = None,
        run_at: datetime | None = None,
        priority: int | None = None,
        key: str | None = None,
        queue: str | None = None,
        expires: Seconds | datetime | Unset | None = UNSET,
        max_attempts: int | None = None,
        timeout: Seconds | Unset | None = UNSET,
        tag: str | None = None,
        session: object = None,
        foreign: Mapping[str, object] | None = None,
    ) -> "Options":
        """Check the options as a caller wrote them.

        Args:
            call: how the caller wrote it, for the errors.
            foreign: keywords that are not options.

        Raises:
            InvalidOptions: a value that cannot be.
            TypeError: a word that is no option of ours.
        """
        if foreign:
            refuse_words(call, foreign, JOB_OPTIONS)
        if delay is not None and run_at is not None:
            raise InvalidOptions(f"{call}() takes a delay or a run_at, not both")
        made = cls(
            delay=None if delay is None else duration_us(delay, "delay"),
            run_at=None if run_at is None else instant_us(run_at, "run_at"),
            priority=None if priority is None else checked_priority(priority),
            key=None if key is None else _checked_text(key, "key", MAX_KEY_CHARS),
            queue=None if queue is None else checked_name(queue, "queue"),
            expires=_expires_us(expires),
            expires_at=instant_us(expires, "expires") if isinstance(expires, datetime) else None,
            max_attempts=None if max_attempts is None else checked_attempts(max_attempts),
            timeout=timeout
            if timeout is None or timeout is UNSET
            else positive_us(timeout, "timeout"),
            tag=None if tag is None else _checked_text(tag, "tag", MAX_TAG_CHARS),
            session=session,
        )
        _check_order(made)
        return made

    def merge(self, later: "Options") -> "Options":
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
        merged = Options(**values)
        _check_order(merged)
        return merged


NO_OPTIONS: Final = Options()


@exported
class Call(Generic[R_co]):
    """One call of a task, ready to be stored; made by ``task.call(...)``, handed to ``enqueue_many``."""

    __slots__ = ("args", "options", "spec")

    def __init__(self, spec: TaskSpec, args: str, options: Options = NO_OPTIONS) -> None:
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


def _expires_us(expires: Seconds | datetime | Unset | None) -> int | Unset | None:
    if expires is None or isinstance(expires, Unset):
        return expires
    if isinstance(expires, datetime):
        return UNSET
    return positive_us(expires, "expires")


def _check_order(options: Options) -> None:
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
