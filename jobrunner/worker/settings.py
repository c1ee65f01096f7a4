"""Checks the settings of a runner once, and freezes them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from jobrunner.core.errors import ConfigurationError, InvalidOptions, UnknownQueue
from jobrunner.core.units import Seconds, checked_name, duration_us
from jobrunner.tasks.recurrence import zone_of

Durability = Literal["full", "normal"]

MOST_SLOTS = 10_000


@dataclass(frozen=True, slots=True)
class Settings:
    """A runner's settings; durations in the unit that the name says."""

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
    def make(
        cls,
        *,
        store: str,
        queues: Mapping[str, int],
        work: bool,
        durability: Durability,
        grace: Seconds,
        retention: Seconds,
        keep_finished: int,
        dead_letter_retention: Seconds,
        unknown_task_after: Seconds,
        timezone: str,
        revision: int,
    ) -> "Settings":
        """Check the settings as the user wrote them.

        Raises:
            ConfigurationError: a value that cannot be.
        """
        if durability not in ("full", "normal"):
            raise ConfigurationError(
                f'durability={durability!r} is neither "full" (survives a power cut) nor "normal" (may lose the last'
                " acknowledged jobs at one)"
            )
        if not _is_count(keep_finished, 0):
            raise ConfigurationError(f"keep_finished={keep_finished!r} is not a number of jobs")
        if not _is_count(revision, 0):
            raise ConfigurationError(
                f"revision={revision!r} is not a whole number; write one that grows with each deploy, or leave it out"
            )
        try:
            zone_of(timezone)
            return cls(
                store=store,
                queues=checked_queues(queues),
                work=work,
                durability=durability,
                grace_s=duration_us(grace, "grace") / 1_000_000,
                retention_us=duration_us(retention, "retention"),
                keep_finished=keep_finished,
                dead_letter_retention_us=duration_us(
                    dead_letter_retention, "dead_letter_retention"
                ),
                unknown_task_after_us=duration_us(unknown_task_after, "unknown_task_after"),
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
