"""``jobrunner status``: shows queues, workers, dead letters and problems."""

from typing import TYPE_CHECKING

import click

from jobrunner.cli.location import Location, as_json, with_location

if TYPE_CHECKING:
    from jobrunner.cli.session import StoreSession


@click.command()
@with_location
@as_json
def status(location: Location, *, as_json: bool) -> None:
    """Show queues, workers, dead letters and problems."""
    from jobrunner.cli.session import run_in_session

    run_in_session(location, lambda session: _status(session, as_json=as_json))


async def _status(session: "StoreSession", *, as_json: bool) -> None:
    from jobrunner.cli.output import say, say_json, say_queues, say_table

    queues = (await session.queue.queues.list()).items
    health = await session.queue.health()
    dead = await session.queue.dead_letters.count()
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
                "revision": one.revision,
                "running": one.running,
            }
            for one in health.workers
        ]
        say_json(
            {
                "store": session.location,
                "queues": queues,
                "workers": workers,
                "dead_letters": dead,
                "problems": health.problems,
            }
        )
        return
    say(f"store: {session.location}")
    say_queues(queues)
    say_table(
        ("pid", "host", "since", "last beat", "revision", "running", "queues"),
        [
            (
                w.pid,
                w.host,
                w.started_at,
                w.beat_at,
                w.revision,
                w.running,
                ", ".join(f"{n}={s}" for n, s in w.queues.items()),
            )
            for w in health.workers
        ],
        empty="no worker: nobody runs jobs",
    )
    say(f"dead letters: {dead}")
    for problem in health.problems:
        say(f"! {problem}")
