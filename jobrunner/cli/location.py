"""Reads the options that name a store: its URL, or the application whose jobs lie in it."""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import click


class Target(NamedTuple):
    """Names an application to import."""

    name: str
    factory: bool


class Location(NamedTuple):
    """Names the store of a command; at least one of the two is given."""

    store: str | None
    target: Target | None


def with_location(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that name a store, and hand it the ``Location`` as its first argument."""

    @click.option(
        "--store",
        metavar="URL",
        envvar="JOBRUNNER_STORE",
        help="The store: sqlite:///shop.db or a path; no application is loaded. [$JOBRUNNER_STORE]",
    )
    @click.option(
        "--app",
        metavar="MODULE:NAME",
        envvar="JOBRUNNER_APP",
        help="The application, which knows its store and its tasks; with --store, only its tasks. [$JOBRUNNER_APP]",
    )
    @click.option("--factory", is_flag=True, help="NAME is a function that makes the application.")
    @wraps(command)
    def located(*, store: str | None, app: str | None, factory: bool, **options: Any) -> Any:
        ctx = click.get_current_context()
        # A program's own application is not needed for a file that is named, and may be what is broken.
        own = ctx.obj if store is None else None
        target = own if app is None else Target(app, factory)
        if store is None and target is None:
            raise click.UsageError(
                "say whose jobs are meant: --store sqlite:///shop.db, or --app shop.main:app", ctx
            )
        return command(Location(store, target), **options)

    return located


def as_json(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option to answer as JSON."""
    return click.option("--json", "as_json", is_flag=True, help="Answer as JSON.")(command)
