"""Builds the command ``jobrunner`` from its subcommands."""

import errno
import io
import os
import signal
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Any, Final

import click

from jobrunner.cli import exit_codes, pyinstaller
from jobrunner.cli.location import Target
from jobrunner.core.errors import JobRunnerError
from jobrunner.core.escape import escaped
from jobrunner.core.version import __version__

_COMMANDS: Final = {
    "serve": "jobrunner.cli.commands.serve:serve",
    "worker": "jobrunner.cli.commands.worker:worker",
    "status": "jobrunner.cli.commands.status:status",
    "stats": "jobrunner.cli.commands.stats:stats",
    "jobs": "jobrunner.cli.commands.jobs:jobs",
    "dead": "jobrunner.cli.commands.dead_letters:dead",
    "batches": "jobrunner.cli.commands.batches:batches",
    "queues": "jobrunner.cli.commands.queues:queues",
    "limits": "jobrunner.cli.commands.limits:limits",
    "schedules": "jobrunner.cli.commands.schedules:schedules",
    "audit": "jobrunner.cli.commands.audit:audit",
    "doctor": "jobrunner.cli.commands.doctor:doctor",
    "backup": "jobrunner.cli.commands.maintenance:backup",
    "vacuum": "jobrunner.cli.commands.maintenance:vacuum",
}


class Commands(click.Group):
    """The group of all commands, which turns errors of the library into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, most used first."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command, and report library and system errors in one line."""
        try:
            return super().invoke(ctx)
        except JobRunnerError as error:
            raise exit_codes.Refused(error) from error
        except click.exceptions.NoArgsIsHelpError:
            raise  # its message is the help of a group that was called without a command
        except click.ClickException as error:
            # Names from the command line and from files can hold control characters too.
            error.message = escaped(error.message)  # type: ignore[misc] # as in Refused
            raise
        except UnicodeEncodeError as error:
            raise click.UsageError(f"{error.object!r} is not UTF-8 text") from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # the reader has closed the pipe; Click ends the command
            where = "" if error.filename is None else f"{error.filename}: "
            raise click.ClickException(escaped(f"{where}{error.strerror or error}")) from error
        except KeyboardInterrupt:
            # Ctrl-C came before the command installed its signal handlers.
            click.echo("interrupted", err=True)
            raise click.exceptions.Exit(128 + signal.SIGINT) from None


def command_group(app: str | None = None, *, factory: bool = False) -> click.Group:
    """Return a Click group with all commands, to run or to extend.

    Args:
        app: ``module:name`` of the default application; without it each command needs --app or --store.
        factory: True if the name is a function that makes the application.
    """
    group = Commands(
        help=f"Run and manage the jobs of a FastAPI application.\n\n{exit_codes.IN_WORDS}",
        context_settings={
            "help_option_names": ["-h", "--help"],
            "obj": None if app is None else Target(app, factory),
            "max_content_width": 100,
            # Click itself only checks for a terminal; see no-color.org.
            "color": False if os.environ.get("NO_COLOR") else None,
        },
    )
    click.version_option(__version__, prog_name="jobrunner")(group)
    for name, location in _COMMANDS.items():
        module, _, attribute = location.partition(":")
        group.add_command(getattr(import_module(module), attribute), name)
    return group


def main(
    app: str | None = None, *, factory: bool = False, own: Iterable[click.Command] = ()
) -> None:
    """Run the command that the command line names, and exit.

    Args:
        app: ``module:name`` of the default application; without it each command needs --app or --store.
        factory: True if the name is a function that makes the application.
        own: more commands; one with the name of a built-in command replaces it.
    """
    pyinstaller.settle()
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # A character that the terminal's encoding lacks must not make a command fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    group = command_group(app, factory=factory)
    for command in own:
        group.add_command(command)
    group()
