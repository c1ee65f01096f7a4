"""Checks the options of a runner and freezes them as settings."""

from collections.abc import Collection, Iterable, KeysView, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final, Literal, TypedDict, Unpack

from jobrunner.core.errors import ConfigurationError, InvalidOptions, UnknownQueue
from jobrunner.core.exports import exported
from jobrunner.core.limits import MAX_LIMIT, MAX_WAITING, Limit
from jobrunner.core.redaction import DEFAULT_NAMES, Redaction
from jobrunner.core.units import Seconds, checked_name, duration_us
from jobrunner.tasks.limits import Rate
from jobrunner.tasks.recurrence import zone_of

Durability = Literal["full", "normal"]
_Duration = Literal["grace", "retention", "dead_letter_retention", "unknown_task_after"]

MOST_SLOTS = 10_000


@exported
@dataclass(frozen=True, slots=True)
class QueueSettings:
    """The slots and the limits of a queue.

    ::

        jobs = JobRunner(url, queues={"default": 20, "mail": QueueSettings(50, rate_limit=Rate(500, per=60))})

    Args:
        slots: The jobs that one process runs at a time, from 1 to 10,000.
        concurrency: The jobs that run at a time over all processes. Default: no limit.
        rate_limit: The jobs that start in a time over all processes. Default: no limit.
        max_waiting: The jobs that are due and wait, from 1 to 100,000; with as many, ``enqueue`` raises ``QueueFull``.
            Default: no limit.

    Raises:
        ConfigurationError: An argument has an invalid value.
    """

    slots: int
    concurrency: int | None = None
    rate_limit: Rate | None = None
    max_waiting: int | None = None

    def __post_init__(self) -> None:
        for word, value, most in (
            ("concurrency", self.concurrency, MAX_LIMIT),
            ("max_waiting", self.max_waiting, MAX_WAITING),
        ):
            if value is not None and (not _is_count(value, 1) or value > most):
                raise ConfigurationError(
                    f"QueueSettings: {word}={value!r} is not a whole number from 1 to {most:,}; write {word}=100, or"
                    " leave it out for no limit"
                )
        if self.rate_limit is not None and not isinstance(self.rate_limit, Rate):
            raise ConfigurationError(
                f"QueueSettings: rate_limit={self.rate_limit!r} is no Rate; write rate_limit=Rate(100, per=60)"
            )
        if self.rate_limit is not None and self.rate_limit.by is not None:
            raise ConfigurationError(
                f"QueueSettings: {self.rate_limit} has by=, which only a task can have; write"
                f" @task(rate_limit=Rate({self.rate_limit.limit}, by={self.rate_limit.by!r}))"
            )

    @property
    def limit(self) -> Limit:
        """The limits of the queue."""
        rate = None if self.rate_limit is None else self.rate_limit.stored
        return Limit(self.concurrency, rate, self.max_waiting)


class RunnerOptions(TypedDict, total=False):
    """The options of ``JobRunner(...)``."""

    queues: Mapping[str, int | QueueSettings]
    """The queues with their slots per process, from 1 to 10,000 each, or ``QueueSettings``.

    Default: ``{"default": 20}``.
    """
    work: bool
    """False for a process that enqueues and reads but runs no jobs. Default: True."""
    durability: Durability
    """``"full"`` survives a power cut; ``"normal"`` may lose the last acknowledged jobs. Default: ``"full"``."""
    grace: Seconds
    """The time that attempts get to finish at shutdown; seconds or a timedelta. Default: 10."""
    retention: Seconds
    """The time for which succeeded, cancelled and expired jobs are kept; seconds or a timedelta. Default: 7 days."""
    keep_finished: int
    """The most succeeded, cancelled and expired jobs to keep. Default: 1,000,000."""
    dead_letter_retention: Seconds
    """The time for which dead letters are kept; seconds or a timedelta. Default: 90 days."""
    unknown_task_after: Seconds
    """The time after which a due job of an unknown task becomes a dead letter; seconds or a timedelta. Default: 7 days.

    A task is unknown if no live worker has it.
    """
    timezone: str
    """The time zone of cron expressions that name none, such as ``"Europe/Berlin"``. Default: ``"UTC"``."""
    revision: int
    """The revision of the application's code, a number that grows with each deploy. Default: 0.

    During a rolling deploy the schedules of the newest revision apply.
    """
    redact: Collection[str]
    """Names of fields whose values operators do not see, at any depth of arguments and results.

    The routes of ``jobs.router()`` and the command line show ``"[redacted]"`` in their place; the stored values stay.
    Case, ``_`` and ``-`` in names do not count. The option replaces the default: ``{"password", "secret",
    "client_secret", "token", "access_token", "refresh_token", "api_key", "private_key", "authorization"}``.
    """


