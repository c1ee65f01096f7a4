"""Every command line of jobrunner on the pages is one that the command takes."""

import re
import shlex

import click
import pytest

from jobrunner.cli.main import command_group
from tests.support.processes import CHECKOUT

_SHELL = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)


def command_lines() -> list[tuple[str, str]]:
    """Return each line of a shell block that begins with ``jobrunner``, with its page."""
    pages = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]
    found = []
    for page in pages:
        for block in _SHELL.findall(page.read_text(encoding="utf-8")):
            lines = block.replace("\\\n", " ").splitlines()
            name = page.relative_to(CHECKOUT).as_posix()
            found += [(name, line) for line in lines if line.startswith("jobrunner ")]
    return found


def test_pages_show_every_command() -> None:
    group = command_group()
    shown = {" ".join(shlex.split(line, comments=True)[1:3]) for _, line in command_lines()}

    assert [
        f"{name} {under}"
        for name, command in group.commands.items()
        for under in (command.commands if isinstance(command, click.Group) else [""])
        if not any(words.startswith(f"{name} {under}".strip()) for words in shown)
    ] == []


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_command_line_is_understood(page: str, line: str) -> None:
    # The part before a pipe or a redirection; comments begin with a sharp.
    words = shlex.split(re.split(r" \| | > | \|\| ", line)[0], comments=True)[1:]
    command: click.Command = command_group()
    while isinstance(command, click.Group):
        name, *words = words
        assert name in command.commands, f"{page}: {line}"
        command = command.commands[name]

    # A command keeps the help option that it has made for its first context: this one has the group's names of it.
    settings = command_group().context_settings
    assert command.make_context(command.name, words, **settings) is not None
