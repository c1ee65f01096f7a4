"""Applications with a dashboard, served for a browser: in a thread of the tests, or in a process of their own."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
import uvicorn
from fastapi import FastAPI

from jobrunner import Job, JobDead, JobRunner
from tests.support.processes import CHECKOUT

T = TypeVar("T")

PATIENCE_S: Final = 30


class Served:
    """An application with an open runner and its dashboard, served on a port by a thread."""

    def __init__(self, jobs: JobRunner, *, work: bool = True) -> None:
        self.jobs = jobs

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            async with jobs.running(app, work=work):
                await self.fill()
                self._ready.set()
                yield

        self.app = FastAPI(lifespan=lifespan)
        self.app.include_router(jobs.dashboard(insecure=True), prefix="/open")
        # It listens from here on, so that no request comes too early.
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._server = uvicorn.Server(uvicorn.Config(self.app, log_level="error"))
        self._thread = threading.Thread(target=self._serve, name="server", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()

    @property
    def root(self) -> str:
        """The address of the dashboard without a guard."""
        return f"http://127.0.0.1:{self.port}/open"

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the server's thread."""
        assert self._loop is not None
        return self._loop

    def _serve(self) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            await self._server.serve(sockets=[self._socket])

        asyncio.run(serve())

    async def fill(self) -> None:
        """Store the first jobs, on the server's loop."""

    def start(self) -> None:
        """Serve, and wait until the first jobs are stored."""
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)

    def stop(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def call(self, function: Callable[..., Coroutine[Any, Any, T]], *args: object) -> T:
        """Run a coroutine function on the server's loop."""
        return asyncio.run_coroutine_threadsafe(function(*args), self.loop).result(PATIENCE_S)

    def enqueue(self, task: Any, *args: object) -> Job[Any]:
        """Store a job."""

        async def enqueue() -> Job[Any]:
            return await self.jobs.enqueue(task, *args)

        return self.call(enqueue)

    def dead(self, task: Any, *args: object) -> str:
        """Return the id of a dead letter."""

        id = self.enqueue(task, *args).id
        self.until_dead(id)
        return id

    def until_dead(self, id: str) -> None:
        """Wait until a job is a dead letter."""

        async def fail() -> None:
            with pytest.raises(JobDead):
                await (await self.jobs.get(id)).result(PATIENCE_S)

        self.call(fail)

    def state(self, id: str) -> str:
        """Return the state of a job."""

        async def get() -> str:
            return (await self.jobs.get(id)).state

        return self.call(get)


class Process:
    """A process of an application."""

    def __init__(self, started: subprocess.Popen[bytes]) -> None:
        self._started = started

    def terminate(self, timeout_s: float) -> int:
        """Send SIGTERM, and return the exit code; fail if it has not ended in time."""
        self._started.send_signal(signal.SIGTERM)
        return self._started.wait(timeout_s)

    def kill(self) -> None:
        """End it by ``kill -9``."""
        self._started.kill()
        self._started.wait(PATIENCE_S)


@contextmanager
def serving(
    file: Path, *, app: str = "tests.browser.site:create_app", path: str = "open"
) -> Iterator[tuple[Process, str]]:
    """Serve an application in a process; yield it and the address of its dashboard or another path."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        command = (
            "-m",
            "uvicorn",
            "--factory",
            app,
            "--log-level",
            "error",
        )
        started = subprocess.Popen(
            (sys.executable, *command, "--fd", str(listening.fileno())),
            cwd=CHECKOUT,
            env=os.environ | {"PYTHONPATH": str(CHECKOUT), "SITE_FILE": str(file)},
            pass_fds=[listening.fileno()],
        )
    process = Process(started)
    try:
        yield process, f"http://127.0.0.1:{port}/{path}"
    finally:
        process.kill()
