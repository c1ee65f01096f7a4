"""Composes the commands, for the script ``jobrunner`` and for an application's own program."""

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
    "jobs": "jobrunner.cli.commands.jobs:jobs",
    "dead": "jobrunner.cli.commands.dead_letters:dead",
    "queues": "jobrunner.cli.commands.queues:queues",
    "doctor": "jobrunner.cli.commands.doctor:doctor",
    "backup": "jobrunner.cli.commands.maintenance:backup",
    "vacuum": "jobrunner.cli.commands.maintenance:vacuum",
}


class Commands(click.Group):
    """The commands in the order above; an error of the library ends one with a line and a code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, most wanted first."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error of the library or the system ends it with one line."""
        try:
            return super().invoke(ctx)
        except JobRunnerError as error:
            raise exit_codes.Refused(error) from error
        except click.ClickException as error:
            # Names on the command line and files may hold what stored ones may.
            error.message = escaped(error.message)  # type: ignore[misc] # as in Refused
            raise
        except UnicodeEncodeError as error:
            raise click.UsageError(f"{error.object!r} is no text: it is not UTF-8") from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # the reader has closed the pipe, which Click takes for an end
            where = "" if error.filename is None else f"{error.filename}: "
            raise click.ClickException(escaped(f"{where}{error.strerror or error}")) from error
        except KeyboardInterrupt:
            # While it was still starting.
            click.echo("broken off", err=True)
            raise click.exceptions.Exit(128 + signal.SIGINT) from None


def command_group(app: str | None = None, *, factory: bool = False) -> click.Group:
    """Return the commands as a group, to be run or to be added to.

    Args:
        app: ``module:name`` of the application that they are about; without it each command needs --app or --store.
        factory: whether the name is a function that makes the application.
    """
    group = Commands(
        help=f"Run, look at and steer the jobs of a FastAPI application.\n\n{exit_codes.IN_WORDS}",
        context_settings={
            "help_option_names": ["-h", "--help"],
            "obj": None if app is None else Target(app, factory),
            "max_content_width": 100,
            # Click itself looks only whether there is a terminal; see no-color.org.
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
    """Run the command of the command line, and exit.

    Args:
        app: see ``command_group``.
        factory: see ``command_group``.
        own: more commands; one with a name of ours takes its place.
    """
    pyinstaller.settle()
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # An arrow that the terminal's encoding does not have must not end a command half-way.
        sys.stdout.reconfigure(errors="backslashreplace")
    group = command_group(app, factory=factory)
    for command in own:
        group.add_command(command)
    group()
