"""The doorbell, between real processes; whatever goes wrong with it must cost nothing but the hint."""

import asyncio
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import jobrunner
from jobrunner.store.sqlite.host import doorbell
from jobrunner.store.sqlite.host.doorbell import Doorbell, private_directory, ring

ROOT = Path(next(iter(jobrunner.__path__))).parent


@pytest.fixture(autouse=True)
def runtime(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The runtime directory, in a temporary place with a path short enough for a socket."""
    tmp_path_factory.getbasetemp()  # made now, or pytest would make it for all other tests in the place patched below
    short = tempfile.mkdtemp(prefix="b")
    monkeypatch.setattr(tempfile, "tempdir", short)
    monkeypatch.setattr(doorbell, "_SHORT_DIRECTORY", Path(short) / "short")
    yield Path(short) / f"jobrunner-{os.geteuid()}"
    shutil.rmtree(short)


class Ear:
    """Counts the calls of a doorbell, and lets a test wait for one."""

    def __init__(self) -> None:
        self.heard = 0
        self._event = asyncio.Event()

    def __call__(self) -> None:
        self.heard += 1
        self._event.set()

    async def hear(self) -> None:
        async with asyncio.timeout(10):
            await self._event.wait()
        self._event.clear()


@pytest.fixture
async def ear() -> Ear:
    return Ear()


def hang(ear: Ear) -> Doorbell:
    bell = Doorbell.open(ear)
    assert bell is not None
    return bell


def run(script: str, *args: str) -> str:
    """Run a script in another process; return what it printed."""
    prelude = "import os, sys, asyncio\nfrom jobrunner.store.sqlite.host.doorbell import *\n"
    return subprocess.run(
        [sys.executable, "-c", prelude + script, *args],
        check=False,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": tempfile.gettempdir()},
    ).stdout.strip()


def dead_bell() -> str:
    """Return the address that a killed process left."""
    return run("""
async def main():
    print(Doorbell.open(print).address, flush=True)
    os.kill(os.getpid(), 9)
asyncio.run(main())
""")


async def test_ring_from_another_process_wakes_the_loop(ear: Ear) -> None:
    bell = hang(ear)
    assert run("print(ring(sys.argv[1]))", bell.address) == "True"
    await ear.hear()
    bell.close()


async def test_ring_many_times_before_the_loop_looks_calls_once(ear: Ear) -> None:
    bell = hang(ear)
    assert all(ring(bell.address) for _ in range(5))
    await ear.hear()
    assert ear.heard == 1
    assert ring(bell.address)
    await ear.hear()
    assert ear.heard == 2
    bell.close()


async def test_ring_at_a_stuck_process_answers_false_and_never_waits(ear: Ear) -> None:
    """B12: nobody reads; the queue of the socket is finite."""
    bell = hang(ear)
    rung = 0
    while ring(bell.address):
        rung += 1
        assert rung < 100_000
    await ear.hear()
    assert ring(bell.address)
    bell.close()


async def test_ring_where_the_process_was_killed_answers_false() -> None:
    address = dead_bell()
    assert Path(address).is_socket()
    assert ring(address) is False


async def test_ring_where_nothing_is_any_more_answers_false(ear: Ear) -> None:
    bell = hang(ear)
    bell.close()
    assert not Path(bell.address).exists()
    assert ring(bell.address) is False


async def test_ring_at_an_address_that_is_no_doorbell_sends_nothing(runtime: Path) -> None:
    """The address comes from the database, and a user who can write there must not reach other sockets."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.setblocking(False)
        address = str(runtime.parent / "journal")
        journal.bind(address)
        for wrong in (address, "", "\0abstract", "x" * 1000, f"{address}\0.bell", "\ud800"):
            assert ring(wrong) is False
        with pytest.raises(BlockingIOError):
            journal.recv(1)


async def test_without_a_free_descriptor_there_is_no_bell_and_no_error(ear: Ear) -> None:
    """A28."""
    bell = hang(ear)
    said = run(
        """
import resource
async def main():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    print(ring(sys.argv[1]), Doorbell.open(print))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    print(ring(sys.argv[1]))
asyncio.run(main())
""",
        bell.address,
    )
    assert said.split() == ["False", "None", "True"]
    bell.close()


async def test_what_a_ring_says_is_not_looked_at(ear: Ear) -> None:
    """T10."""
    bell = hang(ear)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"", bell.address)
        stranger.sendto(b"DROP TABLE" * 5_000, bell.address)
    await ear.hear()
    assert ear.heard == 1
    bell.close()


