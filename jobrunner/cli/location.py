"""Defines the options that name a store, by URL or by application."""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import click


class Target(NamedTuple):
    """The name of an application to import."""

    name: str
    factory: bool


class Location(NamedTuple):
    """The store of a command: a URL, an application, or both."""

    store: str | None
    target: Target | None


def with_location(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name a store to a command.

    The command receives the ``Location`` as its first argument.
    """

    @click.option(
        "--store",
        metavar="URL",
        envvar="JOBRUNNER_STORE",
        help="The store: sqlite:///shop.db, a path, or postgresql://host/shop. Without --app no application is loaded."
        " [$JOBRUNNER_STORE]",
    )
    @click.option(
        "--app",
        metavar="MODULE:NAME",
        envvar="JOBRUNNER_APP",
        help="The application to load, for its store and its tasks; with --store only for its tasks. [$JOBRUNNER_APP]",
    )
    @click.option("--factory", is_flag=True, help="NAME is a function that makes the application.")
    @wraps(command)
    def located(*, store: str | None, app: str | None, factory: bool, **options: Any) -> Any:
        ctx = click.get_current_context()
        # With --store the default application of a program is not loaded: it may be the broken part.
        own = ctx.obj if store is None else None
        target = own if app is None else Target(app, factory)
        if store is None and target is None:
            raise click.UsageError(
                "say whose jobs are meant: --store sqlite:///shop.db, or --app shop.main:app", ctx
            )
        return command(Location(store, target), **options)

    return located


def as_json(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option for JSON output to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)
