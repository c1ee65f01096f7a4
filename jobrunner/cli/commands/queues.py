"""``jobrunner queues``: list, pause, resume."""

from typing import TYPE_CHECKING

import click

from jobrunner.cli.location import Place, as_json, at_place

if TYPE_CHECKING:
    from jobrunner.cli.session import Desk


@click.group()
def queues() -> None:
    """List, pause and resume queues."""


@queues.command("list")
@at_place
@as_json
def list_queues(place: Place, *, as_json: bool) -> None:
    """List the queues: what waits, what runs, what is paused."""
    from jobrunner.cli.session import at_desk

    at_desk(place, lambda desk: _list(desk, as_json=as_json))


async def _list(desk: "Desk", *, as_json: bool) -> None:
    from jobrunner.cli.output import say_json, say_queues

    found = await desk.queue.queues()
    if as_json:
        say_json({"items": found})
        return
    say_queues(found)


@queues.command("pause")
@click.argument("name")
@at_place
@as_json
def pause(place: Place, *, name: str, as_json: bool) -> None:
    """Start no more jobs of a queue, in any process; running ones go on."""
    from jobrunner.cli.session import at_desk

    at_desk(place, lambda desk: _set(desk, name, paused=True, as_json=as_json))


@queues.command("resume")
@click.argument("name")
@at_place
@as_json
def resume(place: Place, *, name: str, as_json: bool) -> None:
    """Start the jobs of a paused queue again."""
    from jobrunner.cli.session import at_desk

    at_desk(place, lambda desk: _set(desk, name, paused=False, as_json=as_json))


async def _set(desk: "Desk", name: str, *, paused: bool, as_json: bool) -> None:
    from jobrunner.cli.output import say, say_json
    from jobrunner.core.errors import UnknownQueue

    if name not in desk.queues:
        known = ", ".join(sorted(desk.queues)) or "none"
        raise UnknownQueue(
            f"nobody serves a queue {name!r}, and it holds no jobs (known: {known}); one that is declared but has not"
            " been used yet is known to its application: give --app"
        )
    if paused:
        await desk.queue.pause(name)
    else:
        await desk.queue.resume(name)
    if as_json:
        say_json({"name": name, "paused": paused})
    else:
        say(f"{name} is paused" if paused else f"{name} runs again")
