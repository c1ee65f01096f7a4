"""Other processes that hold locks, and words between them and the test."""

import os
import select
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.support.forks import start_blocking
from tests.support.processes import CHECKOUT, PATIENCE_S

PRELUDE: Final = """
import os, sys
from pathlib import Path
from jobrunner.core.errors import StoreBusy
from jobrunner.store.sqlite.host.locks import *
from jobrunner.store.sqlite.host.turnstile import Turnstile
from jobrunner.store.sqlite.host import locks
here = Path(sys.argv[1])
def say(word): print(word, flush=True)
def hear(): return sys.stdin.readline().strip()
"""


class Child:
    """A process that runs a script; it writes words to its stdout and reads ours from its stdin."""

    def __init__(self, script: str, here: Path) -> None:
        into, write = os.pipe()
        read, out = os.pipe()
        self._in = os.fdopen(write, "w", buffering=1)
        self._out = os.fdopen(read)
        environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
        try:
            self._process = start_blocking(
                ["-c", PRELUDE + script, str(here)], into, out, env=environment, cwd=CHECKOUT
            )
        finally:
            os.close(into)
            os.close(out)

    def hear(self) -> str:
        return self._out.readline().strip()

    def silent(self) -> bool:
        """Return whether the process has written nothing that is still unread."""
        return not select.select([self._out], [], [], 0)[0]

    def tell(self, word: str = "go") -> None:
        self._in.write(f"{word}\n")

    def pause(self) -> None:
        """Stop it where it stands."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def wait(self) -> int:
        """Wait for its end; return its exit code."""
        return self._process.wait(PATIENCE_S)

    def kill(self) -> None:
        self._process.kill()
        self.wait()

    def end(self) -> int:
        """Close its input, and wait for its end."""
        self._in.close()
        return self.wait()

    def discard(self) -> None:
        self.kill()
        self._in.close()
        # To the end: a process that it has forked may still have the pipes.
        self._out.read()
        self._out.close()


Spawn = Callable[[str], Child]
"""Starts a child with a script, in the directory of the test."""


def in_forked_child(check: Callable[[], bool]) -> bool:
    """Return whether ``check`` holds in a forked copy of this process."""
    with warnings.catch_warnings():
        # Later Pythons warn of a fork beside threads; the child here does nothing that could hang on one.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        # A child that hangs must not outlive the test.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)
        good = False
        try:
            good = check()
        finally:
            os._exit(0 if good else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))
