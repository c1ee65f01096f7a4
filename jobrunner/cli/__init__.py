"""Offers the command ``jobrunner``, also as part of an application's own program.

A program that is to become one binary needs three lines::

    from jobrunner.cli import main

    if __name__ == "__main__":
        main("shop.main:create_app", factory=True)

Commands import what they need when they run, so that ``--help`` answers at once.
"""

from jobrunner.cli.commands.serve import run_server
from jobrunner.cli.main import command_group, main

__all__ = ["command_group", "main", "run_server"]
