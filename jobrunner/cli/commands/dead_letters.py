"""``jobrunner dead``: lists, groups, shows, replays and deletes dead letters."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from jobrunner.cli.audit import audited, with_reason
from jobrunner.cli.filters import REASONS, check_which, listed, many, page, which
from jobrunner.cli.location import Location, as_json, with_location

if TYPE_CHECKING:
    from jobrunner.cli.session import StoreSession
    from jobrunner.core.audit import Action
    from jobrunner.core.counts import ReplayCounts


_FILTERS: Final = "--task, --queue, --reason, --group, --batch, --tag, --since, --until"


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the filter options of dead letters to a command."""
    command = click.option("--batch", metavar="ID", help="Only members of this batch.")(command)
    command = click.option(
        "--group",
        metavar="FINGERPRINT",
        help="Only dead letters of this group; see `jobrunner dead groups`.",
    )(command)
    command = click.option(
        "--reason", type=click.Choice(REASONS), help="Only dead letters with this reason."
    )(command)
    return which(verb="that died")(command)


@click.group()
def dead() -> None:
    """List, group, show, replay and delete dead letters."""


@dead.command("list")
@with_location
@_filters
@page
@as_json
def list_letters(location: Location, *, as_json: bool, **where: Any) -> None:
    """List dead letters, most recent death first."""
    from jobrunner.cli.session import run_in_session

    run_in_session(location, lambda session: _list(session, where, as_json=as_json))


async def _list(session: "StoreSession", where: dict[str, Any], *, as_json: bool) -> None:
    from jobrunner.cli.output import letter_fields, say, say_json, say_table

    found, after = await listed(session.queue.dead_letters.list, **where)
    if as_json:
        items = [letter_fields(session.redaction.shown(letter)) for letter in found]
        say_json({"items": items, "next_cursor": after, "complete": True})
        return
    say_table(
        ("id", "task", "reason", "attempt", "died", "error"),
        [
            (
                one.id,
                one.task,
                one.reason,
                one.attempt,
                one.died_at,
                _in_a_line(one.error_type, one.error),
            )
            for one in found
        ],
        empty="no dead letters match",
    )
    if after is not None:
        say(f"more: --cursor {after}", err=True)


def _in_a_line(kind: str | None, error: str | None) -> str:
    text = f"{kind or ''}: {error or ''}".strip(": ")
    return text if len(text) <= 80 else f"{text[:79]}…"  # noqa: PLR2004 - a terminal's line


@dead.command("groups")
@with_location
@as_json
def groups(location: Location, *, as_json: bool) -> None:
    """List groups of dead letters that failed in the same way.

    The group with the most recent death comes first.
    """
    from jobrunner.cli.session import run_in_session

    run_in_session(location, lambda session: _groups(session, as_json=as_json))


async def _groups(session: "StoreSession", *, as_json: bool) -> None:
    from jobrunner.cli.output import say, say_json, say_table

    found = await session.queue.dead_letters.groups()
    if as_json:
        say_json(found)
        return
    say_table(
        ("group", "task", "count", "last 24 h", "retrying", "first died", "last died", "error"),
        [
            (
                one.fingerprint,
                one.task,
                one.count,
                sum(one.deaths_per_hour),
                one.retrying,
                one.first_died_at,
                one.last_died_at,
                _in_a_line(one.error_type, one.error),
            )
            for one in found.items
        ],
        empty="no dead letters",
    )
    if found.ungrouped:
        say(
            f"{found.ungrouped:,} dead letter(s) of an older version: a worker groups them",
            err=True,
        )
    if not found.complete:
        say("there are more: groups are missing, or counts are too low", err=True)


@dead.command("show")
@click.argument("id")
@with_location
@as_json
def show(location: Location, *, id: str, as_json: bool) -> None:
    """Show a dead letter with its arguments, its attempts and the traceback."""
    from jobrunner.cli.session import run_in_session

    run_in_session(location, lambda session: _show(session, id, as_json=as_json))


