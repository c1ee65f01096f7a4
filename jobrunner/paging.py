"""What lists are asked for: filters, limits and cursors, checked."""

from datetime import datetime
from typing import Any, Final

from jobrunner.errors import InvalidCursor, InvalidOptions
from jobrunner.model import DeadReason, Filter, State
from jobrunner.spec import instant_us
from jobrunner.task import Task

MOST_ROWS: Final = 1_000
CURSOR_DIGITS: Final = 18
"""A larger number is no row of ours, and would not fit SQLite's integers."""


def filter_of(
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
        InvalidOptions: an instant without a time zone.
    """
    return Filter(
        task=task.name if isinstance(task, Task) else task,
        queue=queue,
        state=state,
        reason=reason,
        tag=tag,
        key=key,
        since=None if since is None else instant_us(since, "since"),
        until=None if until is None else instant_us(until, "until"),
    )


def checked_limit(limit: int) -> int:
    """Return a page's size as it is.

    Raises:
        InvalidOptions: it is not 1 to 1,000.
    """
    if not 1 <= limit <= MOST_ROWS:
        raise InvalidOptions(f"limit={limit!r} is not 1 to 1,000; use the cursor for more")
    return limit


def read_cursor(cursor: str | None) -> int | None:
    """Return the row before which a page begins.

    Raises:
        InvalidCursor: no page gave it out.
    """
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= CURSOR_DIGITS):
        raise InvalidCursor(f"{cursor!r} is not a cursor; take next_cursor of the page before")
    return int(cursor)


def write_cursor(row: int | None) -> str | None:
    """Return the cursor of the page that begins before a row."""
    return None if row is None else str(row)
