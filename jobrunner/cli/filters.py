"""Defines the filter and page options of lists, and reads pages."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from jobrunner.queue.page import Page

T = TypeVar("T")

REASONS: Final = ("exhausted", "buried", "not_retryable", "lost", "unknown_task", "invalid_args")
STATES: Final = (
    "scheduled",
    "queued",
    "running",
    "blocked",
    "succeeded",
    "cancelled",
    "expired",
    "dead",
)
BATCH_STATES: Final = ("running", "succeeded", "failed", "cancelled")
ACTIONS: Final = (
    "cancel",
    "cancel_all",
    "reschedule",
    "reschedule_all",
    "signal",
    "arguments.show",
    "dead_letters.replay",
    "dead_letters.replay_edited",
    "dead_letters.replay_all",
    "dead_letters.delete",
    "dead_letters.delete_all",
    "batches.cancel",
    "batches.retry",
    "queues.pause",
    "queues.resume",
    "limits.set",
    "limits.reset",
    "schedules.upsert",
    "schedules.remove",
    "schedules.run_now",
    "schedules.pause",
    "schedules.resume",
)
LIST_STATES: Final = (*STATES, "retrying")
UNFINISHED: Final = (*STATES[:4], "retrying")
WAITING: Final = ("scheduled", "queued", "retrying")


def instant(text: str) -> datetime:
    """Return an aware datetime from ISO 8601 or from an age.

    ISO 8601 needs an offset. An age is a number with a unit: 90s, 30m, 24h, 7d, 2w.
    """
    from jobrunner.core.clock import utcnow
    from jobrunner.core.units import written_duration

    try:
        age = written_duration(text)
        if age is not None:
            return utcnow() - age
    except OverflowError as error:
        raise click.BadParameter(f"{text} is too long ago") from error
    return _moment(text, "24h, or 2026-11-22T08:00:00Z")


def moment(text: str) -> datetime:
    """Return an aware datetime from ISO 8601 with an offset."""
    return _moment(text, "2026-11-22T08:00:00Z")


def _moment(text: str, example: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a time: write {example}") from error
    if found.tzinfo is None:
        raise click.BadParameter(f"{text!r} has no time zone: write {text}Z for UTC")
    return found.astimezone(UTC)


def duration(text: str) -> timedelta:
    """Return a duration from a number with a unit: 90s, 30m, 24h, 7d, 2w."""
    from jobrunner.core.units import written_duration

    try:
        found = written_duration(text)
    except OverflowError as error:
        raise click.BadParameter(f"{text} is too long") from error
    if found is None:
        raise click.BadParameter(f"{text!r} is not a duration: write 90s, 30m, 24h, 7d or 2w")
    return found


def which(*, verb: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the filter options of jobs and dead letters to a command.

    Args:
        verb: the event that ``--since`` and ``--until`` filter by: created, that died.
    """
    options = (
        click.option("--task", metavar="NAME", help="Only jobs of this task."),
        click.option("--queue", metavar="NAME", help="Only jobs of this queue."),
        click.option("--tag", help="Only jobs with this tag."),
        click.option(
            "--since",
            type=instant,
            metavar="TIME",
            help=f"Only jobs {verb} at this time or later: an age such as 24h, or ISO 8601.",
        ),
        click.option(
            "--until", type=instant, metavar="TIME", help=f"Only jobs {verb} before this time."
        ),
    )

    def give(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return give


def many(*, what: str, verb: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options of a command that changes one thing or many: --all, --dry-run and --yes.

    Args:
        what: the things that the filter options select.
        verb: the verb that needs ``--yes`` if there is no terminal.
    """

    def give(command: Callable[..., Any]) -> Callable[..., Any]:
        command = click.option(
            "--yes",
            is_flag=True,
            help=f"Do not ask for confirmation; required to {verb} by filter without a terminal.",
        )(command)
        command = click.option(
            "--dry-run", is_flag=True, help=f"Only count the matching {what}; change nothing."
        )(command)
        return click.option("--all", "every", is_flag=True, help=f"All {what}.")(command)

    return give


def check_which(id: str | None, where: dict[str, Any], *, every: bool, filters: str) -> None:
    """Check that a command got exactly one of an id, filters and ``--all``.

    Raises:
        UsageError: It got none of them, or several.
    """
    filtered = any(value is not None for value in where.values())
    if id is not None and (filtered or every):
        raise click.UsageError("give an id or a filter, not both")
    if id is None and not filtered and not every:
        raise click.UsageError(f"say which: an id, a filter ({filters}), or --all")


def page(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the page options of a list to a command."""
    command = click.option("--cursor", help="The `next_cursor` of the previous page.")(command)
    return click.option(
        "--limit",
        type=click.IntRange(1, 1000),
        default=50,
        show_default=True,
        help="The most rows to return.",
    )(command)


async def listed(
    pages: Callable[..., Awaitable["Page[T]"]], *, limit: int, cursor: str | None, **where: Any
) -> tuple[list[T], str | None]:
    """Return matching rows and the next cursor, and follow pages that end early."""
    found: list[T] = []
    while True:
        page = await pages(limit=limit - len(found), cursor=cursor, **where)
        found += page.items
        cursor = page.next_cursor
        if cursor is None or len(found) == limit:
            return found, cursor
