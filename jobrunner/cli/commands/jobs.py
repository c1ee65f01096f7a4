"""``jobrunner jobs``: lists, shows and cancels jobs."""

from typing import TYPE_CHECKING, Any

import click

from jobrunner.cli import exit_codes
from jobrunner.cli.audit import audited, with_reason
from jobrunner.cli.filters import STATES, listed, page, which
from jobrunner.cli.location import Location, as_json, with_location

if TYPE_CHECKING:
    from jobrunner.cli.session import StoreSession


@click.group()
def jobs() -> None:
    """List, show and cancel jobs."""


@jobs.command("list")
@with_location
@which(verb="created")
@click.option("--state", type=click.Choice(STATES), help="Only jobs in this state.")
@click.option("--key", help="Only jobs with this key.")
@page
@as_json
def list_jobs(location: Location, *, as_json: bool, **where: Any) -> None:
    """List jobs, newest first.

    Dead jobs are listed only with `--state dead`, most recent death first.
    """
    from jobrunner.cli.session import run_in_session

    run_in_session(location, lambda session: _list(session, where, as_json=as_json))


async def _list(session: "StoreSession", where: dict[str, Any], *, as_json: bool) -> None:
    from jobrunner.cli.output import job_fields, say, say_json, say_table

    found, after = await listed(session.queue.list, **where)
    if as_json:
        items = [job_fields(job) for job in found]
        say_json({"items": items, "next_cursor": after, "complete": True})
        return
    say_table(
        ("id", "task", "queue", "state", "attempt", "due", "key", "tag", "after"),
        [
            (j.id, j.task, j.queue, j.state, j.attempt, j.run_at, j.key, j.tag, j.after)
            for j in found
        ],
        empty="no jobs match",
    )
    if after is not None:
        say(f"more: --cursor {after}", err=True)


@jobs.command("show")
@click.argument("id")
@with_location
@click.option("--args", "payload", is_flag=True, help="Also show the arguments and the result.")
@as_json
def show(location: Location, *, id: str, payload: bool, as_json: bool) -> None:
    """Show a job and its attempts."""
    from jobrunner.cli.session import run_in_session

    run_in_session(location, lambda session: _show(session, id, payload=payload, as_json=as_json))


async def _show(session: "StoreSession", id: str, *, payload: bool, as_json: bool) -> None:
    from jobrunner.cli.output import (
        attempt_fields,
        job_fields,
        payload_fields,
        say_fields,
        say_json,
    )

    job = await session.queue.get(id)
    fields = job_fields(job)
    if payload:
        fields |= payload_fields(session.redaction.shown(await session.queue.payload(id)))
    if as_json:
        say_json({**fields, "history": attempt_fields(job.history)})
        return
    say_fields(fields)
    for one in job.history:
        click.echo()
        say_fields(
            {
                f"attempt {one.attempt}": one.outcome or "running",
                "started": one.started_at,
                "finished": one.finished_at,
                "error": None if one.error_type is None else f"{one.error_type}: {one.error}",
                "traceback": one.traceback,
            }
        )


@jobs.command("cancel")
@click.argument("id")
@with_location
@with_reason
@as_json
def cancel(location: Location, *, id: str, audit_reason: str | None, as_json: bool) -> None:
    """Cancel a waiting job, or ask a running one to stop.

    The jobs after it in its chain are cancelled too.
    """
    from jobrunner.cli.session import run_in_session

    run_in_session(
        location, lambda session: _cancel(session, id, reason=audit_reason, as_json=as_json)
    )


async def _cancel(session: "StoreSession", id: str, *, reason: str | None, as_json: bool) -> None:
    from jobrunner.cli.output import say, say_json

    async with audited(session, "cancel", target=id, reason=reason) as act:
        status = await session.queue.cancel(id)
        act.count = 0 if status is None else 1
    state = (await session.queue.get(id)).state
    if as_json:
        say_json({"id": id, "status": status, "state": state})
    elif status is not None:
        click.echo("it was asked to stop" if status == "requested" else "cancelled")
    if status is None:
        if not as_json:
            say(f"nothing to cancel: the job has ended ({state})", err=True)
        raise click.exceptions.Exit(exit_codes.CONFLICT)
