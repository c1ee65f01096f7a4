"""Merges a task's defaults with its router's, checks them and converts them to microseconds."""

from dataclasses import dataclass
from typing import Final, cast

from jobrunner.core.clock import SECOND_US
from jobrunner.core.units import (
    Seconds,
    checked_attempts,
    checked_name,
    checked_priority,
    duration_us,
    positive_us,
)
from jobrunner.tasks.options import TaskDefaults
from jobrunner.tasks.retry import DEFAULT_RETRY, DEFAULT_WAIT, RetryPolicy

DEFAULT_TIMEOUT_US: Final = 300 * SECOND_US

_NONE_HAS_A_MEANING: Final = ("timeout", "expires", "retention")
"""The options for which None has a meaning; for the others None takes the router's value."""


@dataclass(frozen=True, slots=True)
class ResolvedOptions:
    """The defaults of a task, checked and in microseconds."""

    queue: str
    priority: int
    policy: RetryPolicy
    timeout: int | None
    """The limit per attempt; None for no limit."""
    expires: int | None
    """The time after a job became due; None for never."""
    retention: int | None
    """The time after a job finished; None for the runner's."""


def overlaid(router: TaskDefaults, task: TaskDefaults) -> TaskDefaults:
    """Return the router's defaults, overridden by the task's own."""
    own = {w: v for w, v in task.items() if v is not None or w in _NONE_HAS_A_MEANING}
    return cast("TaskDefaults", {**router, **own})


def settled(declared: TaskDefaults) -> ResolvedOptions:
    """Check the defaults of a task, and fill in the missing ones.

    Raises:
        InvalidOptions: A default has an invalid value.
        InvalidTask: A retry strategy is invalid.
    """
    queue, priority = declared.get("queue"), declared.get("priority")
    wait, retry = declared.get("wait"), declared.get("retry")
    limit, retention = declared.get("max_attempts"), declared.get("retention")
    return ResolvedOptions(
        queue="default" if queue is None else checked_name(queue, "queue"),
        priority=0 if priority is None else checked_priority(priority),
        policy=RetryPolicy(
            wait=DEFAULT_WAIT if wait is None else wait,
            stop=declared.get("stop"),
            retry=DEFAULT_RETRY if retry is None else retry,
            max_attempts=None if limit is None else checked_attempts(limit),
        ),
        timeout=_optional_us(declared["timeout"], "timeout")
        if "timeout" in declared
        else DEFAULT_TIMEOUT_US,
        expires=_optional_us(declared.get("expires"), "expires"),
        retention=None if retention is None else duration_us(retention, "retention"),
    )


def _optional_us(value: Seconds | None, what: str) -> int | None:
    return None if value is None else positive_us(value, what)
