"""Removal of the files that a killed single-file executable leaves behind."""

import asyncio
import fcntl
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from jobrunner.cli import pyinstaller
from jobrunner.runner import shutdown
from tests.support.processes import process


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder for temporary files, with our own unpacked one in it."""
    monkeypatch.setattr(pyinstaller, "_held", [])
    (tmp_path / "_MEIown").mkdir()
    return tmp_path


def unpacked(place: Path, name: str, *, mark: bool = True) -> Path:
    """Make a folder as a killed process leaves it."""
    folder = place / name
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "some.so").write_bytes(b"x")
    if mark:
        (folder / pyinstaller.MARK).touch()
    return folder


def test_folder_of_a_killed_process_is_removed(place: Path) -> None:
    stale = unpacked(place, "_MEIstale")
    pyinstaller.remove_stale(place / "_MEIown")
    assert not stale.exists()
    assert (place / "_MEIown").exists()


def test_folder_without_our_mark_or_name_is_left(place: Path) -> None:
    other = unpacked(place, "_MEIother", mark=False)
    named = unpacked(place, "somebody-s")
    target = unpacked(place, "target")
    (place / "_MEIlink").symlink_to(target)
    pyinstaller.remove_stale(place / "_MEIown")
    assert all(folder.exists() for folder in (other, named, target))


async def test_folder_of_a_process_that_lives_is_left_until_it_is_killed(place: Path) -> None:
    code = (
        "import sys, pathlib; from jobrunner.cli import pyinstaller;"
        "folder = pathlib.Path(sys.argv[1]); folder.mkdir(); pyinstaller._mark(folder);"
        'print(\'{"word": "marked"}\', flush=True); sys.stdin.readline()'
    )
    async with process("-c", code, str(place / "_MEIalive")) as alive:
        await alive.heard("marked")
        pyinstaller.remove_stale(place / "_MEIown")
        assert (place / "_MEIalive" / pyinstaller.MARK).exists()
        await alive.kill()
    pyinstaller.remove_stale(place / "_MEIown")
    assert not (place / "_MEIalive").exists()


def test_mark_appears_only_locked(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    lock = fcntl.lockf

    def watch(fd: int, how: int) -> None:
        seen.append((place / "_MEIown" / pyinstaller.MARK).exists())
        lock(fd, how)

    monkeypatch.setattr(fcntl, "lockf", watch)
    pyinstaller._mark(place / "_MEIown")
    assert seen == [False]
    assert (place / "_MEIown" / pyinstaller.MARK).exists()
    for fd in pyinstaller._held:
        os.close(fd)


async def test_child_ends_with_its_parent(place: Path) -> None:
    # The parent starts a child that asks to die with it, says its pid, and waits.
    code = (
        "import os, sys, subprocess\n"
        "child = 'import os, sys; from jobrunner.cli import pyinstaller; pyinstaller.die_with(int(sys.argv[1]));'\n"
        'child += \'print(chr(123) + chr(34) + "word" + chr(34) + ": " + chr(34) + "up" + chr(34) + chr(125),\'\n'
        "child += ' flush=True); open(sys.argv[2]).read()'\n"
        "subprocess.run([sys.executable, '-c', child, str(os.getpid()), sys.argv[1]])\n"
    )
    pipe = place / "pipe"
    os.mkfifo(pipe)
    async with process("-c", code, str(pipe)) as parent:
        await parent.heard("up")
        # As long as the child lives it stands at the pipe, and somebody could come to write.
        await parent.kill()
    async with asyncio.timeout(10):
        await asyncio.to_thread(_nobody_reads, pipe)


def _nobody_reads(pipe: Path) -> None:
    """Return once no process is about to read from the pipe."""
    while True:
        try:
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return


def test_settle_in_an_ordinary_program_does_nothing(place: Path) -> None:
    stale = unpacked(place, "_MEIstale")
    pyinstaller.settle()
    assert stale.exists()


def test_signal_that_is_passed_on_is_heard_once_and_only_in_an_executable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[int] = []
    assert shutdown.without_echo(heard.append) == heard.append
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    now_s = 100.0
    monkeypatch.setattr(time, "clock_gettime", lambda _: now_s)
    handle = shutdown.without_echo(heard.append)
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
        handle(number)
    assert heard == [signal.SIGINT, signal.SIGTERM]
    now_s += 2 * shutdown.ECHO_S
    handle(signal.SIGINT)
    assert heard == [signal.SIGINT, signal.SIGTERM, signal.SIGINT]
