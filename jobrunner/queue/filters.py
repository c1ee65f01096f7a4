"""Validates ids, filters, limits, cursors and due times from callers."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, Literal, TypedDict, get_args

from jobrunner.core.errors import BatchNotFound, InvalidCursor, InvalidOptions, JobNotFound
from jobrunner.core.model import DeadReason, Filter, State, UnfinishedState
from jobrunner.core.units import Seconds, duration_us, instant_us
from jobrunner.tasks.task import Task

MOST_ROWS: Final = 1_000
"""The largest page, in Python, over HTTP and on the command line."""
DEFAULT_ROWS: Final = 50
"""The size of a page if the caller names none."""
CURSOR_DIGITS: Final = 18
"""The most digits of a cursor; a longer number might not fit SQLite's integers."""


ListState = State | Literal["retrying"]
"""``retrying`` jobs are the scheduled ones that wait for another attempt."""
CancelState = UnfinishedState | Literal["retrying"]
WaitingState = Literal["scheduled", "queued", "retrying"]
STATES: Final = get_args(State)
LIST_STATES: Final = (*STATES, "retrying")
CANCEL_STATES: Final = (*get_args(UnfinishedState), "retrying")
WAITING_STATES: Final = get_args(WaitingState)
REASONS: Final = get_args(DeadReason)


class JobFilter(TypedDict, total=False):
    """The filters of ``list``; a job must match all that are given."""

    task: Task[..., Any] | str | None
    queue: str | None
    state: ListState | None
    """``"dead"`` lists the dead letters, as jobs; without it they are left out. ``"retrying"`` lists the scheduled jobs
    that wait for another attempt; they are among those of ``"scheduled"`` too."""
    tag: str | None
    key: str | None
    batch: str | None
    """The id of a batch: only its members."""
    since: datetime | None
    """Created at this instant or later; with ``state="dead"``, died at it or later."""
    until: datetime | None
    """Created before this instant; with ``state="dead"``, died before it."""


class CancelFilter(TypedDict, total=False):
    """The filters of ``cancel_all``; an unfinished job must match all that are given."""

    task: Task[..., Any] | str | None
    queue: str | None
    state: CancelState | None
    tag: str | None
    key: str | None
    since: datetime | None
    """Created at this instant or later."""
    until: datetime | None
    """Created before this instant."""


class RescheduleFilter(TypedDict, total=False):
    """The filters of ``reschedule_all``; a waiting job must match all that are given."""

    task: Task[..., Any] | str | None
    queue: str | None
    state: WaitingState | None
    tag: str | None
    key: str | None
    since: datetime | None
    """Created at this instant or later."""
    until: datetime | None
    """Created before this instant."""


class DeadLetterFilter(TypedDict, total=False):
    """The filters of the methods of ``dead_letters``; a dead letter must match all that are given."""

    task: Task[..., Any] | str | None
    queue: str | None
    reason: DeadReason | None
    tag: str | None
    group: str | None
    """The ``fingerprint`` of a group."""
    batch: str | None
    """The id of a batch: only its members."""
    since: datetime | None
    """Died at this instant or later."""
    until: datetime | None
    """Died before this instant."""


def checked_id(id: str) -> str:
    """Check the id of a job and return it unchanged.

    Raises:
        TypeError: The id is not a string.
        JobNotFound: The id is not ASCII. No job has such an id, and the store cannot search for a lone surrogate.
    """
    if not isinstance(id, str):
        raise TypeError(f"the id of a job is a text, not {id!r}: write str(id)")
    if not id.isascii():
        raise JobNotFound(f"no job has the id {id!r}")
    return id


def checked_batch_id(id: str) -> str:
    """Check the id of a batch and return it unchanged; raises as ``checked_id``, and ``BatchNotFound``."""
    if not isinstance(id, str):
        raise TypeError(f"the id of a batch is a text, not {id!r}: write batch.id")
    if not id.isascii():
        raise BatchNotFound(f"no batch has the id {id!r}")
    return id


def job_filter(where: JobFilter) -> Filter:
    """Check the filters of a call that lists jobs; raises as ``_filter_of``."""
    check_words("list", where, JobFilter.__annotations__)
    check_choice("state", where.get("state"), LIST_STATES)
    return _with_retrying({**where})