async def test_a_flood_lets_the_loop_turn_between_two_handfuls(
    ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorbell, "_DRAIN", 2)
    bell = hang(ear)
    for _ in range(5):
        ring(bell.address)
    for _ in range(3):
        await ear.hear()
    assert ear.heard == 3
    bell.close()


async def test_ring_from_many_threads_reaches_the_bell(ear: Ear) -> None:
    bell = hang(ear)
    threads = [threading.Thread(target=ring, args=(bell.address,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    await ear.hear()
    for thread in threads:
        thread.join()
    bell.close()


async def test_open_takes_down_dead_bells_and_leaves_living_ones_silent(
    ear: Ear, runtime: Path
) -> None:
    """B8."""
    dead = Path(dead_bell())
    living = hang(ear)
    other_file = runtime / "notes.txt"
    other_file.touch()
    assert not dead.exists()
    newcomer = hang(Ear())
    assert {entry.name for entry in runtime.iterdir()} == {
        Path(living.address).name,
        Path(newcomer.address).name,
        "notes.txt",
    }
    assert ring(living.address)
    await ear.hear()
    assert ear.heard == 1
    living.close()
    newcomer.close()


async def test_open_makes_a_private_directory(ear: Ear, runtime: Path) -> None:
    bell = hang(ear)
    assert Path(bell.address).parent == runtime
    assert runtime.stat().st_mode & 0o777 == 0o700
    bell.close()


async def test_open_below_too_long_a_path_goes_to_the_short_place(
    ear: Ear, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = runtime.parent / ("l" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    short = runtime.parent / "short"
    short.mkdir()
    bell = hang(ear)
    assert Path(bell.address).parent.parent == short
    bell.close()


@pytest.mark.parametrize("trap", ["symlink", "file", "open to others", "another user's"])
async def test_open_with_a_directory_that_is_a_trap_hangs_no_bell(
    trap: str,
    runtime: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """T9."""
    elsewhere = runtime.parent / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    match trap:
        case "symlink":
            runtime.symlink_to(elsewhere)
        case "file":
            runtime.touch()
        case "open to others":
            runtime.mkdir()
            runtime.chmod(0o777)
        case _:
            runtime.mkdir(mode=0o700)
            monkeypatch.setattr(doorbell, "_runtime_directories", lambda: iter([runtime]))
            monkeypatch.setattr(os, "geteuid", lambda: runtime.stat().st_uid + 1)
    caplog.set_level(logging.DEBUG, "jobrunner")
    assert Doorbell.open(lambda: None) is None
    assert {record.levelname for record in caplog.records} == {"DEBUG"}
    assert list(elsewhere.iterdir()) == []


async def test_open_that_cannot_be_bound_leaves_no_descriptor(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(list(Path("/dev/fd").iterdir()))

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "rename", refuse)
    assert Doorbell.open(lambda: None) is None
    assert len(list(Path("/dev/fd").iterdir())) == before


async def test_close_twice_and_from_a_forked_child_leaves_the_parent_hearing(ear: Ear) -> None:
    bell = hang(ear)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)
        bell.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0  # noqa: ASYNC222 - it ends at once
    assert ring(bell.address)
    await ear.hear()
    bell.close()
    bell.close()


def test_close_after_its_loop_is_closed_takes_the_bell_down() -> None:
    async def main() -> Doorbell:
        return hang(Ear())

    bell = asyncio.run(main())
    bell.close()
    assert not Path(bell.address).exists()


def test_private_directory_in_place_of_a_file_raises(tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0o600)
    with pytest.raises(NotADirectoryError):
        private_directory(tmp_path / "file")


def test_private_directory_below_a_missing_one_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        private_directory(tmp_path / "missing" / "here")
