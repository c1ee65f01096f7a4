"""Scripts in processes of their own: for what a test cannot do to the process that it runs in."""

import os
import subprocess
import sys
from typing import Final

from tests.support.processes import CHECKOUT

PATIENCE_S: Final = 60.0


def run(script: str, *args: object) -> str:
    """Run a script to its end, which must come by itself and be a good one; return what it printed."""
    return communicate(start(script, *args))


def start(script: str, *args: object) -> subprocess.Popen[str]:
    """Start a script that sees the library and the tests; end it with ``communicate``."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )


def communicate(child: subprocess.Popen[str], said: str | None = None) -> str:
    """Send a child its last input, wait for its end, and return its output."""
    try:
        out, err = child.communicate(said, timeout=PATIENCE_S)
    finally:
        child.kill()
    assert child.returncode == 0, err
    return out.strip()
