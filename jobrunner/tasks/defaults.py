"""The defaults of a task: as they are written, laid over those of its router, and checked."""

from typing import Final, TypedDict

from jobrunner.core.units import (
    UNSET,
    Seconds,
    Unset,
    checked_attempts,
    checked_name,
    checked_priority,
    duration_us,
    positive_us,
)
from jobrunner.tasks.retry import DEFAULT_RETRY, DEFAULT_WAIT, RetryIf, RetryPolicy, Stop, Wait
from jobrunner.tasks.spec import DEFAULT_TIMEOUT_US


class TaskOptions(TypedDict):
    """The defaults of a task as they are written; None or UNSET takes the router's."""

    queue: str | None
    priority: int | None
    max_attempts: int | None
    wait: Wait | None
    stop: Stop | None
    retry: RetryIf | None
    timeout: Seconds | Unset | None
    expires: Seconds | Unset | None
    retention: Seconds | Unset | None


NOTHING: Final[TaskOptions] = {
    "queue": None,
    "priority": None,
    "max_attempts": None,
    "wait": None,
    "stop": None,
    "retry": None,
    "timeout": UNSET,
    "expires": UNSET,
    "retention": UNSET,
}
"""Of a task that takes all from its router."""


class ResolvedOptions(TypedDict):
    """The defaults of a task, checked and in microseconds."""

    queue: str
    priority: int
    policy: RetryPolicy
    timeout: int | None
    expires: int | None
    retention: int | None


def overlaid(router: TaskOptions, task: TaskOptions) -> TaskOptions:
    """Return the router's defaults with the task's own over them."""
    return {
        "queue": router["queue"] if task["queue"] is None else task["queue"],
        "priority": router["priority"] if task["priority"] is None else task["priority"],
        "max_attempts": router["max_attempts"]
        if task["max_attempts"] is None
        else task["max_attempts"],
        "wait": router["wait"] if task["wait"] is None else task["wait"],
        "stop": router["stop"] if task["stop"] is None else task["stop"],
        "retry": router["retry"] if task["retry"] is None else task["retry"],
        "timeout": router["timeout"] if task["timeout"] is UNSET else task["timeout"],
        "expires": router["expires"] if task["expires"] is UNSET else task["expires"],
        "retention": router["retention"] if task["retention"] is UNSET else task["retention"],
    }


def settled(declared: TaskOptions) -> ResolvedOptions:
    """Check the defaults of a task; raise InvalidOptions or InvalidTask."""
    queue, priority = declared["queue"], declared["priority"]
    limit, timeout = declared["max_attempts"], declared["timeout"]
    return {
        "queue": checked_name("default" if queue is None else queue, "queue"),
        "priority": checked_priority(0 if priority is None else priority),
        "policy": RetryPolicy(
            wait=DEFAULT_WAIT if declared["wait"] is None else declared["wait"],
            stop=declared["stop"],
            retry=DEFAULT_RETRY if declared["retry"] is None else declared["retry"],
            max_attempts=None if limit is None else checked_attempts(limit),
        ),
        "timeout": DEFAULT_TIMEOUT_US if timeout is UNSET else _optional_us(timeout, "timeout"),
        "expires": _optional_us(declared["expires"], "expires"),
        "retention": _retention_us(declared["retention"]),
    }


def _optional_us(value: Seconds | Unset | None, what: str) -> int | None:
    return None if value is None or isinstance(value, Unset) else positive_us(value, what)


def _retention_us(value: Seconds | Unset | None) -> int | None:
    return None if value is None or isinstance(value, Unset) else duration_us(value, "retention")