RUNNER_OPTIONS: Final[KeysView[str]] = RunnerOptions.__annotations__.keys()


@dataclass(frozen=True, slots=True)
class Settings:
    """The checked settings of a runner; names end with the unit of a duration."""

    store: str
    queues: Mapping[str, QueueSettings]
    work: bool
    durability: Durability
    grace_s: float
    retention_us: int
    keep_finished: int
    dead_letter_retention_us: int
    unknown_task_after_us: int
    timezone: str
    revision: int
    redact: Redaction

    @property
    def slots(self) -> Mapping[str, int]:
        """The slots by queue name."""
        return MappingProxyType({name: one.slots for name, one in self.queues.items()})

    @classmethod
    def make(cls, store: str, **options: Unpack[RunnerOptions]) -> "Settings":
        """Check the options that a user passed.

        Raises:
            ConfigurationError: An option has an invalid value.
        """
        durability = options.get("durability", "full")
        if durability not in ("full", "normal"):
            raise ConfigurationError(
                f'durability={durability!r} is neither "full" (survives a power cut) nor "normal" (may lose the last'
                " acknowledged jobs at one)"
            )
        keep_finished = options.get("keep_finished", 1_000_000)
        if not _is_count(keep_finished, 0):
            raise ConfigurationError(f"keep_finished={keep_finished!r} is not a number of jobs")
        revision = options.get("revision", 0)
        if not _is_count(revision, 0):
            raise ConfigurationError(
                f"revision={revision!r} is not a whole number; write one that grows with each deploy, or leave it out"
            )

        def us(option: _Duration, default: Seconds) -> int:
            return duration_us(options.get(option, default), option)

        timezone = options.get("timezone", "UTC")
        queues = options.get("queues", {"default": 20})
        try:
            zone_of(timezone)
            return cls(
                store=store,
                queues=_queue_settings(queues),
                work=options.get("work", True),
                durability=durability,
                grace_s=us("grace", 10) / 1_000_000,
                retention_us=us("retention", timedelta(days=7)),
                keep_finished=keep_finished,
                dead_letter_retention_us=us("dead_letter_retention", timedelta(days=90)),
                unknown_task_after_us=us("unknown_task_after", timedelta(days=7)),
                timezone=timezone,
                revision=revision,
                redact=Redaction.of(options.get("redact", DEFAULT_NAMES)),
            )
        except InvalidOptions as error:
            raise ConfigurationError(str(error)) from error


def _queue_settings(queues: Mapping[str, int | QueueSettings]) -> Mapping[str, QueueSettings]:
    """Return the settings by queue, checked and frozen."""
    mapped = isinstance(queues, Mapping)
    slots: Any = {name: _slots(one) for name, one in queues.items()} if mapped else queues
    checked_queues(slots)
    return MappingProxyType(
        {
            name: one if isinstance(one, QueueSettings) else QueueSettings(one)
            for name, one in queues.items()
        }
    )


def _slots(one: int | QueueSettings) -> int:
    return one.slots if isinstance(one, QueueSettings) else one


def checked_queues(queues: Mapping[str, int]) -> Mapping[str, int]:
    """Return the slots by queue, checked and frozen.

    Raises:
        ConfigurationError: There is no queue, or a number of slots is invalid.
        InvalidOptions: The name of a queue is invalid.
    """
    if not isinstance(queues, Mapping) or not queues:
        raise ConfigurationError(
            f'queues={queues!r} is not a mapping of names to slots; write queues={{"default": 20}}'
        )
    for name, slots in queues.items():
        checked_name(name, "queues")
        if not _is_count(slots, 1) or slots > MOST_SLOTS:
            raise ConfigurationError(
                f"queue {name!r} has {slots!r} slots: write a whole number from 1 to {MOST_SLOTS:,}"
            )
    return MappingProxyType(dict(queues))


def unknown_queue(name: str, who: str, known: Iterable[str]) -> UnknownQueue:
    """Return the error for an unknown queue, with the line that adds it."""
    queues = ", ".join(f'"{queue}": ...' for queue in sorted(known))
    return UnknownQueue(
        f'{who}: the runner has no queue {name!r}; write JobRunner(..., queues={{{queues}, "{name}": 10}})'
    )


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
