"""``jobrunner worker``: runs the jobs of an application, without serving HTTP."""

import os
from typing import Any

import click

from jobrunner.cli import exit_codes
from jobrunner.cli.location import Target


def slots_of_queue(text: str) -> tuple[str, int | None]:
    """Return a queue name and its slots from ``name`` or ``name=slots``.

    The slots are None for ``name`` alone: the runner's own number applies.
    """
    name, separator, number = text.partition("=")
    if not separator:
        return name, None
    if not (number.isascii() and number.isdigit()):
        raise click.BadParameter(
            f"{text!r}: write {name}=50, or {name} alone for the runner's own number"
        )
    return name, int(number)


@click.command()
@click.argument("app", required=False)
@click.option("--factory", is_flag=True, help="NAME is a function that makes the application.")
@click.option(
    "--queue",
    "queues",
    type=slots_of_queue,
    multiple=True,
    metavar="NAME[=SLOTS]",
    help="Serve only this queue; may be given several times. Default: all queues.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning"]),
    default="info",
    show_default=True,
    help="The level of the log on standard error, unless the application configures logging itself.",
)
@click.pass_context
def worker(
    ctx: click.Context,
    app: str | None,
    factory: bool,
    queues: tuple[tuple[str, int | None], ...],
    log_level: str,
) -> None:
    """Run the jobs of APP (module:name), without serving HTTP.

    APP is a JobRunner or an application, whose lifespan is run so that its tasks have what they need. At SIGTERM or
    SIGINT the worker stops: running attempts get the runner's grace period to finish, and the rest go back to their
    queues without using an attempt.
    """
    _run(target_of(ctx, app, factory=factory), dict(queues) or None, log_level)


def target_of(ctx: click.Context, app: str | None, *, factory: bool) -> Target:
    """Return the application from the command line, else the program's default."""
    if app is not None:
        return Target(app, factory)
    if isinstance(ctx.obj, Target):
        return ctx.obj
    raise click.UsageError("name the application: module:name, as in shop.main:app", ctx)


def _run(target: Target, queues: dict[str, int | None] | None, log_level: str) -> None:
    import asyncio

    from jobrunner.cli.target import load
    from jobrunner.core.logs import log_of
    from jobrunner.runner.runner import JobRunner
    from jobrunner.runner.standalone import RunOverrides, orders, work_until_signal

    exit_codes.end_at_signals()
    loaded = load(target)
    configure_log(log_level)
    if isinstance(loaded, JobRunner):
        opened: Any = loaded.running()
    else:
        opened = _lifespan_of(loaded, target)
    orders.set(RunOverrides(work=True, queues=queues))
    logger = log_of("jobrunner")
    logger.info("worker of %s, process %d", target.name, os.getpid())

    async def work() -> None:
        with exit_codes.at_once():
            await work_until_signal(opened)
            logger.info("worker of %s has stopped", target.name)

    asyncio.run(work())


def _lifespan_of(loaded: Any, target: Target) -> Any:
    from jobrunner.core.errors import ConfigurationError

    try:
        return loaded.router.lifespan_context(loaded)
    except AttributeError as error:
        raise ConfigurationError(
            f"{target.name} is a {type(loaded).__name__}: name a FastAPI or Starlette application, or a JobRunner"
        ) from error


def configure_log(level: str) -> None:
    """Send the log to standard error, unless the application has configured it."""
    import logging

    from jobrunner.core.logs import LineFormatter

    if not logging.getLogger().handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(LineFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
        logging.basicConfig(level=level.upper(), handlers=[handler])
