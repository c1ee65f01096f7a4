"""``jobrunner serve``: serves an application and runs its jobs, with uvicorn."""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial, wraps
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import click

from jobrunner.cli import exit_codes, pyinstaller
from jobrunner.cli.commands.worker import configure_log, target_of
from jobrunner.cli.location import Target

if TYPE_CHECKING:
    from socket import socket

    import uvicorn

CONNECTIONS_S: Final = 10
"""The longest time for open connections at shutdown: a client that stays must not keep the process."""

RELOAD_CONNECTIONS_S: Final = 1
"""The same with ``--reload``: an open page must not delay the new code."""


@click.command()
@click.argument("app", required=False)
@click.option("--factory", is_flag=True, help="NAME is a function that makes the application.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="The port to listen on; 0 for any free port.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="The number of processes; each serves HTTP and runs jobs, all on one file.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning"]),
    default="info",
    show_default=True,
    help="The level of the log on standard error, unless the application configures logging itself.",
)
@click.option(
    "--reload",
    is_flag=True,
    help="Restart when a Python file changes, without a grace period for running jobs; for development.",
)
@click.option(
    "--reload-dir",
    "reload_dirs",
    multiple=True,
    metavar="FOLDER",
    help="Watch this folder; may be given several times. Default: the current folder.",
)
@click.option(
    "--access-log/--no-access-log", default=True, show_default=True, help="Log each HTTP request."
)
@click.option("--root-path", default="", help="The path prefix that a proxy removes.")
@click.option(
    "--forwarded-allow-ips",
    default=None,
    metavar="IPS",
    help="The proxies whose X-Forwarded-* headers are trusted. [127.0.0.1]",
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
    reload: bool,
    reload_dirs: tuple[str, ...],
    **options: Any,
) -> None:
    """Serve APP (module:name) and run its jobs.

    SIGTERM and SIGINT stop the server in two phases. First it starts no new jobs, and running jobs get the runner's
    grace period while connections drain; then the application's lifespan ends. The exit status is 143 (130 for SIGINT),
    and 0 with several workers. A second SIGINT ends it at once, which is as safe as kill -9.
    """
    target = target_of(ctx, app, factory=factory)
    if reload_dirs and not reload:
        raise click.UsageError("--reload-dir says what --reload watches: add --reload", ctx)
    if not reload:
        _serve(target, workers=workers, log_level=log_level, **options)
        return
    if workers > 1:
        raise click.UsageError("--reload serves in one process: leave out --workers", ctx)
    if getattr(sys, "frozen", False):
        raise click.UsageError("a program in one file has no code that could change", ctx)
    _serve_and_reload(target, log_level, reload_dirs, options)


def run_server(
    app: str, *, factory: bool = False, workers: int = 1, log_level: str = "info", **options: Any
) -> None:
    """Serve an application as ``jobrunner serve`` does, until a signal ends the process.

    Args:
        app: ``module:name`` of the application.
        factory: True if the name is a function that makes the application.
        workers: the number of processes.
        log_level: the level of the log on standard error, unless the application configures logging itself.
        options: options of ``uvicorn.Config``.

    Raises:
        ConfigurationError: The application cannot be loaded.
    """
    _serve(Target(app, factory), workers=workers, log_level=log_level, **options)


def _serve(target: Target, *, workers: int, log_level: str, **options: Any) -> None:
    import uvicorn

    exit_codes.end_at_signals()
    # Load the application here even if only the children serve it: an error is then reported once, and not again and
    # again by each child.
    loaded = _load(target, log_level)
    options = {
        "log_level": log_level,
        "log_config": None,
        "timeout_graceful_shutdown": _connections_s(),
        **options,
    }
    if workers == 1:
        _run(uvicorn.Server(uvicorn.Config(loaded, **options)))
    else:
        make = partial(_in_child, target, log_level, os.getpid())
        _run_children(uvicorn.Config(make, factory=True, workers=workers, **options))


