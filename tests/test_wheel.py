"""The wheel, installed in a new environment, runs the first file of the README as a new user would."""

import asyncio
import os
import re
import subprocess
import sys
import zipfile
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from tests.cli.commands import client
from tests.support.ports import free_port
from tests.support.processes import CHECKOUT, PATIENCE_S

pytestmark = [pytest.mark.wheel, pytest.mark.timeout(600)]

INSTALL_S = 300
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, as ``just wheel`` does."""
    dist = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", dist, CHECKOUT)
    (built,) = dist.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel in a new environment; return the folder of its programs."""
    venv = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", venv)
    pip = (venv / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check")
    run(*pip, "-c", CHECKOUT / "constraints.txt", wheel)
    return venv / "bin"


def run(*command: str | Path) -> str:
    """Run a command to its end; return its output."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=INSTALL_S, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def first_file() -> str:
    """Return the README's ``shop.py``."""
    found = re.search(r'^```python title="shop\.py"\n(.*?)^```$', README, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_wheel_holds_the_library_its_licence_and_nothing_of_the_checkout_beside_it(
    wheel: Path,
) -> None:
    assert wheel.name.startswith("fastapi_jobrunner-")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {"jobrunner"}
    assert "jobrunner/py.typed" in names
    pages = "jobrunner/fastapi/dashboard"
    assert {
        f"{pages}/templates/base.html",
        f"{pages}/static/style.css",
        f"{pages}/static/ui.js",
    } <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_installed_command_and_package_have_the_version_of_the_distribution(
    environment: Path,
) -> None:
    ask = "import importlib.metadata as m, jobrunner; print(m.version('fastapi-jobrunner'), jobrunner.__version__)"
    distribution, package = run(environment / "python", "-c", ask).split()
    assert distribution == package
    assert package in run(environment / "jobrunner", "--version")


@pytest.mark.parametrize("server", ["jobrunner serve", "uvicorn"])
async def test_first_file_of_the_readme_retries_its_mail_also_across_a_kill(
    environment: Path, tmp_path: Path, server: str
) -> None:
    (tmp_path / "shop.py").write_text(first_file(), encoding="utf-8")
    async with serving(environment, tmp_path, server) as (process, http):
        answer = await http.post("/register", params={"email": "ann@example.com"})
        assert answer.status_code == 202
        await line_with(process, "failed in attempt 1 (ConnectionError: the mail server is down)")
        await line_with(process, "Welcome, ann@example.com! (attempt 2)")
        # The line is printed before the end of the job is on disk.
        async with asyncio.timeout(PATIENCE_S):
            while await states(http, answer.json()["id"]) != ["succeeded"]:
                pass

        await http.post("/register", params={"email": "bob@example.com"})
        await line_with(process, "failed in attempt 1 (ConnectionError: the mail server is down)")
        process.kill()
    async with serving(environment, tmp_path, server) as (process, _):
        await line_with(process, "Welcome, bob@example.com! (attempt 2)")


async def states(http: httpx2.AsyncClient, id: str) -> list[str]:
    listed = (await http.get("/jobs")).json()["items"]
    return [job["state"] for job in listed if job["id"] == id]


@asynccontextmanager
async def serving(
    environment: Path, cwd: Path, server: str
) -> AsyncIterator[tuple[Process, httpx2.AsyncClient]]:
    """Serve ``shop:app`` until the block ends, then kill the server."""
    port = free_port()
    command, *words = server.split()
    process = await asyncio.create_subprocess_exec(
        environment / command,
        *(*words, "shop:app", "--port", str(port)),
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"},
        stdout=PIPE,
        stderr=STDOUT,
    )
    try:
        await line_with(process, "Uvicorn running")
        async with client(port) as http:
            yield process, http
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line_with(process: Process, text: str) -> None:
    """Read the server's output until a line holds the text."""
    assert process.stdout is not None
    read = []
    async with asyncio.timeout(PATIENCE_S):
        async for line in process.stdout:
            read.append(line.decode())
            if text in read[-1]:
                return
    raise AssertionError(f"the server ended without {text!r}:\n{''.join(read)}")
