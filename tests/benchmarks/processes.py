"""Starts other processes with a role of ``child``, reads their lines and ends them."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
PATIENCE_S = 60


class Child:
    """A process that says what it has to say in lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def heard(self, word: str) -> dict[str, Any]:
        """Return the next line, which must be about ``word``."""
        said = await self.hears(word)
        if said["word"] != word:
            raise RuntimeError(f"a child said {said} in place of {word!r}")
        return said

    async def hears(self, awaited: str) -> dict[str, Any]:
        """Return the next line, whatever it is about; ``awaited`` is for the error when there is none."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE_S)
        if not line:
            raise RuntimeError(f"a child ended before it said {awaited!r}; its errors are above")
        said: dict[str, Any] = json.loads(line)
        return said

    def tell(self, line: str) -> None:
        """Send it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    async def kill(self) -> None:
        """End it by ``kill -9`` and wait until it is gone."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def child(role: str, *args: object) -> AsyncIterator[Child]:
    """Start ``python -m tests.benchmarks.child ROLE ARGS`` and kill it at the end."""
    words = [sys.executable, "-m", "tests.benchmarks.child", role, *map(str, args)]
    async with program(*words) as started:
        yield started


@asynccontextmanager
async def program(*words: str) -> AsyncIterator[Child]:
    """Start a program in the checkout and kill it at the end."""
    process = await asyncio.create_subprocess_exec(
        *words, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    started = Child(process)
    try:
        yield started
    finally:
        await started.kill()


def say(word: str, **more: object) -> None:
    """Send a word to the parent, from within a child."""
    print(json.dumps({"word": word} | more), flush=True)
