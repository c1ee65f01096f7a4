"""The shop as a process that can be killed, and its HTTP interface."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx2

import app

T = TypeVar("T")

TOKEN = "demo-token"  # noqa: S105 - it guards a shop that lives for half a minute on the loopback interface


class Broken(Exception):
    """A promise does not hold."""


def wait_for(what: str, seconds: float, poll: Callable[[], T | None]) -> T:
    """Poll until there is something to return.

    Raises:
        Broken: There was nothing within the time limit.
    """
    deadline = time.perf_counter() + seconds
    while (found := poll()) is None:
        if time.perf_counter() > deadline:
            raise Broken(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.05)
    return found


class Shop:
    """``python -m app`` as a child process, on a directory that outlives it."""

    def __init__(self, directory: Path, settings: Mapping[str, object]) -> None:
        self._log = directory / "shop.log"
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._env = {
            name: value for name, value in os.environ.items() if not name.startswith("SHOP_")
        }
        self._env |= {f"SHOP_{name}": str(value) for name, value in settings.items()}
        self._env |= {"SHOP_DATA_DIR": str(directory), "SHOP_ADMIN_TOKEN": TOKEN}
        # A killed process cannot take its doorbell down.
        self._env["TMPDIR"] = str(directory)
        # The demo may be started from anywhere; the process that it starts must find the same application.
        home = str(Path(app.__file__).parent.parent)
        self._env["PYTHONPATH"] = os.pathsep.join(filter(None, (home, self._env.get("PYTHONPATH"))))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._client = httpx2.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=30,
            trust_env=False,
        )

    def start(self) -> float:
        """Start the process; return the seconds until it answered."""
        started = time.perf_counter()
        with self._log.open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - nothing from outside in it
                [sys.executable, "-m", "app", "serve", "--port", str(self.port)],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C on the terminal is for the demo, which then stops the shop in its own way.
                start_new_session=True,
            )
        self._processes.append(process)
        wait_for("the shop answers", 60, self._answers)
        return time.perf_counter() - started

    @property
    def pid(self) -> int:
        """The id of the process that runs, or ran last."""
        return self._processes[-1].pid

    def kill(self) -> None:
        """Kill the process, as a crash would."""
        self._processes[-1].kill()
        self._processes[-1].wait(10)

    def stop(self) -> int:
        """Terminate the process; return its exit status."""
        self._processes[-1].terminate()
        try:
            return self._processes[-1].wait(25)
        except subprocess.TimeoutExpired:
            raise Broken("the shop did not end within 25 s of SIGTERM") from None

    def close(self) -> None:
        """Kill what still runs, and close the client."""
        for process in self._processes:
            process.kill()
            process.wait(10)
        self._client.close()

    def log_tail(self) -> str:
        """Return the last lines of the shop's log."""
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return "\n".join(lines[-15:])

    def get(self, path: str, **query: str | int) -> Any:
        """Return the answer's JSON."""
        return self._ask("GET", path, params=query)

    def post(self, path: str, body: object = None) -> Any:
        """Return the answer's JSON."""
        return self._ask("POST", path, json={} if body is None else body)

    def delete(self, path: str) -> Any:
        """Return the answer's JSON."""
        return self._ask("DELETE", path)

    def jobs(self, task: str) -> Iterator[dict[str, Any]]:
        """Return every job of the task, page by page."""
        query: dict[str, str | int] = {"task": task, "limit": 200}
        while True:
            page = self.get("/jobs", **query)
            yield from page["items"]
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        try:
            answer = self._client.request(method, path, **options)
        except httpx2.TransportError as error:
            raise Broken(f"{method} {path}: the shop does not answer ({error})") from error
        if answer.is_error:
            raise Broken(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json()

    def _answers(self) -> bool | None:
        if (status := self._processes[-1].poll()) is not None:
            raise Broken(f"the shop ended by itself with status {status}")
        try:
            return True if self._client.get("/jobs/health").is_success else None
        except httpx2.TransportError:
            return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