async def _show(session: "StoreSession", id: str, *, as_json: bool) -> None:
    import dataclasses

    from jobrunner.cli.output import attempt_fields, say, say_fields, say_json

    letter = session.redaction.shown(await session.queue.dead_letters.get(id))
    fields = {field.name: getattr(letter, field.name) for field in dataclasses.fields(letter)}
    history = attempt_fields(letter.history)
    if as_json:
        say_json({**fields, "history": history})
        return
    say_fields({name: value for name, value in fields.items() if name != "history"})
    for one in letter.history:
        click.echo()
        say(f"attempt {one.attempt}: {one.outcome}, {one.error_type}: {one.error}")


# -- replay and delete ---------------------------------------------------------------------------------


def _many(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of commands that change dead letters."""
    return _filters(many(what="dead letters", verb="delete")(with_reason(command)))


@dead.command("replay")
@click.argument("id", required=False)
@with_location
@_many
@click.option(
    "--args",
    "edited",
    metavar="JSON",
    help="With an ID: new values for arguments, by name; the others keep their values. Needs --app.",
)
@click.option(
    "--forget",
    multiple=True,
    metavar="NAME",
    help="With an ID: a step or a signal that the job forgets, so that it does it again; may be repeated.",
)
@click.option(
    "--per-minute",
    type=click.IntRange(min=1),
    metavar="N",
    help="With a filter: only N of the jobs become due per minute; by default all are due at once.",
)
@as_json
def replay(
    location: Location,
    *,
    id: str | None,
    every: bool,
    dry_run: bool,
    yes: bool,
    edited: str | None,
    forget: tuple[str, ...],
    per_minute: int | None,
    audit_reason: str | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Replay one dead letter (by ID) or all that match a filter."""
    from jobrunner.cli.session import run_in_session

    check_which(id, where, every=every, filters=_FILTERS)
    if per_minute is not None and id is not None:
        raise click.UsageError("--per-minute is for many dead letters; give a filter")
    if edited is not None and id is None:
        raise click.UsageError("--args is for one dead letter; give its id")
    if forget and (id is None or edited is not None):
        raise click.UsageError(
            "--forget is for one dead letter with its own arguments; give its id, and no --args"
        )
    changes = None if edited is None else _object(edited)
    if id is not None:
        only = id
        run_in_session(
            location,
            lambda session: _replay_one(
                session,
                only,
                changes,
                forget=forget,
                dry_run=dry_run,
                reason=audit_reason,
                as_json=as_json,
            ),
        )
    else:
        run_in_session(
            location,
            lambda session: _replay_many(
                session,
                where,
                per_minute=per_minute,
                dry_run=dry_run,
                yes=yes,
                reason=audit_reason,
                as_json=as_json,
            ),
        )


@dead.command("delete")
@click.argument("id", required=False)
@with_location
@_many
@as_json
def delete(
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
    """Delete one dead letter (by ID) or all that match a filter.

    The attempts of a deleted dead letter are deleted too.
    """
    from jobrunner.cli.session import run_in_session

    check_which(id, where, every=every, filters=_FILTERS)
    if id is not None:
        only = id
        run_in_session(
            location,
            lambda session: _delete_one(
                session, only, dry_run=dry_run, reason=audit_reason, as_json=as_json
            ),
        )
    else:
        run_in_session(
            location,
            lambda session: _delete_many(
                session, where, dry_run=dry_run, yes=yes, reason=audit_reason, as_json=as_json
            ),
        )


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"--args is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise click.UsageError('--args takes an object, as in {"order_id": 7}')
    return value


async def _replay_one(
    session: "StoreSession",
    id: str,
    changes: dict[str, Any] | None,
    *,
    forget: tuple[str, ...],
    dry_run: bool,
    reason: str | None,
    as_json: bool,
) -> None:
    from jobrunner.cli.output import say, say_json
    from jobrunner.core.errors import ConfigurationError

    letters = session.queue.dead_letters
    if dry_run:
        await letters.get(id)
        _say_count(1, "replay", as_json=as_json)
        return
    if changes is not None and session.tasks is None:
        raise ConfigurationError(
            "--args are checked against the task, so name its application: --app"
        )
    action: Action = "dead_letters.replay" if changes is None else "dead_letters.replay_edited"
    async with audited(session, action, target=id, reason=reason):
        letter = await letters.get(id)
        if changes is not None:
            changes = session.redaction.restored(changes, letter.args)
        stored_id = (await letters.replay(id, args=changes, forget=forget)).id
    if session.tasks is None:
        await _warn_if_unknown(session, letter.task)
    if as_json:
        say_json({"id": stored_id, "replayed": 1})
    else:
        say(f"replayed as {stored_id}")


async def _warn_if_unknown(session: "StoreSession", task: str) -> None:
    from jobrunner.cli.output import say

    workers = await session.store.workers.list()
    if workers and not any(task in worker.tasks for worker in workers):
        say(f"but no worker that runs now knows the task {task}", err=True)


async def _delete_one(
    session: "StoreSession", id: str, *, dry_run: bool, reason: str | None, as_json: bool
) -> None:
    from jobrunner.cli.output import say_json

    letters = session.queue.dead_letters
    if dry_run:
        await letters.get(id)
        _say_count(1, "delete", as_json=as_json)
        return
    async with audited(session, "dead_letters.delete", target=id, reason=reason):
        await letters.delete(id)
    if as_json:
        say_json({"id": id, "deleted": 1})
    else:
        click.echo("deleted")


async def _replay_many(
    session: "StoreSession",
    where: dict[str, Any],
    *,
    per_minute: int | None,
    dry_run: bool,
    yes: bool,
    reason: str | None,
    as_json: bool,
) -> None:
    from jobrunner.cli.output import ask, is_terminal, say, say_json
    from jobrunner.cli.progress import Progress

    letters = session.queue.dead_letters
    if dry_run:
        plan = await letters.replay_all(**where, per_minute=per_minute, dry_run=True)
        _say_plan(plan, as_json=as_json)
        return
    count = await letters.count(**where)
    # A script may replay without --yes.
    if count and not yes and is_terminal(sys.stdin):
        ask(f"replay {count:,} dead letter(s)?")
    with Progress("replay") as progress:
        async with audited(session, "dead_letters.replay_all", filter=where, reason=reason) as act:
            done = await letters.replay_all(
                **where,
                per_minute=per_minute,
                on_slice=lambda number: progress.advance(number, count),
            )
            act.count = done.replayed
    left = max(count - done.replayed, 0)
    if as_json:
        say_json({**asdict(done), "left": left})
        return
    say(f"{done.replayed:,} replayed")
    if left:
        say(
            f"{left:,} were not replayed: an unfinished job holds their key, their arguments do not fit their task"
            f" ({done.invalid:,}), or it is unknown",
            err=True,
        )


async def _delete_many(
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

    letters = session.queue.dead_letters
    count = await letters.count(**where)
    if dry_run:
        _say_count(count, "delete", as_json=as_json)
        return
    # It cannot be undone, so it always needs --yes or an answer.
    if count and not yes:
        ask(f"delete {count:,} dead letter(s)?")
    with Progress("delete") as progress:
        async with audited(session, "dead_letters.delete_all", filter=where, reason=reason) as act:
            act.count = done = await letters.delete_all(
                **where, on_slice=lambda number: progress.advance(number, count)
            )
    if as_json:
        say_json({"deleted": done, "left": max(count - done, 0)})
    else:
        say(f"{done:,} deleted")


def _say_count(count: int, verb: str, *, as_json: bool, **more: int) -> None:
    from jobrunner.cli.output import say, say_json

    if as_json:
        say_json({"would": verb, "count": count, **more})
    else:
        say(f"would {verb} {count:,} dead letter(s)")


def _say_plan(plan: "ReplayCounts", *, as_json: bool) -> None:
    from jobrunner.cli.output import say

    more = {name: count for name, count in asdict(plan).items() if name != "replayed"}
    _say_count(plan.replayed, "replay", as_json=as_json, **more)
    if as_json:
        return
    if plan.conflicts:
        say(f"{plan.conflicts:,} would stay: their key is taken", err=True)
    if plan.invalid:
        first = f" (of the first {plan.checked:,})" if plan.partly_checked else ""
        say(f"{plan.invalid:,}{first} would stay: their arguments do not fit their task", err=True)
