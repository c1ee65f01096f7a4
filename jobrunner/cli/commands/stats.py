"""``jobrunner stats``: shows what ended, by time, queue or task."""

from typing import TYPE_CHECKING, Any

import click

from jobrunner.cli.filters import instant
from jobrunner.cli.location import Location, as_json, with_location

if TYPE_CHECKING:
    from jobrunner.cli.session import StoreSession
    from jobrunner.queue.stats import StatsBucket


@click.command()
@with_location
@click.option(
    "--per",
    type=click.Choice(("minute", "hour")),
    default="minute",
    show_default=True,
    help="Read minutes, kept for 6 hours, or hours, kept for 30 days.",
)
@click.option(
    "--by",
    type=click.Choice(("time", "queue", "task")),
    default="time",
    show_default=True,
    help="Show a row for each minute or hour, each queue or each task.",
)
@click.option("--queue", metavar="NAME", help="Only this queue.")
@click.option("--task", metavar="NAME", help="Only this task.")
@click.option(
    "--since",
    type=instant,
    metavar="TIME",
    help="The begin, rounded down: an age such as 3h, or ISO 8601. Default: 1h before the end, of hours 1d.",
)
@click.option(
    "--until",
    type=instant,
    metavar="TIME",
    help="The end, rounded up. Default: now.",
)
@as_json
def stats(location: Location, *, as_json: bool, **query: Any) -> None:
    """Show what ended: attempts, dead letters, and percentiles of waits and runs."""
    from jobrunner.cli.session import run_in_session

    run_in_session(location, lambda session: _stats(session, query, as_json=as_json))


async def _stats(session: "StoreSession", query: dict[str, Any], *, as_json: bool) -> None:
    from jobrunner.cli.output import say, say_json, say_table

    found = await session.queue.stats(**query)
    if as_json:
        say_json(found)
        return
    shown = {"time": "start", "queue": "queue", "task": "task"}[found.by]

    def row(name: object, one: "StatsBucket") -> tuple[object, ...]:
        durations = (one.wait_p50, one.wait_p95, one.run_p50, one.run_p95)
        return (name, one.succeeded, one.failed, one.dead, *durations)

    say_table(
        (shown, "succeeded", "failed", "dead", "wait p50", "wait p95", "run p50", "run p95"),
        [
            *(row(getattr(one, shown), one) for one in found.buckets if _has_ended(one)),
            row("total", found.total),
        ],
        empty="",
    )
    say(f"window: {found.since:%Y-%m-%d %H:%MZ} to {found.until:%Y-%m-%d %H:%MZ}", err=True)


def _has_ended(one: "StatsBucket") -> bool:
    return bool(one.succeeded or one.failed or one.dead)
