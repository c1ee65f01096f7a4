"""``jobrunner jobs``: lists, shows, cancels and reschedules jobs."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from jobrunner.cli import exit_codes
from jobrunner.cli.audit import audited, with_reason
from jobrunner.cli.filters import (
    STATES,
    UNFINISHED,
    check_which,
    duration,
    listed,
    many,
    moment,
    page,
    which,
)
from jobrunner.cli.location import Location, as_json, with_location

if TYPE_CHECKING:
    from jobrunner.cli.session import StoreSession
    from jobrunner.core.counts import CancelCounts


@click.group()
def jobs() -> None:
    """List, show, cancel and reschedule jobs."""


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
@click.argument("id", required=False)
@with_location
@which(verb="created")
@click.option("--state", type=click.Choice(UNFINISHED), help="Only jobs in this state.")
@click.option("--key", help="Only jobs with this key.")
@many(what="unfinished jobs", verb="cancel")
@with_reason
@as_json
def cancel(
    location: Location,
    *,
    id: str | None,
    every: bool,
    dry_run: bool,
    yes: bool,
    audit_reason: str | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Cancel one job (by ID) or all unfinished jobs that match a filter.

    A waiting job is cancelled at once, a running one is asked to stop. The jobs after them in their chains are
    cancelled too.
    """
    from jobrunner.cli.session import run_in_session

    check_which(
        id, where, every=every, filters="--task, --queue, --state, --tag, --key, --since, --until"
    )
    if id is not None:
        only = id
        if dry_run:
            raise click.UsageError("--dry-run is for many jobs; `jobrunner jobs show` shows one")
        run_in_session(
            location, lambda session: _cancel(session, only, reason=audit_reason, as_json=as_json)
        )
    else:
        run_in_session(
            location,
            lambda session: _cancel_many(
                session, where, dry_run=dry_run, yes=yes, reason=audit_reason, as_json=as_json
            ),
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


async def _cancel_many(
    session: "StoreSession",
    where: dict[str, Any],
    *,
    dry_run: bool,
    yes: bool,
    reason: str | None,
    as_json: bool,
) -> None:
    from jobrunner.cli.output import ask, say, say_json
    from jobrunner.cli.progress import Progress

    plan = await session.queue.cancel_all(**where, dry_run=True)
    if dry_run:
        if as_json:
            say_json({"would": "cancel", "cancelled": plan.cancelled, "requested": plan.requested})
        else:
            say(f"would cancel {_in_words(plan)}")
        return
    count = plan.cancelled + plan.requested
    # It cannot be undone, so it always needs --yes or an answer.
    if count and not yes:
        ask(f"cancel {_in_words(plan)}?")
    with Progress("cancel") as progress:
        async with audited(session, "cancel_all", filter=where, reason=reason) as act:
            done = await session.queue.cancel_all(
                **where, on_slice=lambda number: progress.advance(number, count)
            )
            act.count = done.cancelled + done.requested
    if as_json:
        say_json({"cancelled": done.cancelled, "requested": done.requested})
        return
    say(f"{done.cancelled:,} cancelled")
    if done.requested:
        say(f"{done.requested:,} asked to stop")


def _in_words(counts: "CancelCounts") -> str:
    return f"{counts.cancelled:,} waiting and {counts.requested:,} running job(s)"


@jobs.command("reschedule")
@click.argument("id")
@with_location
@click.option(
    "--at", type=moment, metavar="TIME", help="The new time, in ISO 8601; the past means now."
)
@click.option(
    "--in",
    "delay",
    type=duration,
    metavar="DURATION",
    help="The time from now, such as 90s, 30m, 24h or 7d; 0s means now.",
)
@with_reason
@as_json
def reschedule(
    location: Location,
    *,
    id: str,
    at: datetime | None,
    delay: timedelta | None,
    audit_reason: str | None,
    as_json: bool,
) -> None:
    """Make a waiting job due at another time; it may also wait for a retry."""
    from jobrunner.cli.session import run_in_session

    if (at is None) == (delay is None):
        raise click.UsageError("say when: either --at TIME or --in DURATION")
    run_in_session(
        location,
        lambda session: _reschedule(session, id, at, delay, reason=audit_reason, as_json=as_json),
    )


async def _reschedule(
    session: "StoreSession",
    id: str,
    at: datetime | None,
    delay: timedelta | None,
    *,
    reason: str | None,
    as_json: bool,
) -> None:
    from jobrunner.cli.output import job_fields, say, say_json

    async with audited(session, "reschedule", target=id, reason=reason):
        job = await session.queue.reschedule(id, delay, run_at=at)
    if as_json:
        say_json(job_fields(job))
    else:
        say(f"{job.state}, due at {job.run_at.isoformat()}")
