"""The units, commands and exit codes of the documentation are correct."""

import asyncio
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import click
import httpx2
import pytest

from jobrunner.cli import command_group
from jobrunner.cli.exit_codes import IN_WORDS
from tests.cli.commands import client
from tests.support.ports import free_port
from tests.support.processes import CHECKOUT, PATIENCE_S

PAGE = (CHECKOUT / "docs" / "deploy.md").read_text(encoding="utf-8")
MONITORING = (CHECKOUT / "docs" / "monitoring.md").read_text(encoding="utf-8")
COMMAND_LINE = (CHECKOUT / "docs" / "guides" / "command-line.md").read_text(encoding="utf-8")
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
    assert len(lines) >= 2
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        group: click.Command = command_group()
        # With its settings: a command keeps the help option that it has made for its first context.
        context = click.Context(group, **group.context_settings)
        while isinstance(group, click.Group):
            found = group.get_command(context, words.pop(0))
            assert found is not None, line
            group = found
        group.make_context(group.name, words, parent=context)


def test_exit_codes_of_the_guide_are_those_of_the_help() -> None:
    said = dict(re.findall(r"^\| (\d[\d, ]*) \| (.*) \|$", COMMAND_LINE, re.MULTILINE))
    helped = dict(re.findall(r"^  (\d[\d, ]*)  (.*)$", IN_WORDS, re.MULTILINE))
    assert list(said) == list(helped)


# -- the log --------------------------------------------------------------------------------------------------

SHOP = """
{first}
from fastapi import FastAPI
from jobrunner import JobContext, JobRunner

jobs = JobRunner("sqlite:///shop.db")
app = FastAPI(lifespan=jobs.lifespan)


@jobs.task
async def greet(job: JobContext) -> None:
    job.logger.info("hello")


@app.get("/greet")
async def get_greet() -> None:
    await (await jobs.enqueue(greet)).result(timeout=60)
"""

LINE = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO    "


async def log_of(place: Path, *command: str, first: str = "") -> str:
    """Serve the shop from an empty folder, let it run one job, and return what it has written on standard error."""
    (place / "shop.py").write_text(SHOP.format(first=first))
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *command, "--port", str(port)),
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        async with client(port) as http, asyncio.timeout(PATIENCE_S):
            while True:
                assert process.returncode is None
                with suppress(httpx2.TransportError):
                    assert (await http.get("/greet")).is_success
                    break
        process.terminate()
        return (await process.communicate())[1].decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_log_under_uvicorn_with_the_file_of_the_page_has_time_level_and_name(
    tmp_path: Path,
) -> None:
    (config,) = blocks(PAGE, "json")
    (tmp_path / "log.json").write_text(config)
    (command,) = [line for line in PAGE.splitlines() if line.endswith("--log-config log.json")]
    _, _, *options = shlex.split(command)

    log = await log_of(tmp_path, "uvicorn", "shop:app", *options)

    assert re.search(LINE + r"jobrunner: jobs are stored in ", log, re.MULTILINE), log
    greeting = r"jobrunner\.task task=greet attempt=1 job_id=[-0-9a-f]{36}: hello$"
    assert re.search(LINE + greeting, log, re.MULTILINE), log
    assert re.search(LINE + r"uvicorn\.error: Application startup complete", log, re.MULTILINE)
    assert len(re.findall("jobs are stored in", log)) == 1


async def test_log_under_uvicorn_with_the_line_of_the_page_has_time_level_and_name(
    tmp_path: Path,
) -> None:
    (line,) = re.findall(r"`(logging\.basicConfig\([^`]*\))`", MONITORING)

    log = await log_of(tmp_path, "uvicorn", "shop:app", first=f"import logging\n\n{line}\n")

    assert re.search(LINE + r"jobrunner: jobs are stored in ", log, re.MULTILINE), log
    assert re.search(LINE + r"jobrunner\.task: hello$", log, re.MULTILINE), log
    assert len(re.findall("jobs are stored in", log)) == 1


async def test_log_under_plain_uvicorn_is_as_the_page_says(tmp_path: Path) -> None:
    log = await log_of(tmp_path, "uvicorn", "shop:app")

    assert "Application startup complete" in log
    assert "jobs are stored in" not in log


async def test_log_of_serve_has_time_level_and_name(tmp_path: Path) -> None:
    log = await log_of(tmp_path, "jobrunner.cli", "serve", "shop:app")

    for line in log.splitlines():
        assert re.match(LINE, line), log
    assert re.search(LINE + r"jobrunner: jobs are stored in ", log, re.MULTILINE), log
    assert re.search(LINE + r"jobrunner\.task: hello$", log, re.MULTILINE), log
    assert re.search(LINE + r"uvicorn\.error: Application startup complete", log, re.MULTILINE)


async def test_log_of_a_worker_has_time_level_and_name(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP.format(first=""))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jobrunner.cli", "worker", "shop:app"),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        said = await asyncio.wait_for(process.stderr.readuntil(b"jobs are stored in"), PATIENCE_S)
        process.terminate()
        log = (said + (await process.communicate())[1]).decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    for line in log.splitlines():
        assert re.match(LINE + "jobrunner: ", line), log
