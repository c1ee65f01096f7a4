"""Runs ``jobrunner ...`` as a process, to its end or until a signal."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

from tests.support.forks import start
from tests.support.ports import free_port
from tests.support.processes import CHECKOUT, PATIENCE_S, Child, process

APP = "tests.cli.service:create_app"
RUNNER = "tests.cli.service:create_runner"


class Answer(NamedTuple):
    """The output of a command and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The standard output, parsed as JSON."""
        return json.loads(self.out)

    @property
    def rows(self) -> list[dict[str, str]]:
        """The rows of its table, by the names of the columns."""
        names, *rows = [line.split("\t") for line in self.out.splitlines()]
        return [dict(zip(names, row, strict=True)) for row in rows]


async def jobrunner(*words: str | Path, env: Mapping[str, str] | None = None) -> Answer:
    """Run ``jobrunner WORDS`` to its end; ``env`` is added to the environment."""
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)} | dict(env or {})
    started = await start(
        ["-m", "jobrunner.cli", *map(str, words)],
        env=environment,
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        is_command=True,
    )
    try:
        out, err = await asyncio.wait_for(started.communicate(), PATIENCE_S)
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()
    assert started.returncode is not None
    return Answer(started.returncode, out.decode(), err.decode())


def worker(store: Path, *words: str, app: str = RUNNER, grace: str = "1") -> Any:
    """Start ``jobrunner worker``, as an async context manager."""
    return process(
        "-m",
        "jobrunner.cli",
        "worker",
        app,
        "--factory",
        *words,
        SERVICE_STORE=str(store),
        SERVICE_GRACE=grace,
    )


class Server(NamedTuple):
    """A started ``jobrunner serve``, which answers."""

    process: Child
    http: httpx2.AsyncClient


@asynccontextmanager
async def server(store: Path, *words: str, grace: str = "1") -> AsyncIterator[Server]:
    """Start ``jobrunner serve`` and wait until it is ready."""
    port = free_port()
    serving = process(
        "-m",
        "jobrunner.cli",
        "serve",
        APP,
        "--factory",
        "--port",
        str(port),
        *words,
        SERVICE_STORE=str(store),
        SERVICE_GRACE=grace,
    )
    async with serving as child, client(port) as http:
        await ready(http)
        yield Server(child, http)


def client(port: int) -> httpx2.AsyncClient:
    """Return a client of a server on this machine."""
    return httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10)


async def ready(http: httpx2.AsyncClient) -> None:
    """Ask again and again until the server says that it is ready."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                if (await http.get("/health/ready")).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            await asyncio.sleep(0.02)  # noqa: TID251 - it does not listen yet: there is nothing to wait on


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in children.split()]
