"""Other processes: started with a role of ``tests.support.children``, read line by line, ended for certain."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.forks import Started, start

CHECKOUT = Path(__file__).parents[2]
PATIENCE_S = 60.0
"""A Python that starts on a busy machine takes seconds."""


class Child:
    """A process that says what it has to say in lines of JSON."""

    def __init__(
        self,
        process: Started,
        errors: Path | None = None,
        *,
        session: bool = False,
    ) -> None:
        self._process = process
        self._errors = errors
        self._session = session
        self.pid = process.pid

    async def heard(self, word: str) -> dict[str, Any]:
        """Return the next line, which must be about ``word``."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE_S)
        assert line, f"a child ended before it said {word!r}; its errors are above"
        said: dict[str, Any] = json.loads(line)
        assert said["word"] == word, f"a child said {said} in place of {word!r}"
        return said

    def send_signal(self, number: int) -> None:
        """Send it a signal; nothing happens if it has ended."""
        if self._process.returncode is None:
            # Not by the process's own method, which looks whether it has ended, and so takes the exit status away from
            # the thread that waits for it: asyncio then says 255.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def send(self, line: str = "") -> None:
        """Send it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    def errors(self) -> str:
        """Return what it has written to its standard error so far, if that goes to a file."""
        assert self._errors is not None
        return self._errors.read_text(encoding="utf-8")

    async def ended(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait until it has ended by itself; return its exit code."""
        return await asyncio.wait_for(self._process.wait(), timeout_s)

    async def lives(self, seconds: float) -> bool:
        """Give it a while; return whether it still lives then."""
        try:
            await asyncio.wait_for(self._process.wait(), seconds)
        except TimeoutError:
            return True
        return False

    async def kill(self) -> None:
        """End it by ``kill -9``, with those of its session if it leads one, and wait until it is gone."""
        if self._session:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        else:
            self.send_signal(signal.SIGKILL)
        # To the end of its output: a pipe that is left open outlives the test's loop.
        await self._process.communicate()


@asynccontextmanager
async def process(
    *command: str,
    cwd: Path = CHECKOUT,
    session: bool = False,
    errors: Path | None = None,
    **variables: str,
) -> AsyncIterator[Child]:
    """Start a command of this Python, as ``forks.start`` does, and kill it at the end.

    Args:
        command: the arguments after ``python``.
        cwd: the working directory.
        session: True to start a new session, which receives signals of a terminal as a whole.
        errors: the file for standard error; by default that of the test.
        variables: additions to the environment.
    """
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1"} | variables
    with contextlib.ExitStack() as stack:
        started = Child(
            await start(
                command,
                cwd=cwd,
                env=environment,
                stderr=None if errors is None else stack.enter_context(errors.open("wb")),
                session=session,
            ),
            errors,
            session=session,
        )
    try:
        yield started
    finally:
        await started.kill()


def child(role: str, *args: object) -> Any:
    """Start ``python -m tests.support.children ROLE ARGS``, as an async context manager."""
    return process("-m", "tests.support.children", role, *map(str, args))


def say(word: str, **more: object) -> None:
    """Send a word to the parent, from within a child."""
    print(json.dumps({"word": word} | more), flush=True)  # noqa: T201 - the way to the parent