def _run(server: "uvicorn.Server", sockets: "list[socket] | None" = None) -> None:
    from jobrunner.runner.shutdown import without_echo

    begin_exit = server.handle_exit

    # The runner finds the server and its reload setting through this handler.
    @wraps(begin_exit)
    def handle_exit(number: int, frame: FrameType | None) -> None:
        if server.should_exit and number == signal.SIGINT:
            # uvicorn would skip the end of the lifespan, or ignore the signal if that has begun.
            exit_codes.end_with(128 + number)
        begin_exit(number, frame)

    server.handle_exit = without_echo(handle_exit)  # type: ignore[method-assign,assignment]
    server.run(sockets)
    if not server.started:
        sys.exit(exit_codes.NOT_STARTED)


def _connections_s() -> float:
    """Return the time for open connections: the jobs' grace, at most ``CONNECTIONS_S``."""
    from jobrunner.runner.runner import made

    return min([CONNECTIONS_S, *(runner.settings.grace_s for runner in made)])


def _load(target: Target, log_level: str) -> Any:
    from jobrunner.cli.target import load
    from jobrunner.core.errors import ConfigurationError
    from jobrunner.runner.runner import JobRunner

    loaded = load(target)
    if isinstance(loaded, JobRunner):
        raise ConfigurationError(
            f"{target.name} is a JobRunner: name the application to serve it, or run `jobrunner worker {target.name}`"
        )
    configure_log(log_level)
    return loaded


def _in_child(target: Target, log_level: str, parent: int) -> Any:
    # A child that outlives its parent would keep the file and the port without anyone noticing.
    pyinstaller.die_with(parent)
    return _load(target, log_level)


def _run_children(config: "uvicorn.Config") -> None:
    from uvicorn.supervisors import Multiprocess

    from jobrunner.runner.shutdown import without_echo

    parent = Multiprocess(config, sockets=[config.bind_socket()])

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and (parent.should_exit.is_set() or parent.signal_queue):
            for child in parent.processes:
                child.process.kill()
            exit_codes.end_with(128 + number)
        parent.signal_queue.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        # Replaces uvicorn's handler, which ignores signals while it waits for its children.
        signal.signal(number, without_echo(handle))
    parent.run()
    # uvicorn ends without an error if a child could not start.
    if any(child.process.exitcode == exit_codes.NOT_STARTED for child in parent.processes):
        sys.exit(exit_codes.NOT_STARTED)


# -- reload --------------------------------------------------------------------------------------------


def _serve_and_reload(
    target: Target, log_level: str, folders: Sequence[str], options: Mapping[str, Any]
) -> None:
    import uvicorn
    from uvicorn.supervisors import ChangeReload

    configure_log(log_level)
    # Pass the name instead of loading the application: code that fails now may be fixed in a minute.
    watching = uvicorn.Config(
        target.name,
        factory=target.factory,
        reload=True,
        reload_dirs=list(folders) or None,
        log_level=log_level,
        log_config=None,
        **options,
    )
    serve_it = partial(_serve_reloaded, target, log_level, dict(options), os.getpid())
    ChangeReload(watching, target=serve_it, sockets=[watching.bind_socket()]).run()


def _serve_reloaded(
    target: Target,
    log_level: str,
    options: Mapping[str, Any],
    parent: int,
    sockets: "list[socket] | None" = None,
) -> None:
    """Serve in the child process, which is restarted at each change."""
    import uvicorn

    from jobrunner.core.errors import ConfigurationError

    pyinstaller.die_with(parent)
    exit_codes.end_at_signals()
    configure_log(log_level)
    try:
        loaded = _load(target, log_level)
    except ConfigurationError as error:
        # The parent keeps watching.
        exit_codes.Refused(error).show()
        sys.exit(exit_codes.CONFIGURATION)
    config = uvicorn.Config(
        loaded,
        reload=True,  # makes the runner skip the grace period
        log_level=log_level,
        log_config=None,
        timeout_graceful_shutdown=RELOAD_CONNECTIONS_S,
        **options,
    )
    _run(uvicorn.Server(config), sockets)