def cancel_filter(where: CancelFilter) -> Filter:
    """Check the filters of a call of ``cancel_all``; raises as ``_filter_of``."""
    check_words("cancel_all", where, CancelFilter.__annotations__)
    check_choice("state", where.get("state"), CANCEL_STATES)
    return _with_retrying({**where})


def reschedule_filter(where: RescheduleFilter) -> Filter:
    """Check the filters of a call of ``reschedule_all``; raises as ``_filter_of``."""
    check_words("reschedule_all", where, RescheduleFilter.__annotations__)
    check_choice("state", where.get("state"), WAITING_STATES)
    return _with_retrying({**where})


def _with_retrying(where: dict[str, Any]) -> Filter:
    """Return the filter; ``retrying`` is not a state that is stored."""
    if where.get("state") == "retrying":
        return _filter_of(**{**where, "state": None})._replace(retrying=True)
    return _filter_of(**where)


def dead_letter_filter(verb: str, where: DeadLetterFilter) -> Filter:
    """Check the filters of a call on dead letters; raises as ``_filter_of``.

    Args:
        verb: The method that was called, for the error.
        where: Its filters.
    """
    check_words(f"dead_letters.{verb}", where, DeadLetterFilter.__annotations__)
    return _filter_of(**where)


def check_words(call: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise ``TypeError`` if a call was given an unknown filter."""
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
    group: str | None = None,
    batch: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Filter:
    """Check each filter and return them in the store's form.

    Raises:
        InvalidOptions: The state or the reason is unknown, a datetime is naive, or a value is not a string.
    """
    name = task.name if isinstance(task, Task) else task
    texts = {"task": name, "queue": queue, "tag": tag, "key": key, "group": group, "batch": batch}
    for what, text in texts.items():
        check_text(what, text)
    check_choice("reason", reason, REASONS)
    return Filter(
        task=name,
        queue=queue,
        state=state,
        reason=reason,
        tag=tag,
        key=key,
        since=None if since is None else instant_us(since, "since"),
        until=None if until is None else instant_us(until, "until"),
        group=group,
        batch=batch,
    )


def check_text(what: str, text: object) -> None:
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


def check_choice(what: str, value: object, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise InvalidOptions(f"{what}={value!r} is none of {', '.join(known)}")


def due_us(
    delay: Seconds | None, run_at: datetime | None, now: int, call: str = "reschedule(id, {})"
) -> int:
    """Check the new time of a job and return it.

    Raises:
        InvalidOptions: Neither or both of the two are given, or the time is invalid.
    """
    if (delay is None) == (run_at is None):
        raise InvalidOptions(
            f"a new time is a delay or a run_at: write {call.format(3600)}, or {call.format('run_at=...')}"
        )
    if run_at is not None:
        return instant_us(run_at, "run_at")
    assert delay is not None  # noqa: S101 - checked above
    return now + duration_us(delay, "delay")


def checked_limit(limit: int) -> int:
    """Check the size of a page and return it unchanged.

    Raises:
        InvalidOptions: The limit is not an int from 1 to 1,000.
    """
    if not isinstance(limit, int) or not 1 <= limit <= MOST_ROWS:
        raise InvalidOptions(f"limit={limit!r} is not 1 to 1,000; use the cursor for more")
    return limit


def read_cursor(cursor: str | None) -> int | None:
    """Return the row before which a page begins; None for the first page.

    Raises:
        InvalidCursor: The cursor does not come from a page.
    """
    if cursor is None:
        return None
    fits = isinstance(cursor, str) and cursor.isascii() and cursor.isdigit()
    if not fits or len(cursor) > CURSOR_DIGITS:
        raise no_cursor(cursor)
    return int(cursor)


def no_cursor(given: object) -> InvalidCursor:
    """Return the error for a cursor that does not come from a page."""
    return InvalidCursor(f"{given!r} is not a cursor; take next_cursor of the page before")


def write_cursor(row: int | None) -> str | None:
    """Return the cursor of the page that begins before a row; None at the end."""
    return None if row is None else str(row)
