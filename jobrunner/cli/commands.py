"""Puts the commands together, for the script ``jobrunner`` and for programs that bring their own application."""

from collections.abc import Iterable
from importlib import import_module
from typing import Any, Final

import click

from jobrunner.cli import exits, frozen
from jobrunner.cli.place import Target
from jobrunner.errors import JobRunnerError
from jobrunner.version import __version__

_COMMANDS: Final = {
    "serve": "jobrunner.cli.serve:serve",
    "worker": "jobrunner.cli.worker:worker",
    "status": "jobrunner.cli.status:status",
    "jobs": "jobrunner.cli.jobs:jobs",
    "dead": "jobrunner.cli.dead:dead",
    "queues": "jobrunner.cli.queues:queues",
    "doctor": "jobrunner.cli.doctor:doctor",
    "backup": "jobrunner.cli.upkeep:backup",
    "vacuum": "jobrunner.cli.upkeep:vacuum",
}


class Commands(click.Group):
    """The commands, in the order of the list above; the errors of the library end them with a line and a code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, most wanted first."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what the library refuses is told in its own words."""
        try:
            return super().invoke(ctx)
        except JobRunnerError as error:
            raise exits.Refused(error) from error


def commands(app: str | None = None, *, factory: bool = False) -> click.Group:
    """Return the commands as a group, to be run or to be added to.

    Args:
        app: ``module:name`` of the application that they are about; without it each command is told.
        factory: whether the name is a function that makes the application.
    """
    group = Commands(
        help=f"Run, look at and steer the jobs of a FastAPI application.\n\n{exits.IN_WORDS}",
        context_settings={
            "help_option_names": ["-h", "--help"],
            "obj": None if app is None else Target(app, factory),
            "max_content_width": 100,
        },
    )
    click.version_option(__version__, prog_name="jobrunner")(group)
    for name, place in _COMMANDS.items():
        module, _, attribute = place.partition(":")
        group.add_command(getattr(import_module(module), attribute), name)
    return group


def main(
    app: str | None = None, *, factory: bool = False, own: Iterable[click.Command] = ()
) -> None:
    """Be the program: see to what a single-file executable needs, run the command that was asked for, and exit.

    Args:
        app, factory: see ``commands``.
        own: more commands; one with a name of ours takes its place.
    """
    frozen.settle()
    group = commands(app, factory=factory)
    for command in own:
        group.add_command(command)
    group()
