"""Validates ids, filters, limits and cursors from callers."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, TypedDict, get_args

from jobrunner.core.errors import InvalidCursor, InvalidOptions, JobNotFound
from jobrunner.core.model import DeadReason, Filter, State
from jobrunner.core.units import instant_us
from jobrunner.tasks.task import Task

MOST_ROWS: Final = 1_000
DEFAULT_ROWS: Final = 50
"""The bounds of every page, in Python, over HTTP and on the command line."""
CURSOR_DIGITS: Final = 18
"""A larger number is no row of ours, and would not fit SQLite's integers."""


STATES: Final = get_args(State)
REASONS: Final = get_args(DeadReason)


class JobFilter(TypedDict, total=False):
    """Which jobs are meant: those to which everything given applies."""

    task: Task[..., Any] | str | None
    queue: str | None
    state: State | None
    """``"dead"`` means the dead letters, as jobs."""
    tag: str | None
    key: str | None
    since: datetime | None
    """Created at this instant or later; a dead one died then."""
    until: datetime | None
    """Created, or died, before this instant."""


class DeadLetterFilter(TypedDict, total=False):
    """Which dead letters are meant: those to which everything given applies."""

    task: Task[..., Any] | str | None
    queue: str | None
    reason: DeadReason | None
    tag: str | None
    since: datetime | None
    """Died at this instant or later."""
    until: datetime | None
    """Died before this instant."""


def checked_id(id: str) -> str:
    """Return the id of a job as it is.

    Raises:
        TypeError: it is no text.
        JobNotFound: no job can have it, and the store could not even search for some of these.
    """
    if not isinstance(id, str):
        raise TypeError(f"the id of a job is a text, not {id!r}: write str(id)")
    if not id.isascii():
        raise JobNotFound(f"no job has the id {id!r}")
    return id


def job_filter(where: JobFilter) -> Filter:
    """Return the filter of jobs that these words mean; raises as ``_filter_of``."""
    _check_words("list", where, JobFilter.__annotations__)
    return _filter_of(**where)


def dead_letter_filter(verb: str, where: DeadLetterFilter) -> Filter:
    """Return the filter of dead letters that these words mean; raises as ``_filter_of``.

    Args:
        verb: the call that they were given to, for the error.
    """
    _check_words(f"dead_letters.{verb}", where, DeadLetterFilter.__annotations__)
    return _filter_of(**where)


def _check_words(call: str, given: Iterable[str], known: Iterable[str]) -> None:
    unknown = [word for word in given if word not in known]
    if unknown:
        raise TypeError(f"{call}() has no filter {unknown[0]!r}; it has {', '.join(known)}")


def _filter_of(
    *,
    task: Task[..., Any] | str | None = None,
    queue: str | None = None,
    state: State | None = None,
    reason: DeadReason | None = None,
    tag: str | None = None,
    key: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Filter:
    """Return the filter that these words mean.

    Raises:
        InvalidOptions: an unknown state or reason, an instant without a time zone, a value that is no text.
    """
    name = task.name if isinstance(task, Task) else task
    for what, text in (("task", name), ("queue", queue), ("tag", tag), ("key", key)):
        _check_text(what, text)
    _check_choice("state", state, STATES)
    _check_choice("reason", reason, REASONS)
    return Filter(
        task=name,
        queue=queue,
        state=state,
        reason=reason,
        tag=tag,
        key=key,
        since=None if since is None else instant_us(since, "since"),
        until=None if until is None else instant_us(until, "until"),
    )


def _check_text(what: str, text: object) -> None:
    if text is None:
        return
    if not isinstance(text, str):
        raise InvalidOptions(f"{what}={text!r} is not a text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidOptions(
            f"{what}={text!r} holds a lone surrogate, which is not UTF-8"
        ) from None


def _check_choice(what: str, value: object, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise InvalidOptions(f"{what}={value!r} is none of {', '.join(known)}")


def checked_limit(limit: int) -> int:
    """Return a page's size as it is.

    Raises:
        InvalidOptions: it is not 1 to 1,000.
    """
    if not isinstance(limit, int) or not 1 <= limit <= MOST_ROWS:
        raise InvalidOptions(f"limit={limit!r} is not 1 to 1,000; use the cursor for more")
    return limit


def read_cursor(cursor: str | None) -> int | None:
    """Return the row before which a page begins.

    Raises:
        InvalidCursor: no page gave it out.
    """
    if cursor is None:
        return None
    fits = isinstance(cursor, str) and cursor.isascii() and cursor.isdigit()
    if not fits or len(cursor) > CURSOR_DIGITS:
        raise no_cursor(cursor)
    return int(cursor)


def no_cursor(given: object) -> InvalidCursor:
    """Return the error for a cursor that no page gave out."""
    return InvalidCursor(f"{given!r} is not a cursor; take next_cursor of the page before")


def write_cursor(row: int | None) -> str | None:
    """Return the cursor of the page that begins before a row."""
    return None if row is None else str(row)
