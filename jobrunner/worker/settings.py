"""Checks the settings of a runner once, and freezes them."""

from collections.abc import Iterable, KeysView, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Final, Literal, TypedDict, Unpack

from jobrunner.core.errors import ConfigurationError, InvalidOptions, UnknownQueue
from jobrunner.core.units import Seconds, checked_name, duration_us
from jobrunner.tasks.recurrence import zone_of

Durability = Literal["full", "normal"]
_Duration = Literal["grace", "retention", "dead_letter_retention", "unknown_task_after"]

MOST_SLOTS = 10_000


class RunnerOptions(TypedDict, total=False):
    """The options of a runner, as ``JobRunner(...)`` takes them."""

    queues: Mapping[str, int]
    """The slots of each queue in one process; ``{"default": 20}`` if left out."""
    work: bool
    """False enqueues and reads without running anything."""
    durability: Durability
    """``"full"``, the default, survives a power cut; ``"normal"`` may lose the last acknowledged jobs at one."""
    grace: Seconds
    """Seconds or a timedelta that attempts get to finish at shutdown; 10 if left out."""
    retention: Seconds
    """For how long succeeded, cancelled and expired jobs are kept; 7 days if left out."""
    keep_finished: int
    """How many of them at most; 1,000,000 if left out."""
    dead_letter_retention: Seconds
    """For how long dead letters are kept; 90 days if left out."""
    unknown_task_after: Seconds
    """After what time a waiting job whose task no worker knows becomes a dead letter; 7 days if left out."""
    timezone: str
    """Of cron expressions that name none; UTC if left out."""
    revision: int
    """Grows with each deploy, so that in a rolling one the schedules of the newest code hold; 0 if left out."""


RUNNER_OPTIONS: Final[KeysView[str]] = RunnerOptions.__annotations__.keys()


@dataclass(frozen=True, slots=True)
class Settings:
    """A runner's settings, checked; durations in the unit that the name says."""

    store: str
    queues: Mapping[str, int]
    """Slots by queue name."""
    work: bool
    durability: Durability
    grace_s: float
    retention_us: int
    keep_finished: int
    dead_letter_retention_us: int
    unknown_task_after_us: int
    timezone: str
    revision: int

    @classmethod
    def make(cls, store: str, **options: Unpack[RunnerOptions]) -> "Settings":
        """Check the options as the user wrote them.

        Raises:
            ConfigurationError: a value that cannot be.
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
        try:
            zone_of(timezone)
            return cls(
                store=store,
                queues=checked_queues(options.get("queues", {"default": 20})),
                work=options.get("work", True),
                durability=durability,
                grace_s=us("grace", 10) / 1_000_000,
                retention_us=us("retention", timedelta(days=7)),
                keep_finished=keep_finished,
                dead_letter_retention_us=us("dead_letter_retention", timedelta(days=90)),
                unknown_task_after_us=us("unknown_task_after", timedelta(days=7)),
                timezone=timezone,
                revision=revision,
            )
        except InvalidOptions as error:
            raise ConfigurationError(str(error)) from error


def checked_queues(queues: Mapping[str, int]) -> Mapping[str, int]:
    """Return slots by queue as they are, frozen.

    Raises:
        ConfigurationError: no queue at all, or a number of slots that cannot be.
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
    """Return the error for a queue that a runner does not have, with the line to paste."""
    queues = ", ".join(f'"{queue}": ...' for queue in sorted(known))
    return UnknownQueue(
        f'{who}: the runner has no queue {name!r}; write JobRunner(..., queues={{{queues}, "{name}": 10}})'
    )


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
