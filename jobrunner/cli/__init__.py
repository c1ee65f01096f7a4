"""Provides the command ``jobrunner``, also for programs that an application builds itself.

A program that is built as a single binary needs three lines::

    from jobrunner.cli import main

    if __name__ == "__main__":
        main("shop.main:create_app", factory=True)

Commands import what they need when they run, so that ``--help`` is fast.
"""

from jobrunner.cli.commands.serve import run_server
from jobrunner.cli.main import command_group, main

__all__ = ["command_group", "main", "run_server"]
