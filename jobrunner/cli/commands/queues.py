"""``jobrunner queues``: lists, pauses and resumes queues."""

from typing import TYPE_CHECKING

import click

from jobrunner.cli.audit import audited, with_reason
from jobrunner.cli.location import Location, as_json, with_location

if TYPE_CHECKING:
    from jobrunner.cli.session import StoreSession
    from jobrunner.core.audit import Action


@click.group()
def queues() -> None:
    """List, pause and resume queues."""


@queues.command("list")
@with_location
@as_json
def list_queues(location: Location, *, as_json: bool) -> None:
    """List the queues with their slots and numbers of jobs."""
    from jobrunner.cli.session import run_in_session

    run_in_session(location, lambda session: _list(session, as_json=as_json))


async def _list(session: "StoreSession", *, as_json: bool) -> None:
    from jobrunner.cli.output import say_json, say_queues

    found = (await session.queue.queues.list()).items
    if as_json:
        say_json({"items": found})
        return
    say_queues(found)


@queues.command("pause")
@click.argument("name")
@with_location
@with_reason
@as_json
def pause(location: Location, *, name: str, audit_reason: str | None, as_json: bool) -> None:
    """Pause a queue: no process starts its jobs; running jobs continue."""
    from jobrunner.cli.session import run_in_session

    run_in_session(
        location,
        lambda session: _set(session, name, paused=True, reason=audit_reason, as_json=as_json),
    )


@queues.command("resume")
@click.argument("name")
@with_location
@with_reason
@as_json
def resume(location: Location, *, name: str, audit_reason: str | None, as_json: bool) -> None:
    """Start the jobs of a paused queue again."""
    from jobrunner.cli.session import run_in_session

    run_in_session(
        location,
        lambda session: _set(session, name, paused=False, reason=audit_reason, as_json=as_json),
    )


async def _set(
    session: "StoreSession", name: str, *, paused: bool, reason: str | None, as_json: bool
) -> None:
    from jobrunner.cli.output import say, say_json
    from jobrunner.core.errors import UnknownQueue

    action: Action = "queues.pause" if paused else "queues.resume"
    async with audited(session, action, target=name, reason=reason):
        if name not in session.queues:
            known = ", ".join(sorted(session.queues)) or "none"
            raise UnknownQueue(
                f"nobody serves a queue {name!r}, and it holds no jobs (known: {known}); one that is declared but has"
                " not been used yet is known to its application: give --app"
            )
        if paused:
            await session.queue.queues.pause(name)
        else:
            await session.queue.queues.resume(name)
    if as_json:
        say_json({"name": name, "paused": paused})
    else:
        say(f"{name} is paused" if paused else f"{name} runs again")
