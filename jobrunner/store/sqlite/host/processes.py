"""Finds the processes that have a file open, by the links in ``/proc``."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

_PROC: Final = Path("/proc")


class Holder(NamedTuple):
    """A process that has the file open."""

    pid: int
    command: str

    def __str__(self) -> str:
        """Return ``pid 1 (command)``."""
        return f"pid {self.pid} ({self.command})"


def that_have_open(path: Path) -> Sequence[Holder]:
    """Return the other processes that have the file open.

    Processes of other users are only visible with the right to inspect them.
    """
    wanted = os.path.realpath(path)
    try:
        pids = [int(name) for name in os.listdir(_PROC) if name.isdigit()]
    except OSError:
        return []
    return sorted(
        Holder(pid, _command(f"{_PROC}/{pid}"))
        for pid in pids
        if pid != os.getpid() and _has(f"{_PROC}/{pid}", wanted)
    )


def _has(process: str, wanted: str) -> bool:
    # A process may end or close the file between any two of these calls.
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(f"{process}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"{process}/fd/{descriptor}") == wanted:
                    return True
    return False


def _command(process: str) -> str:
    with contextlib.suppress(OSError):
        words = Path(process, "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        return os.fsdecode(b" ".join([os.path.basename(words[0]), *words[1:]]))[:60]
    return "?"
