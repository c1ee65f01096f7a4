"""``jobrunner audit``: lists what operators changed."""

from typing import TYPE_CHECKING, Any

import click

from jobrunner.cli.filters import ACTIONS, listed, page
from jobrunner.cli.location import Location, as_json, with_location

if TYPE_CHECKING:
    from jobrunner.cli.session import StoreSession


@click.command()
@with_location
@click.option("--actor", metavar="NAME", help="Only acts of this actor, such as ada@shop-1.")
@click.option(
    "--action",
    type=click.Choice(ACTIONS),
    metavar="ACTION",
    help="Only acts of this kind, such as dead_letters.replay or queues.pause.",
)
@page
@as_json
def audit(location: Location, *, as_json: bool, **where: Any) -> None:
    """List what was changed over HTTP and on the command line, newest first.

    Entries are kept for a year. A count of `-` means that the act runs, or that its end is unknown.
    """
    from jobrunner.cli.session import run_in_session

    run_in_session(location, lambda session: _list(session, where, as_json=as_json))


async def _list(session: "StoreSession", where: dict[str, Any], *, as_json: bool) -> None:
    from jobrunner.cli.output import say, say_json, say_table

    found, after = await listed(session.queue.audit.list, **where)
    if as_json:
        say_json({"items": found, "next_cursor": after, "complete": True})
        return
    say_table(
        ("at", "actor", "action", "target", "filter", "count", "reason"),
        [(e.at, e.actor, e.action, e.target, e.filter, e.count, e.reason) for e in found],
        empty="nothing was changed",
    )
    if after is not None:
        say(f"more: --cursor {after}", err=True)
