"""The demo, as somebody runs it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

pytestmark = [pytest.mark.slow, pytest.mark.rest]


@contextmanager
def demo(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the demo with a separate directory for temporary files."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "SHOP_PORT": "none"}
    with subprocess.Popen(
        [sys.executable, "-m", "app.demo"],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def said(running: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """Read on to a line that matches."""
    assert running.stdout is not None
    lines = []
    for line in running.stdout:
        lines.append(line)
        if match := re.search(pattern, line):
            return match
    raise AssertionError("".join([f"never said: {pattern}\n", *lines]))


def is_gone(pid: int) -> bool:
    """Return whether no process has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_demo_shows_that_the_promises_hold_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        output, _ = running.communicate(timeout=120)

    assert running.returncode == 0, output
    assert "0 lost" in output
    assert "exhausted" in output
    assert "the order's batch went on: 2 of 2 jobs succeeded" in output
    assert "its callback ran after them: the warehouse has 1 mail" in output
    assert "\x1b" not in output, "colours are for people at a terminal"
    pids = {int(pid) for pid in re.findall(r"pid (\d+)", output)}
    assert len(pids) == 2
    assert all(is_gone(pid) for pid in pids)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_demo_that_is_stopped_leaves_nothing_behind(tmp_path: Path, stop: signal.Signals) -> None:
    with demo(tmp_path) as running:
        pid = int(said(running, r"pid (\d+)")[1])
        said(running, "attempt 1 failed")
        running.send_signal(stop)
        output, _ = running.communicate(timeout=20)

    assert running.returncode == 130, output
    assert is_gone(pid)
    assert list(tmp_path.iterdir()) == []


def test_demo_says_which_promise_was_broken(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        pid = int(said(running, r"pid (\d+)")[1])
        said(running, "attempt 1 failed")
        os.kill(pid, signal.SIGKILL)
        output, _ = running.communicate(timeout=60)

    assert running.returncode == 1, output
    assert "does not answer" in output
    assert list(tmp_path.iterdir()) == []
