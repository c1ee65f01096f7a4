"""Reads the options that filter jobs and dead letters, and the pages of a list."""

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
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def instant(text: str) -> datetime:
    """Return a time as an aware datetime: ISO 8601 with its offset, or how long ago, as in 90s, 30m, 24h, 7d."""
    from jobrunner.core.clock import utcnow

    number, unit = text[:-1], text[-1:]
    if number.isascii() and number.isdigit() and unit in _UNITS:
        try:
            return utcnow() - timedelta(**{_UNITS[unit]: int(number)})
        except OverflowError as error:
            raise click.BadParameter(f"{text} is too long ago") from error
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is no time: write 24h, or 2026-11-22T08:00:00Z"
        ) from error
    if moment.tzinfo is None:
        raise click.BadParameter(f"{text!r} says no time zone: write {text}Z for UTC")
    return moment.astimezone(UTC)


def which(*, verb: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the filter options of jobs and dead letters to a command.

    Args:
        verb: what ``--since`` and ``--until`` are about: created, died.
    """
    options = (
        click.option("--task", metavar="NAME", help="Only of this task."),
        click.option("--queue", metavar="NAME", help="Only of this queue."),
        click.option("--tag", help="Only with this tag."),
        click.option(
            "--since",
            type=instant,
            metavar="TIME",
            help=f"Only {verb} then or later: 24h, or ISO 8601.",
        ),
        click.option("--until", type=instant, metavar="TIME", help=f"Only {verb} before then."),
    )

    def give(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return give


def page(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a list in pages to a command."""
    command = click.option("--cursor", help="`next_cursor` of the page before.")(command)
    return click.option(
        "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Rows at most."
    )(command)


async def listed(
    pages: Callable[..., Awaitable["Page[T]"]], *, limit: int, cursor: str | None, **where: Any
) -> tuple[list[T], str | None]:
    """Return matching rows and the next cursor; follow pages that end early."""
    found: list[T] = []
    while True:
        page = await pages(limit=limit - len(found), cursor=cursor, **where)
        found += page.items
        cursor = page.next_cursor
        if cursor is None or len(found) == limit:
            return found, cursor
