"""``jobrunner jobs``: lists, shows, signals, cancels and reschedules jobs."""

import json
from collections.abc import Coroutine
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from jobrunner.cli import exit_codes
from jobrunner.cli.audit import audited, with_reason
from jobrunner.cli.filters import (
    LIST_STATES,
    UNFINISHED,
    WAITING,
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
    from jobrunner.core.counts import CancelCounts, RescheduleCounts

_FILTERS: Final = "--task, --queue, --state, --tag, --key, --since, --until"


@click.group()
def jobs() -> None:
    """List, show, signal, cancel and reschedule jobs."""


@jobs.command("list")
@with_location
@which(verb="created")
@click.option("--state", type=click.Choice(LIST_STATES), help="Only jobs in this state.")
@click.option("--key", help="Only jobs with this key.")
@click.option("--batch", metavar="ID", help="Only members of this batch.")
@page
@as_json
def list_jobs(location: Location, *, as_json: bool, **where: Any) -> None:
    """List jobs, newest first.

    Dead jobs are listed only with `--state dead`, most recent death first. `--state retrying` lists the scheduled
    jobs that wait for another attempt.
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
        ("id", "task", "queue", "state", "attempt", "due", "key", "tag", "after", "waits"),
        [
            (*(j.id, j.task, j.queue, j.state, j.attempt, j.run_at), j.key, j.tag, j.after, j.waits)
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
        say_table,
        step_fields,
    )

    job = await session.queue.get(id)
    fields = job_fields(job)
    if payload:
        fields |= payload_fields(session.redaction.shown(await session.queue.payload(id)))
    if as_json:
        history, steps = attempt_fields(job.history), step_fields(job.steps)
        say_json({**fields, "history": history, "steps": steps})
        return
    say_fields(fields)
    if job.steps:
        click.echo()
        say_table(
            ("kind", "step", "stored"),
            [
                (f"{one.kind}{' (timed out)' if one.timed_out else ''}", one.name, one.at)
                for one in job.steps
            ],
            empty="",
        )
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


@jobs.command("signal")
@click.argument("id")
@click.argument("name")
@with_location
@click.option(
    "--value",
    "text",
    metavar="JSON",
    default="null",
    help="The value, as JSON; the task reads it. Default: null.",
)
@with_reason
@as_json
def signal(
    location: Location, *, id: str, name: str, text: str, audit_reason: str | None, as_json: bool
) -> None:
    """Send a signal to a job, for which it waits now or later.

    The first signal of a name counts.
    """
    from jobrunner.cli.session import run_in_session

    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"--value is not JSON: {error}") from error
    run_in_session(
        location,
        lambda session: _signal(session, id, name, value, reason=audit_reason, as_json=as_json),
    )


async def _signal(
    session: "StoreSession", id: str, name: str, value: object, *, reason: str | None, as_json: bool
) -> None:
    from jobrunner.cli.output import say, say_json

    async with audited(session, "signal", target=id, reason=reason) as act:
        is_kept = await session.queue.signal(id, name, value)
        act.count = 1 if is_kept else 0
    if as_json:
        say_json({"id": id, "name": name, "kept": is_kept})
    elif is_kept:
        say("sent")
    if not is_kept:
        if not as_json:
            say("not sent: the job has this signal already, or its wait has timed out", err=True)
        raise click.exceptions.Exit(exit_codes.CONFLICT)


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

    check_which(id, where, every=every, filters=_FILTERS)
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
@click.argument("id", required=False)
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
@which(verb="created")
@click.option("--state", type=click.Choice(WAITING), help="Only jobs in this state.")
@click.option("--key", help="Only jobs with this key.")
@many(what="waiting jobs", verb="reschedule")
@with_reason
@as_json
def reschedule(
    location: Location,
    *,
    id: str | None,
    at: datetime | None,
    delay: timedelta | None,
    every: bool,
    dry_run: bool,
    yes: bool,
    audit_reason: str | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Move a waiting job (by ID), or all that match, to another time.

    They may also wait for a retry, but not be asleep or wait for a signal. `--in 0s --state retrying` makes retries due
    now.
    """
    from jobrunner.cli.session import run_in_session

    check_which(id, where, every=every, filters=_FILTERS)
    if (at is None) == (delay is None):
        raise click.UsageError("say when: either --at TIME or --in DURATION")
    if id is not None and dry_run:
        raise click.UsageError("--dry-run is for many jobs; `jobrunner jobs show` shows one")
    due = _Due(delay, at)

    def change(session: "StoreSession") -> Coroutine[Any, Any, None]:
        if id is not None:
            return _reschedule(session, id, due, reason=audit_reason, as_json=as_json)
        return _reschedule_many(
            session,
            where,
            due,
            dry_run=dry_run,
            yes=yes,
            reason=audit_reason,
            as_json=as_json,
        )

    run_in_session(location, change)


class _Due(NamedTuple):
    """The new time; one of the two is None."""

    delay: timedelta | None
    at: datetime | None


async def _reschedule(
    session: "StoreSession", id: str, due: _Due, *, reason: str | None, as_json: bool
) -> None:
    from jobrunner.cli.output import job_fields, say, say_json

    async with audited(session, "reschedule", target=id, reason=reason):
        job = await session.queue.reschedule(id, due.delay, run_at=due.at)
    if as_json:
        say_json(job_fields(job))
    else:
        say(f"{job.state}, due at {job.run_at.isoformat()}")


async def _reschedule_many(
    session: "StoreSession",
    where: dict[str, Any],
    due: _Due,
    *,
    dry_run: bool,
    yes: bool,
    reason: str | None,
    as_json: bool,
) -> None:
    from jobrunner.cli.output import ask, say, say_json
    from jobrunner.cli.progress import Progress

    change = partial(session.queue.reschedule_all, due.delay, run_at=due.at, **where)
    plan = await change(dry_run=True)
    if dry_run:
        if as_json:
            say_json({"would": "reschedule", **asdict(plan)})
        else:
            say(f"would reschedule {plan.rescheduled:,} job(s){_but(plan)}")
        return
    if plan.rescheduled and not yes:
        ask(f"reschedule {plan.rescheduled:,} job(s)?")
    with Progress("reschedule") as progress:
        async with audited(session, "reschedule_all", filter=where, reason=reason) as act:
            done = await change(on_slice=lambda number: progress.advance(number, plan.rescheduled))
            act.count = done.rescheduled
    if as_json:
        say_json(asdict(done))
    else:
        say(f"{done.rescheduled:,} rescheduled{_but(done)}")


def _but(counts: "RescheduleCounts") -> str:
    return f"; {counts.expiring:,} would expire before" if counts.expiring else ""
