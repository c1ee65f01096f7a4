"""What ``docs/deploy.md`` says is tried: its units are checked by systemd, its commands and exit codes by ours."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from jobrunner.cli import commands
from jobrunner.cli.exits import IN_WORDS
from tests.processes import CHECKOUT

PAGE = (CHECKOUT / "docs" / "deploy.md").read_text(encoding="utf-8")
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def test_units_are_what_systemd_takes_them_for(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze IS NOT HERE: the units of docs/deploy.md were not checked")
    program = tmp_path / "shop"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    units = []
    for block in blocks(PAGE, "ini"):
        name = block.splitlines()[0].rpartition("/")[2]
        unit = tmp_path / name
        # The program is not installed here, and neither is its user.
        unit.write_text(
            block.replace("/usr/local/bin/shop", str(program)).replace("User=shop", "User=root")
        )
        units.append(str(unit))
    assert [Path(unit).suffix for unit in units] == [".service", ".service", ".timer"]
    checked = subprocess.run(
        [analyze, "verify", *units], capture_output=True, text=True, check=False
    )
    ours = [line for line in checked.stderr.splitlines() if str(tmp_path) in line or "shop" in line]
    assert (checked.returncode, ours) == (0, []), checked.stderr


@pytest.mark.parametrize("page", [PAGE, README], ids=["deploy.md", "README.md"])
def test_commands_on_the_page_exist_with_their_options(page: str) -> None:
    written = [line for block in blocks(page, "sh") for line in block.splitlines()]
    lines = [line for line in written if line.startswith("jobrunner ")]
    lines += re.findall(r"`(jobrunner [^`]*)`", page)
    assert len(lines) >= 6
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        group: click.Command = commands()
        context = click.Context(group)
        while isinstance(group, click.Group):
            found = group.get_command(context, words.pop(0))
            assert found is not None, line
            group = found
        group.make_context(group.name, words, parent=context)


def test_exit_codes_on_the_page_are_those_of_the_help() -> None:
    said = dict(re.findall(r"^\| (\d[\d, ]*) \| (.*) \|$", PAGE, re.MULTILINE))
    helped = dict(re.findall(r"^  (\d[\d, ]*)  (.*)$", IN_WORDS, re.MULTILINE))
    assert list(said) == list(helped)
