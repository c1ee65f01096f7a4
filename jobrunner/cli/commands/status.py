"""``jobrunner status``: how the queues and workers stand."""

from typing import TYPE_CHECKING

import click

from jobrunner.cli.location import Place, as_json, at_place

if TYPE_CHECKING:
    from jobrunner.cli.session import Desk


@click.command()
@at_place
@as_json
def status(place: Place, *, as_json: bool) -> None:
    """Show queues, workers, dead letters, and what needs a look."""
    from jobrunner.cli.session import at_desk

    at_desk(place, lambda desk: _status(desk, as_json=as_json))


async def _status(desk: "Desk", *, as_json: bool) -> None:
    from jobrunner.cli.output import say, say_json, say_queues, say_table

    queues = await desk.queue.queues()
    health = await desk.queue.health()
    dead = await desk.queue.dead_letters.count()
    if as_json:
        workers = [
            {
                "id": str(one.id),
                "pid": one.pid,
                "host": one.host,
                "started_at": one.started_at,
                "beat_at": one.beat_at,
                "stalled": one.stalled,
                "queues": one.queues,
            }
            for one in health.workers
        ]
        say_json(
            {
                "store": desk.store.path,
                "queues": queues,
                "workers": workers,
                "dead_letters": dead,
                "problems": health.problems,
            }
        )
        return
    say(f"store: {desk.store.path}")
    say_queues(queues)
    say_table(
        ("pid", "host", "since", "last beat", "queues"),
        [
            (
                w.pid,
                w.host,
                w.started_at,
                w.beat_at,
                ", ".join(f"{n}={s}" for n, s in w.queues.items()),
            )
            for w in health.workers
        ],
        empty="no worker: nobody runs jobs",
    )
    say(f"dead letters: {dead}")
    for problem in health.problems:
        say(f"! {problem}")
