"""``jobrunner batches``: lists, shows, retries and cancels batches."""

from typing import TYPE_CHECKING, Any

import click

from jobrunner.cli import exit_codes
from jobrunner.cli.audit import audited, with_reason
from jobrunner.cli.filters import BATCH_STATES, listed, page
from jobrunner.cli.location import Location, as_json, with_location

if TYPE_CHECKING:
    from jobrunner.cli.session import StoreSession


@click.group()
def batches() -> None:
    """List, show, retry and cancel batches."""


@batches.command("list")
@with_location
@click.option("--state", type=click.Choice(BATCH_STATES), help="Only batches in this state.")
@click.option("--name", help="Only batches with this name.")
@page
@as_json
def list_batches(location: Location, *, as_json: bool, **where: Any) -> None:
    """List batches with the numbers of their members, newest first."""
    from jobrunner.cli.session import run_in_session

    run_in_session(location, lambda session: _list(session, where, as_json=as_json))


async def _list(session: "StoreSession", where: dict[str, Any], *, as_json: bool) -> None:
    from jobrunner.cli.output import batch_fields, say, say_json, say_table

    found, after = await listed(session.queue.batches.list, **where)
    if as_json:
        items = [batch_fields(batch) for batch in found]
        say_json({"items": items, "next_cursor": after, "complete": True})
        return
    say_table(
        ("id", "name", "state", "total", "succeeded", "dead", "cancelled", "running", "waiting"),
        [
            (
                *(b.id, b.name, b.state, b.total),
                *(b.succeeded, b.dead, b.cancelled, b.running, b.waiting),
            )
            for b in found
        ],
        empty="no batches match",
    )
    if after is not None:
        say(f"more: --cursor {after}", err=True)


@batches.command("show")
@click.argument("id")
@with_location
@as_json
def show(location: Location, *, id: str, as_json: bool) -> None:
    """Show a batch with its callbacks; `jobs list --batch ID` lists its members."""
    from jobrunner.cli.session import run_in_session

    run_in_session(location, lambda session: _show(session, id, as_json=as_json))


async def _show(session: "StoreSession", id: str, *, as_json: bool) -> None:
    from jobrunner.cli.output import batch_fields, job_fields, say_fields, say_json

    batch = await session.queue.batches.get(id)
    callbacks = {"then": batch.then, "otherwise": batch.otherwise, "at_end": batch.at_end}
    if as_json:
        jobs = {name: None if job is None else job_fields(job) for name, job in callbacks.items()}
        say_json({**batch_fields(batch), **jobs})
        return
    shown = {
        name: None if job is None else f"{job.task} {job.id} ({job.state})"
        for name, job in callbacks.items()
    }
    say_fields({**batch_fields(batch), **shown})


@batches.command("retry")
@click.argument("id")
@with_location
@with_reason
@as_json
def retry(location: Location, *, id: str, audit_reason: str | None, as_json: bool) -> None:
    """Replay the dead letters of a batch; it is running again.

    Jobs that were cancelled because a dead one was needed wait again.
    """
    from jobrunner.cli.session import run_in_session

    run_in_session(location, lambda session: _retry(session, id, audit_reason, as_json=as_json))


async def _retry(session: "StoreSession", id: str, reason: str | None, *, as_json: bool) -> None:
    from jobrunner.cli.output import say, say_json

    async with audited(session, "batches.retry", target=id, reason=reason) as act:
        counts = await session.queue.batches.retry(id)
        act.count = counts.replayed
    if as_json:
        say_json(
            {
                "replayed": counts.replayed,
                "conflicts": counts.conflicts,
                "invalid": counts.invalid,
            }
        )
        return
    say(f"{counts.replayed:,} replayed")
    if counts.conflicts:
        say(f"{counts.conflicts:,} stay: their key is taken", err=True)
    if counts.invalid:
        say(f"{counts.invalid:,} stay: their arguments do not fit the task", err=True)


@batches.command("cancel")
@click.argument("id")
@with_location
@click.option(
    "--yes",
    is_flag=True,
    help="Do not ask for confirmation; required without a terminal.",
)
@with_reason
@as_json
def cancel(
    location: Location, *, id: str, yes: bool, audit_reason: str | None, as_json: bool
) -> None:
    """Cancel a batch: waiting members will not run, running ones are asked to stop.

    The command stores the request; a worker then cancels the members in parts.
    """
    from jobrunner.cli.session import run_in_session

    run_in_session(
        location, lambda session: _cancel(session, id, audit_reason, yes=yes, as_json=as_json)
    )


async def _cancel(
    session: "StoreSession", id: str, reason: str | None, *, yes: bool, as_json: bool
) -> None:
    from jobrunner.cli.output import ask, say, say_json

    batch = await session.queue.batches.get(id)
    unfinished = batch.waiting + batch.running
    # It cannot be undone, so it always needs --yes or an answer.
    if unfinished and not batch.cancel_requested and not yes:
        ask(f"cancel {batch.waiting:,} waiting and {batch.running:,} running member(s)?")
    async with audited(session, "batches.cancel", target=id, reason=reason) as act:
        cancelled = await session.queue.batches.cancel(id)
        act.count = 1 if cancelled else 0
    if as_json:
        say_json({"id": id, "cancelled": cancelled})
    elif cancelled:
        say(f"{unfinished:,} member(s) are being cancelled")
    if not cancelled:
        if not as_json:
            why = "was cancelled before" if batch.cancel_requested else f"has ended ({batch.state})"
            say(f"nothing to cancel: the batch {why}", err=True)
        raise click.exceptions.Exit(exit_codes.CONFLICT)
