"""Compares the stored jobs with a test's expectation, and words the difference."""

import difflib
import inspect
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jobrunner.core.clock import from_us
from jobrunner.core.errors import InvalidOptions
from jobrunner.core.units import Unset
from jobrunner.tasks.call import ResolvedJobOptions
from jobrunner.tasks.task import Task, options_of
from jobrunner.testing.records import Record

FILTERS: Final = ("queue", "key", "tag", "state")
MOST_SHOWN: Final = 20
"""The most jobs that a failed assertion lists."""


@dataclass(frozen=True)
class Expected:
    """A call of a task that a test expects among the stored jobs."""

    task: Task[..., Any]
    args: dict[str, Any] | None
    """The arguments as stored; None for any."""
    where: Mapping[str, Any]
    """The expected values by the names in ``FILTERS``."""
    options: ResolvedJobOptions
    """The options that the test has set on the task."""

    @classmethod
    def of(cls, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> "Expected":
        """Read the arguments of an assertion: those of the task, and the filters beside them.

        A keyword that is a parameter of the task belongs to the task.

        Raises:
            InvalidArguments: The arguments do not fit the task.
        """
        where, kwargs = split(task, FILTERS, kwargs)
        # Checks the arguments and writes them as the application does.
        call = task.call(*args, **kwargs) if args or kwargs else None
        return cls(task, None if call is None else json.loads(call.args), where, options_of(task))

    def matches(self, record: Record) -> bool:
        """Return whether a stored job is such a call."""
        row = record.row
        return (
            record.is_of(self.task)
            and (self.args is None or record.args == self.args)
            and all(getattr(row, name) == value for name, value in self.where.items())
            and all(_has_option(record, name, value) for name, value in self._set_options())
        )

    def _set_options(self) -> list[tuple[str, Any]]:
        values = {name: value for name, value in vars(self.options).items() if name != "session"}
        return [
            (name, value)
            for name, value in values.items()
            if value is not None and not isinstance(value, Unset)
        ]

    def __str__(self) -> str:
        args = "..." if self.args is None else _written(self.args)
        words = [f"{self.task.name}({args})"]
        words += [f"{name}={_option_text(name, value)}" for name, value in self._set_options()]
        words += [f"{name}={value!r}" for name, value in self.where.items()]
        return " ".join(words)


def split(
    task: Task[..., Any], words: Collection[str], kwargs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the keywords of a tester's method, and those of the task.

    A keyword that is also a parameter of the task belongs to the task.
    """
    parameters = inspect.signature(task.spec.fn).parameters
    ours = {
        name: value for name, value in kwargs.items() if name in words and name not in parameters
    }
    return ours, {name: value for name, value in kwargs.items() if name not in ours}


def _has_option(record: Record, name: str, value: Any) -> bool:
    row = record.row
    match name:
        case "delay":
            return bool(row.run_at - row.created_at == value)
        case "expires":
            return bool(row.expires_at is not None and row.expires_at - row.run_at == value)
        case _:
            return bool(getattr(row, name) == value)


def _option_text(name: str, value: Any) -> str:
    if name in ("delay", "expires", "timeout"):
        return f"{value / 1_000_000:g}"
    return from_us(value).isoformat() if name in ("run_at", "expires_at") else repr(value)


def _written(args: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in args.items())


def text_of(record: Record, expected: Expected | None = None) -> str:
    """Return a job on one line: task, arguments, options and state.

    Args:
        record: The job.
        expected: Shows the options that it names even where they have their usual values.
    """
    row = record.row
    words = [f"{row.task}({_written(record.args)})"]
    shown: dict[str, Any] = {
        "queue": row.queue,
        "key": row.key,
        "tag": row.tag,
        "schedule": row.schedule,
        "max_attempts": row.max_attempts,
    }
    if row.run_at != row.created_at:
        words.append(f"delay={(row.run_at - row.created_at) / 1_000_000:g}")
    named = set() if expected is None else {*expected.where, *dict(expected._set_options())}  # noqa: SLF001
    if row.priority or "priority" in named:
        words.append(f"priority={row.priority}")
    words += [
        f"{name}={value!r}" for name, value in shown.items() if value is not None or name in named
    ]
    return " ".join([*words, f"state={row.state!r}"])


def difference(expected: Expected, records: Sequence[Record], times: int | None) -> str:
    """Return the message of a failed assertion, with all that was enqueued instead."""
    found = [record for record in records if expected.matches(record)]
    wanted = "at least one job" if times is None else f"{times} job{'s' * (times != 1)}"
    lines = [f"expected {wanted} of {expected}, found {len(found)}"]
    same_task = [
        record for record in records if record.is_of(expected.task) and record not in found
    ]
    if len(same_task) == 1 and not found:
        # As pytest shows two texts that differ.
        lines += difflib.ndiff([str(expected)], [text_of(same_task[0], expected)])
    lines.append("enqueued:" if records else "nothing was enqueued")
    lines += [f"  {text_of(record, expected)}" for record in records[:MOST_SHOWN]]
    if len(records) > MOST_SHOWN:
        lines.append(f"  and {len(records) - MOST_SHOWN} more")
    return "\n".join(lines)


def check_times(times: object) -> None:
    """Refuse a number of jobs that is none.

    Raises:
        InvalidOptions: It is not a whole number from 1 on.
    """
    if times is None or (isinstance(times, int) and not isinstance(times, bool) and times > 0):
        return
    raise InvalidOptions(
        f"times={times!r} is not a number of jobs from 1 on; for none write assert_nothing_enqueued(task)"
    )
