"""The options of tasks and of jobs, each spelled once, and the answer to words that are none of them."""

from collections.abc import Iterable, KeysView
from datetime import datetime
from typing import Final, TypedDict

from jobrunner.core.hints import answer_to
from jobrunner.core.units import Seconds
from jobrunner.tasks.retry import RetryIf, Stop, Wait


class AttemptOptions(TypedDict, total=False):
    """The options that say how attempts run; ``include`` sets them for all tasks of a router.

    None takes the router's, except where None has a meaning.
    """

    max_attempts: int | None
    """Runs in total; 5 if nothing says otherwise."""
    wait: Wait | None
    """How long until the next attempt, a strategy of tenacity; by default about 2, 12, 72, 432 seconds."""
    stop: Stop | None
    """When to give up, a strategy of tenacity; alone it lifts ``max_attempts``, with it the first holds."""
    retry: RetryIf | None
    """Which errors are worth another attempt, a strategy of tenacity; any ``Exception`` by default."""
    timeout: Seconds | None
    """Seconds or a timedelta per attempt, None for none; 300 if nothing says otherwise."""


class TaskDefaults(AttemptOptions, total=False):
    """The options of a task that its router may set for all of its tasks."""

    queue: str | None
    """The queue of its jobs; ``"default"`` if nothing says otherwise."""
    priority: int | None
    """Higher runs first; 0 if nothing says otherwise."""
    expires: Seconds | None
    """Seconds or a timedelta after a job became due: not started by then, it never runs. None for never."""
    retention: Seconds | None
    """Seconds or a timedelta for which finished jobs are kept; None for the runner's."""


class TaskOptions(TaskDefaults, total=False):
    """The options of a task, as ``@task(...)`` takes them; what is left out is the router's."""

    name: str | None
    """The stored name, without the router's prefix; the function's own if left out.

    Never the module's: moving a function must not orphan its jobs.
    """
    aliases: Iterable[str]
    """Older stored names, prefix and all, whose jobs it runs too."""


class JobOptions(TypedDict, total=False):
    """The options of one job, as ``task.options(...)`` takes them; what is left out is the task's."""

    delay: Seconds | None
    """Seconds or a timedelta until it is due."""
    run_at: datetime | None
    """An aware datetime at which it is due, in place of ``delay``; the past means now."""
    priority: int | None
    """Higher runs first."""
    key: str | None
    """At most one unfinished job of the task has it; enqueuing another one returns that job."""
    queue: str | None
    """In place of the task's."""
    expires: Seconds | datetime | None
    """Seconds or a timedelta after it became due, or an aware datetime: not started by then, it never runs.

    None for never, whatever the task says.
    """
    max_attempts: int | None
    """Runs in total, in place of the task's."""
    timeout: Seconds | None
    """Seconds or a timedelta per attempt, in place of the task's; None for none."""
    tag: str | None
    """A text to find it by."""
    session: object
    """The application's own (of SQLAlchemy, an ``aiosqlite.Connection`` or a ``sqlite3.Connection``).

    The job is committed or rolled back with its rows.
    """


ATTEMPT_OPTIONS: Final[KeysView[str]] = AttemptOptions.__annotations__.keys()
TASK_DEFAULTS: Final[KeysView[str]] = TaskDefaults.__annotations__.keys()
TASK_OPTIONS: Final[KeysView[str]] = TaskOptions.__annotations__.keys()
JOB_OPTIONS: Final[KeysView[str]] = JobOptions.__annotations__.keys()


def check_options(call: str, given: KeysView[str], taken: KeysView[str], *named: str) -> None:
    """Refuse keywords that are no options of a call, with what to write in their place.

    Args:
        call: as the caller wrote it, e.g. ``@task`` or ``send_mail.options``.
        given: the keywords of the call.
        taken: the options that it has.
        *named: those that are parameters, for the message.

    Raises:
        TypeError: one of them is no option of it.
    """
    if not given <= taken:
        unknown = (word for word in given if word not in taken)
        raise TypeError("; ".join(_refusal(call, word, (*taken, *named)) for word in unknown))


def option_for(word: str) -> str | None:
    """Return our option of one job that a word means, be it ours or another queue's; None if it means none."""
    if word in JOB_OPTIONS:
        return word
    ours = (answer_to("option", word) or "").partition("=")[0]
    return ours if ours in JOB_OPTIONS else None


def _refusal(call: str, word: str, taken: tuple[str, ...]) -> str:
    at_runner = "queues" in taken
    instead = answer_to("runner option", word) if at_runner else None
    if instead is not None:
        return f"{call}() has no option {word!r}: write {instead}"
    if word in TASK_OPTIONS and ("delay" in taken or at_runner):
        return f"{call}() has no option {word!r}: it is the task's, write @task({word}=...)"
    if word in JOB_OPTIONS and ("aliases" in taken or at_runner):
        return f"{call}() has no option {word!r}: it is each job's, write task.options({word}=...)"
    if word in TASK_OPTIONS - JOB_OPTIONS:
        return f"{call}() has no option {word!r}: write it at @task({word}=...)"
    instead = answer_to("option", word)
    if instead is None:
        return f"{call}() has no option {word!r}; it has {', '.join(taken)}"
    ours = instead.partition("=")[0]
    if ours in TASK_OPTIONS and ours not in taken and (at_runner or ours not in JOB_OPTIONS):
        instead = f"it at the task: @task({instead})"
    elif ours in JOB_OPTIONS and ours not in taken:
        instead = f"task.options({instead})"
    return f"{call}() has no option {word!r}: write {instead}"
