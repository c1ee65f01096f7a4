"""Declares the options of tasks and jobs, and refuses keywords that are not options."""

from collections.abc import Iterable, KeysView, Sequence
from datetime import datetime
from typing import Final, TypedDict

from jobrunner.core.hints import answer_to
from jobrunner.core.units import Seconds
from jobrunner.tasks.limits import By, Concurrency, Rate
from jobrunner.tasks.retry import RetryIf, Stop, Wait


class AttemptOptions(TypedDict, total=False):
    """The options of attempts, which ``include`` can set for all tasks of a router.

    An option that a task leaves out takes the value of ``include``, then the router's, then the default below. None
    does the same, except for ``timeout``, where it means no limit.
    """

    max_attempts: int | None
    """Runs in total, the first one included; 1 means no retry. Default: 5."""
    wait: Wait | None
    """A strategy of tenacity: the time until the next attempt. Default: about 2, 12, 72, 432 seconds."""
    stop: Stop | None
    """A strategy of tenacity: when to give up.

    Without ``max_attempts`` it decides alone; with it, the first of the two ends the retries. Default: none.
    """
    retry: RetryIf | None
    """A strategy of tenacity: the errors to retry. Default: any ``Exception``."""
    timeout: Seconds | None
    """The time limit per attempt, in seconds or as a timedelta; None for no limit. Default: 300."""


class TaskDefaults(AttemptOptions, total=False):
    """The options of a task that a router can set for all its tasks.

    An option that a task leaves out takes the router's value, then the default below. None does the same, except for
    ``timeout``, ``expires`` and ``retention``, where it has a meaning.
    """

    queue: str | None
    """The queue of the task's jobs. Default: ``"default"``."""
    priority: int | None
    """The priority of its jobs, from -32,767 to 32,767; higher runs first. Default: 0."""
    expires: Seconds | None
    """The time after its due time at which a waiting job expires, instead of starting its first attempt or a retry.

    Seconds or a timedelta. An attempt that runs then is not stopped. Default: None, never.
    """
    retention: Seconds | None
    """The time for which finished jobs are kept; seconds or a timedelta. Default: None, the runner's."""


class TaskOptions(TaskDefaults, total=False):
    """The options of ``@task(...)``; those left out take the router's values."""

    name: str | None
    """The stored name, without the router's prefix. Default: the name of the function.

    The module is never part of it, so that moving a function does not orphan its jobs.
    """
    concurrency: int | Concurrency | Sequence[Concurrency] | None
    """The most jobs of the task that run at a time over all workers; see ``Concurrency``. Default: no limit."""
    rate_limit: Rate | Sequence[Rate] | None
    """The most jobs of the task that start in a time over all workers; see ``Rate``. Default: no limit."""
    fair: By | None
    """The parameters by whose values jobs take turns, without a limit; see ``by`` of ``Concurrency``. Default: none."""
    aliases: Iterable[str]
    """Older stored names, with their prefixes, whose jobs the task runs too."""


class JobOptions(TypedDict, total=False):
    """The options of ``task.options(...)``, for one job; those left out are the task's."""

    delay: Seconds | None
    """The time until the job is due, in seconds or as a timedelta."""
    run_at: datetime | None
    """The time at which the job is due, an aware datetime, instead of ``delay``; the past means now."""
    priority: int | None
    """The job's priority, from -32,767 to 32,767; higher runs first."""
    key: str | None
    """A unique key of 1 to 500 characters.

    At most one unfinished job of the task has it. Enqueuing a second one stores nothing and returns the first.
    """
    queue: str | None
    """The job's queue, instead of the task's."""
    expires: Seconds | datetime | None
    """The time at which a waiting job expires, instead of starting its first attempt or a retry.

    An aware datetime, or seconds or a timedelta from the moment at which the job is due. None for never, even if the
    task has a value. An attempt that runs at that time is not stopped.
    """
    max_attempts: int | None
    """Runs in total, instead of the task's."""
    timeout: Seconds | None
    """The time limit per attempt, in seconds or as a timedelta, instead of the task's; None for no limit."""
    tag: str | None
    """A text of 1 to 200 characters by which to find the job."""
    session: object
    """The application's session, whose transaction stores the job: both commit or roll back together.

    A session of SQLAlchemy, an ``aiosqlite.Connection`` or a ``sqlite3.Connection``.
    """


ATTEMPT_OPTIONS: Final[KeysView[str]] = AttemptOptions.__annotations__.keys()
TASK_DEFAULTS: Final[KeysView[str]] = TaskDefaults.__annotations__.keys()
TASK_OPTIONS: Final[KeysView[str]] = TaskOptions.__annotations__.keys()
JOB_OPTIONS: Final[KeysView[str]] = JobOptions.__annotations__.keys()


def check_options(call: str, given: KeysView[str], taken: KeysView[str], *named: str) -> None:
    """Refuse keywords that are not options of a call.

    Args:
        call: The call as its user writes it, such as ``@task`` or ``send_mail.options``.
        given: The keywords of the call.
        taken: The options of the call.
        *named: Its other parameters, for the message.

    Raises:
        TypeError: A keyword is not an option of the call; the message says what to write.
    """
    if not given <= taken:
        unknown = (word for word in given if word not in taken)
        raise TypeError("; ".join(_refusal(call, word, (*taken, *named)) for word in unknown))


def option_for(word: str) -> str | None:
    """Return the job option that a word means, ours or another queue's; None if unknown."""
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
