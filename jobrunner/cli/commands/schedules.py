"""``jobrunner schedules``: lists, shows, runs, pauses and resumes schedules."""

from typing import TYPE_CHECKING, Any

import click

from jobrunner.cli.audit import audited, with_reason
from jobrunner.cli.filters import listed, page
from jobrunner.cli.location import Location, as_json, with_location

if TYPE_CHECKING:
    from jobrunner.cli.session import StoreSession
    from jobrunner.core.audit import Action


@click.group()
def schedules() -> None:
    """List, show, run, pause and resume schedules."""


@schedules.command("list")
@with_location
@click.option("--task", metavar="NAME", help="Only schedules of this task.")
@page
@as_json
def list_schedules(location: Location, *, as_json: bool, **where: Any) -> None:
    """List the schedules with their next ticks, in the order of their ids."""
    from jobrunner.cli.session import run_in_session

    run_in_session(location, lambda session: _list(session, where, as_json=as_json))


async def _list(session: "StoreSession", where: dict[str, Any], *, as_json: bool) -> None:
    from jobrunner.cli.output import say, say_json, say_table, schedule_fields

    found, after = await listed(session.queue.schedules.list, **where)
    if as_json:
        items = [schedule_fields(one) for one in found]
        say_json({"items": items, "next_cursor": after})
        return
    say_table(
        ("id", "task", "ticks", "next", "last", "fired", "skipped", "state"),
        [
            (
                *(s.id, s.task, s.description, s.next_at, s.last_at, s.fired, s.skipped),
                "disabled" if s.disabled else "paused" if s.paused else "active",
            )
            for s in found
        ],
        empty="no schedules yet",
    )
    if after is not None:
        say(f"more: --cursor {after}", err=True)


@schedules.command("show")
@click.argument("id")
@with_location
@click.option(
    "--ticks",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    help="The most ticks to show.",
)
@as_json
def show(location: Location, *, id: str, ticks: int, as_json: bool) -> None:
    """Show a schedule with its arguments and its latest ticks, newest first."""
    from jobrunner.cli.session import run_in_session

    run_in_session(location, lambda session: _show(session, id, ticks, as_json=as_json))


async def _show(session: "StoreSession", id: str, number: int, *, as_json: bool) -> None:
    from jobrunner.cli.output import say_fields, say_json, say_table, schedule_fields

    schedule = session.redaction.shown(await session.queue.schedules.get(id))
    ticks = await session.queue.schedules.ticks(id, limit=number)
    fields = {**schedule_fields(schedule), "args": schedule.args}
    if as_json:
        say_json({**fields, "ticks": ticks})
        return
    say_fields(fields)
    click.echo()
    say_table(
        ("at", "until", "count", "outcome", "job"),
        [(one.at, one.until, one.count, one.outcome, one.job) for one in ticks],
        empty="no ticks yet",
    )


@schedules.command("run")
@click.argument("id")
@with_location
@with_reason
@as_json
def run(location: Location, *, id: str, audit_reason: str | None, as_json: bool) -> None:
    """Store a job of a schedule that is due now; needs --app.

    The ticks do not change, and a paused schedule stays paused.
    """
    from jobrunner.cli.session import run_in_session

    run_in_session(location, lambda session: _run(session, id, audit_reason, as_json=as_json))


async def _run(session: "StoreSession", id: str, reason: str | None, *, as_json: bool) -> None:
    from jobrunner.cli.output import job_fields, say, say_json
    from jobrunner.core.errors import ConfigurationError

    if session.tasks is None:
        raise ConfigurationError(
            "the options of the job are those of its task, so name its application: --app"
        )
    async with audited(session, "schedules.run_now", target=id, reason=reason) as act:
        async with session.enqueuing():
            job = await session.queue.schedules.run_now(id)
        act.count = 1 if job.created else 0
    if as_json:
        say_json({**job_fields(job), "created": job.created})
    else:
        say(f"stored {job.id}" if job.created else f"{job.id} has the key and is not finished")


@schedules.command("pause")
@click.argument("id")
@with_location
@with_reason
@as_json
def pause(location: Location, *, id: str, audit_reason: str | None, as_json: bool) -> None:
    """Pause a schedule: it makes no jobs; those that it has made continue."""
    from jobrunner.cli.session import run_in_session

    run_in_session(
        location,
        lambda session: _set(session, id, paused=True, reason=audit_reason, as_json=as_json),
    )


@schedules.command("resume")
@click.argument("id")
@with_location
@with_reason
@as_json
def resume(location: Location, *, id: str, audit_reason: str | None, as_json: bool) -> None:
    """Let a paused schedule make jobs again; the ticks during the pause make none."""
    from jobrunner.cli.session import run_in_session

    run_in_session(
        location,
        lambda session: _set(session, id, paused=False, reason=audit_reason, as_json=as_json),
    )


async def _set(
    session: "StoreSession", id: str, *, paused: bool, reason: str | None, as_json: bool
) -> None:
    from jobrunner.cli.output import say, say_json, schedule_fields

    action: Action = "schedules.pause" if paused else "schedules.resume"
    change = session.queue.schedules.pause if paused else session.queue.schedules.resume
    async with audited(session, action, target=id, reason=reason):
        schedule = await change(id)
    if as_json:
        say_json(schedule_fields(schedule))
    else:
        say(f"{id} is paused" if paused else f"{id} makes jobs again")
