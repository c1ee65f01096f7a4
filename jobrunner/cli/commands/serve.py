"""``jobrunner serve``: runs an application and its jobs under uvicorn, in one or several processes."""

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
"""How long open connections get at shutdown at most: a client that stays must not keep the process."""

RELOAD_CONNECTIONS_S: Final = 1
"""The same while developing: a page that is open must not hold up the new code."""


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
@click.option(
    "--reload",
    is_flag=True,
    help="Start anew when a Python file changes, without a grace for the jobs under way; for development.",
)
@click.option(
    "--reload-dir",
    "reload_dirs",
    multiple=True,
    metavar="FOLDER",
    help="Watch this folder; may be given several times. The present one by default.",
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
    reload: bool,
    reload_dirs: tuple[str, ...],
    **options: Any,
) -> None:
    """Serve APP (module:name) and run its jobs.

    SIGTERM and SIGINT end it in two phases: at the signal no more jobs are started, and those under way get the
    runner's grace while connections drain; then the application's lifespan ends. The exit status is then 143 (130 for
    SIGINT), and 0 with several workers. A second SIGINT ends it at once, which is as safe as kill -9.
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

    exit_codes.end_at_signals()
    # Loaded here also where only the children serve it: an application that cannot be is reported once, and not by each
    # of them again and again.
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

    # The runner finds the server, and whether it reloads, through the handler.
    @wraps(begin_exit)
    def handle_exit(number: int, frame: FrameType | None) -> None:
        if server.should_exit and number == signal.SIGINT:
            # uvicorn would leave out the lifespan's end, and handle no signal once that has begun.
            exit_codes.end_with(128 + number)
        begin_exit(number, frame)

    server.handle_exit = without_echo(handle_exit)  # type: ignore[method-assign,assignment]
    server.run(sockets)
    if not server.started:
        sys.exit(exit_codes.NOT_STARTED)


def _connections_s() -> float:
    """Return the grace of open connections: that of the jobs, so that both end together."""
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
    # One that lives on without its parent would hold the file and the port, and nobody would know of it.
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
        # In place of uvicorn's, which handles no signal once it waits for its children.
        signal.signal(number, without_echo(handle))
    parent.run()
    # It ends by itself, and well, when a child could not start.
    if any(child.process.exitcode == exit_codes.NOT_STARTED for child in parent.processes):
        sys.exit(exit_codes.NOT_STARTED)


# -- reload --------------------------------------------------------------------------------------------


def _serve_and_reload(
    target: Target, log_level: str, folders: Sequence[str], options: Mapping[str, Any]
) -> None:
    import uvicorn
    from uvicorn.supervisors import ChangeReload

    configure_log(log_level)
    # Named, and not loaded: what cannot be loaded now may be in a minute.
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
    """Serve in the child that is started anew at each change."""
    import uvicorn

    from jobrunner.core.errors import ConfigurationError

    pyinstaller.die_with(parent)
    exit_codes.end_at_signals()
    configure_log(log_level)
    try:
        loaded = _load(target, log_level)
    except ConfigurationError as error:
        # The parent goes on watching.
        exit_codes.Refused(error).show()
        sys.exit(exit_codes.CONFIGURATION)
    config = uvicorn.Config(
        loaded,
        reload=True,  # by which the runner knows that it is to give no grace
        log_level=log_level,
        log_config=None,
        timeout_graceful_shutdown=RELOAD_CONNECTIONS_S,
        **options,
    )
    _run(uvicorn.Server(config), sockets)
