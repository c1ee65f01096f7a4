"""Holds one call of a task before it is stored: arguments as JSON, and job options."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import partial
from typing import Any, Final, Generic, Literal, Self, TypeVar, Unpack

from jobrunner.core.errors import InvalidOptions, shown
from jobrunner.core.exports import exported
from jobrunner.core.model import Enqueue, Need
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
from jobrunner.tasks.placeholder import Handed, Placeholder, source_of
from jobrunner.tasks.spec import TaskSpec

R_co = TypeVar("R_co", covariant=True)

MAX_KEY_CHARS: Final = 500
MAX_TAG_CHARS: Final = 200

AfterEnd = Literal["success", "any"]
"""The ends of a call after which another one starts: its success alone, or any."""

_NEEDS: Final[Mapping[AfterEnd, Need]] = {"success": "success", "any": "end"}

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

    Made by ``task.call(...)`` and passed to ``enqueue_many``, ``enqueue_chain`` or ``enqueue_batch``. The arguments
    were validated and written as JSON when it was made.

    ::

        await queue.enqueue_many([send_reminder.call(email) for email in emails])

    In a batch, calls can wait for each other, and one can take the result of another as an argument::

        paid = charge.call(order_id)
        shipped = ship.call(paid.result, express=True)
        await queue.enqueue_batch([paid, shipped, close.call(order_id).after(shipped)])
    """

    __slots__ = ("args", "handed", "options", "spec", "waits")

    def __init__(
        self,
        spec: TaskSpec,
        args: str,
        options: ResolvedJobOptions = NO_OPTIONS,
        handed: Mapping[str, Handed] | None = None,
    ) -> None:
        self.spec = spec
        self.args = args
        self.options = options
        self.handed = handed
        """The arguments that are results of other calls, by parameter name; None if there are none."""
        self.waits: dict[Call[Any], Need] | None = None
        """The calls that ``after`` named; None if there are none."""

    @property
    def result(self) -> R_co:
        """Stands for the task's return value, as an argument of another call.

        ::

            paid = charge.call(7)
            await queue.enqueue_batch([paid, ship.call(paid.result)])

            parts = [resize.call(page) for page in pages]
            await queue.enqueue_batch([*parts, merge.call([part.result for part in parts])])

        Both calls belong to the same batch. The other job starts when this one has succeeded, and is cancelled if it
        dies or is cancelled. It reads the result when it starts: the result is not copied into its arguments. A task
        that returned None hands on None.

        Type checkers take it for the value. It can only be handed on as a whole, as an argument or in a list that is an
        argument: any other use raises TypeError.
        """
        placeholder: Any = Placeholder(self)
        result: R_co = placeholder
        return result

    def after(self, *calls: "Call[Any]", end: AfterEnd = "success") -> Self:
        """Make this call wait for other calls of the same batch.

        ::

            merged = merge.call(doc)
            await queue.enqueue_batch([merged, announce.call(doc).after(merged)])

        Unlike a chain, which goes on after a dead letter, this job needs the success of the others: if one of them dies
        or is cancelled, it is cancelled. With ``end="any"`` it starts when they have ended in any way.

        Args:
            *calls: The calls to wait for.
            end: ``"success"``, or ``"any"`` to start after a failure too.

        Returns:
            This call, which it changes.

        Raises:
            TypeError: A value is not a call.
            InvalidOptions: ``end`` is none of the two.
        """
        if end not in _NEEDS:
            raise InvalidOptions(f'end={end!r} is none of "success" and "any"')
        for call in calls:
            if not isinstance(call, Call):
                raise TypeError(_no_call(call))
            if self.waits is None:
                self.waits = {}
            # One that needs the success of a call needs it, whatever else was said.
            if self.waits.get(call) != "success":
                self.waits[call] = _NEEDS[end]
        return self

    @property
    def needs(self) -> Mapping["Call[Any]", Need]:
        """The calls for which this one waits, each with the end that it needs."""
        needs: dict[Call[Any], Need] = dict(self.waits or ())
        for call in self.sources:
            needs[call] = "success"
        return needs

    @property
    def sources(self) -> "list[Call[Any]]":
        """The calls whose results this one takes; one comes again for each parameter."""
        return [
            source_of(one)
            for handed in (self.handed or {}).values()
            for one in (handed if isinstance(handed, list) else (handed,))
        ]

    def to_enqueue(self, *, id: str, now: int) -> Enqueue:
        """Return the row to store.

        Args:
            id: The id of the new job.
            now: The current time, in microseconds.

        Raises:
            InvalidOptions: The job would expire before it is due, or has an option that its order does not allow.
        """
        job = self._without_lane(id, now)
        if self.spec.limits is None:
            return job
        if self.spec.ordered:
            self._check_ordered()
        lane = self.spec.lane_of(self.args, self.handed or ())
        return job._replace(lane=lane, ordered=True if self.spec.ordered else None)

    def _check_ordered(self) -> None:
        options = self.options
        for word, value in (
            ("delay", options.delay),
            ("run_at", options.run_at),
            ("priority", options.priority),
        ):
            if value is not None:
                raise InvalidOptions(
                    f"{self.spec.name}: {word}= cannot be given, since its jobs run in the order in which they are"
                    f" enqueued (ordered=True); write .options() without {word}="
                )

    def _without_lane(self, id: str, now: int) -> Enqueue:
        task, defaults, options = self.spec.name, self.spec.options, self.options
        if options is NO_OPTIONS and defaults.expires is None:
            return Enqueue(id, task, defaults.queue, self.args, now, now, defaults.priority)
        run_at = now
        if options.delay is not None:
            run_at = now + options.delay
        elif options.run_at is not None:
            # A time in the past means now: the job must not overtake jobs that already wait.
            run_at = max(now, options.run_at)
        expires_at = options.expires_at
        if expires_at is None:
            expires = defaults.expires if options.expires is UNSET else options.expires
            expires_at = None if expires is None else run_at + expires
        elif expires_at <= run_at and run_at > now:
            raise InvalidOptions(f"{task}: the job would expire before it is due")
        timeout = options.timeout
        return Enqueue(
            id,
            task,
            defaults.queue if options.queue is None else options.queue,
            self.args,
            now,
            run_at,
            defaults.priority if options.priority is None else options.priority,
            options.key,
            expires_at,
            options.max_attempts,
            None if timeout is UNSET else timeout or 0,
            options.tag,
        )

    def __repr__(self) -> str:
        return f"<Call {self.spec.name}>"  # never the arguments: they may be secrets


def _no_call(given: object) -> str:
    if isinstance(given, Placeholder):
        task = source_of(given).spec.name.rpartition(".")[2]
        return f"after() waits for a call, and not for its result: write `paid = {task}.call(...)` and `.after(paid)`"
    if isinstance(given, (list, tuple)):
        return "after() takes the calls one by one: write `.after(*calls)`"
    return (
        f"after() takes calls of the same batch, not {shown(given)}: write `first = task.call(...)` and"
        " `.after(first)`"
    )


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
