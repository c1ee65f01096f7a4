"""``jobrunner limits``: lists, sets and resets limits."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from jobrunner.cli.audit import audited, with_reason
from jobrunner.cli.filters import duration, listed, page
from jobrunner.cli.location import Location, as_json, with_location

if TYPE_CHECKING:
    from jobrunner.cli.session import StoreSession
    from jobrunner.core.limits import LimitScope
    from jobrunner.queue.limits import LimitInfo

SCOPES: Final = ("queue", "task", "lanes", "lane")


def named(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments that name a limit to a command."""
    command = click.argument("name")(command)
    return click.argument("scope", type=click.Choice(SCOPES))(command)


def rate(text: str) -> tuple[int, float]:
    """Return the starts and the seconds of a rate: 100/60s, 10/1m."""
    number, _, per = text.partition("/")
    if not (number.isascii() and number.isdigit()):
        raise click.BadParameter(f"{text!r} is not a rate: write 100/60s or 10/1m")
    return int(number), duration(per).total_seconds()


@click.group()
def limits() -> None:
    """List, set and reset limits."""


@limits.command("list")
@with_location
@page
@as_json
def list_limits(location: Location, *, as_json: bool, **where: Any) -> None:
    """List the limits in force: of queues and tasks first, then of single lanes."""
    from jobrunner.cli.session import run_in_session

    run_in_session(location, lambda session: _list(session, where, as_json=as_json))


async def _list(session: "StoreSession", where: dict[str, Any], *, as_json: bool) -> None:
    from jobrunner.cli.output import limit_fields, say, say_json, say_table

    found, after = await listed(session.queue.limits.list, **where)
    if as_json:
        say_json({"items": [limit_fields(one) for one in found], "next_cursor": after})
        return
    say_table(
        ("scope", "name", "concurrency", "rate", "burst", "max waiting", "set"),
        [
            (
                *(one.scope, one.name, one.concurrency, _rate_text(one)),
                None if one.rate_limit is None else one.rate_limit.burst,
                *(one.max_waiting, one.set_at),
            )
            for one in found
        ],
        empty="no limits yet",
    )
    if after is not None:
        say(f"more: --cursor {after}", err=True)


def _rate_text(limit: "LimitInfo") -> str | None:
    rate = limit.rate_limit
    return None if rate is None else f"{rate.limit}/{rate.per:g}s"


@limits.command("set")
@named
@with_location
@click.option("--concurrency", type=int, metavar="N", help="The most jobs that run at a time.")
@click.option(
    "--rate",
    "starts",
    type=rate,
    metavar="N/TIME",
    help="The most jobs that start in a time: 100/60s.",
)
@click.option(
    "--burst", type=int, metavar="N", help="The starts that --rate allows at once after a pause."
)
@click.option(
    "--max-waiting", type=int, metavar="N", help="The most jobs that are due and wait in a queue."
)
@with_reason
@as_json
def set_limit(
    location: Location,
    *,
    scope: "LimitScope",
    name: str,
    audit_reason: str | None,
    as_json: bool,
    **numbers: Any,
) -> None:
    """Set numbers that count instead of those in the code, until a reset.

    SCOPE is queue, task, lanes (each value of the task's by) or lane (one value, such as 'sync[42]'). For all but
    queues the application must be given. Numbers that are not given do not change; running jobs are not stopped.
    """
    from jobrunner.cli.session import run_in_session

    if numbers["burst"] is not None and numbers["starts"] is None:
        raise click.UsageError("--burst belongs to a rate: add --rate 100/60s")
    run_in_session(
        location,
        lambda session: _set(session, scope, name, numbers, reason=audit_reason, as_json=as_json),
    )


async def _set(
    session: "StoreSession",
    scope: "LimitScope",
    name: str,
    numbers: dict[str, Any],
    *,
    reason: str | None,
    as_json: bool,
) -> None:
    from jobrunner.cli.output import limit_fields, say_fields, say_json
    from jobrunner.queue.limits import made_rate, meant

    async with audited(session, "limits.set", target=f"{scope} {name}", reason=reason):
        rate = None
        if numbers["starts"] is not None:
            starts, per = numbers["starts"]
            burst = 1 if numbers["burst"] is None else numbers["burst"]
            rate = made_rate(starts, per, burst=burst)
        limit = await session.queue.limits.set(
            **meant(scope, name),
            concurrency=numbers["concurrency"],
            rate_limit=rate,
            max_waiting=numbers["max_waiting"],
        )
    fields = limit_fields(limit)
    if as_json:
        say_json(fields)
    else:
        say_fields(fields)


@limits.command("reset")
@named
@with_location
@with_reason
@as_json
def reset(
    location: Location, *, scope: "LimitScope", name: str, audit_reason: str | None, as_json: bool
) -> None:
    """Let the numbers in the code count again."""
    from jobrunner.cli.session import run_in_session

    run_in_session(
        location, lambda session: _reset(session, scope, name, reason=audit_reason, as_json=as_json)
    )


async def _reset(
    session: "StoreSession", scope: "LimitScope", name: str, *, reason: str | None, as_json: bool
) -> None:
    from jobrunner.cli.output import say, say_json
    from jobrunner.queue.limits import meant

    async with audited(session, "limits.reset", target=f"{scope} {name}", reason=reason) as act:
        was_set = await session.queue.limits.reset(**meant(scope, name))
        act.count = int(was_set)
    if as_json:
        say_json({"reset": was_set})
    else:
        text = "is reset" if was_set else "had no numbers set; nothing has changed"
        say(f"the limit of {scope} {name} {text}")
