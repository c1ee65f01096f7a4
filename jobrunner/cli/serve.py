"""``jobrunner serve``: an application and its jobs under uvicorn, in one process or several on one file."""

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from jobrunner.cli import exits, frozen
from jobrunner.cli.place import Target
from jobrunner.cli.worker import configure_log, target_of

if TYPE_CHECKING:
    import uvicorn

CONNECTIONS_S: Final = 10
"""How long open connections get at shutdown at most: a client that stays must not keep the process."""


@click.command()
@click.argument("app", required=False)
@click.option("--factory", is_flag=True, help="NAME is a function that makes the application.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes any."
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Processes; each serves HTTP and runs jobs, all on one file.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning"]),
    default="info",
    show_default=True,
)
@click.option("--access-log/--no-access-log", default=True, show_default=True)
@click.option("--root-path", default="", help="The prefix that a proxy has taken off.")
@click.option(
    "--forwarded-allow-ips",
    default=None,
    metavar="IPS",
    help="Proxies whose X-Forwarded- headers are believed. [127.0.0.1]",
)
@click.pass_context
def serve(
    ctx: click.Context,
    /,
    app: str | None,
    *,
    factory: bool,
    workers: int,
    log_level: str,
    **options: Any,
) -> None:
    """Serve APP (module:name) and run its jobs.

    SIGTERM and SIGINT end it in two phases: at the signal no more jobs are started, and those under way get the
    runner's grace while connections drain; then the application's lifespan ends. The exit status is then 143 (130 for
    SIGINT), and 0 with several workers.
    """
    target = target_of(ctx, app, factory=factory)
    _serve(target, workers=workers, log_level=log_level, **options)


def run_server(
    app: str, *, factory: bool = False, workers: int = 1, log_level: str = "info", **options: Any
) -> None:
    """Serve an application until a signal comes, as ``jobrunner serve`` does; the process ends with it.

    Args:
        app: ``module:name``.
        factory: whether the name is a function that makes the application.
        workers: processes.
        log_level: of the log on standard error, unless the application sets up its own.
        options: of ``uvicorn.Config``.

    Raises:
        ConfigurationError: the application cannot be loaded.
    """
    _serve(Target(app, factory), workers=workers, log_level=log_level, **options)


def _serve(target: Target, *, workers: int, log_level: str, **options: Any) -> None:
    import uvicorn

    from jobrunner.signals import without_echo

    exits.end_at_signals()
    # Loaded here also where only the children serve it: an application that cannot be is told once, and not by each
    # of them again and again.
    loaded = _load(target, log_level)
    options = {
        "log_level": log_level,
        "log_config": None,
        "timeout_graceful_shutdown": _connections_s(),
        **options,
    }
    if workers == 1:
        server = uvicorn.Server(uvicorn.Config(loaded, **options))
        # A second SIGINT makes it leave out the lifespan's end.
        heard = without_echo(server.handle_exit)
        server.handle_exit = heard  # type: ignore[method-assign,assignment]
        server.run()
        if not server.started:
            sys.exit(exits.NOT_STARTED)
    else:
        make = partial(_in_child, target, log_level, os.getpid())
        _run_children(uvicorn.Config(make, factory=True, workers=workers, **options))


def _connections_s() -> float:
    """Return how long open connections get: as long as the jobs, beside them, so that the grace is that of both."""
    from jobrunner.runner import made

    return min([CONNECTIONS_S, *(runner.settings.grace_s for runner in made)])


def _load(target: Target, log_level: str) -> Any:
    from jobrunner.cli.target import load
    from jobrunner.errors import ConfigurationError
    from jobrunner.runner import JobRunner

    loaded = load(target)
    if isinstance(loaded, JobRunner):
        raise ConfigurationError(
            f"{target.name} is a JobRunner: name the application to serve it, or run `jobrunner worker {target.name}`"
        )
    configure_log(log_level)
    return loaded


def _in_child(target: Target, log_level: str, parent: int) -> Any:
    # One that lives on without its parent would hold the file and the port, and nobody would know of it.
    frozen.die_with(parent)
    return _load(target, log_level)


def _run_children(config: "uvicorn.Config") -> None:
    from uvicorn.supervisors import Multiprocess

    parent = Multiprocess(config, sockets=[config.bind_socket()])
    parent.run()
    # It ends by itself, and well, when a child could not start.
    if any(child.process.exitcode == exits.NOT_STARTED for child in parent.processes):
        sys.exit(exits.NOT_STARTED)
