"""Gives each worker a socket on which other processes of this machine announce work.

A ring is only a hint.  A ring that fails is not an error, its content is ignored, and the poll finds the work anyway.
"""

import asyncio
import atexit
import contextlib
import errno
import functools
import os
import re
import secrets
import socket
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

from jobrunner.core.logs import log_of

logger = log_of("jobrunner")

_LONGEST_ADDRESS: Final = 107 if sys.platform == "linux" else 103
"""Bytes of ``sun_path``, less the final NUL."""

_BELL_FILE: Final = re.compile(r"/jobrunner-\d+/[0-9a-f]{16}\.bell\Z")

_DRAIN: Final = 32
"""Datagrams to read per wake-up: more than a socket's queue holds (11 on Linux), but bounded under a flood."""


_SHORT_DIRECTORY: Final = Path("/tmp")  # noqa: S108 - private_directory checks what it finds there


def _runtime_directories() -> Iterator[Path]:
    name = f"jobrunner-{os.geteuid()}"
    with contextlib.suppress(OSError):
        yield Path(tempfile.gettempdir()) / name
    yield _SHORT_DIRECTORY / name


def private_directory(path: Path) -> None:
    """Create the directory with mode 0700, or check that an existing one is private.

    A private directory is a real directory of this user that nobody else can use.

    Raises:
        OSError: The directory cannot be created, or is not private.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    # lstat: in a directory that everybody may write to, another user's symlink could redirect us.
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(path))
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(errno.EPERM, "another user can get in", str(path))


class Doorbell:
    """A worker's doorbell: a socket that wakes the worker's event loop."""

    __slots__ = ("_loop", "_on_ring", "_pid", "_socket", "address")

    def __init__(self, listening: socket.socket, address: str, on_ring: Callable[[], None]) -> None:
        self.address = address
        self._socket = listening
        self._on_ring = on_ring
        self._pid = os.getpid()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(listening.fileno(), self._answer)

    @classmethod
    def open(cls, on_ring: Callable[[], None]) -> Self | None:
        """Open a doorbell on the running loop.

        Args:
            on_ring: called on the loop, once per burst of rings.

        Returns:
            None if no private directory has a short enough path for a socket; then only the poll finds work.
        """
        for directory in _runtime_directories():
            address = str(directory / f"{secrets.token_hex(8)}.bell")
            if len(os.fsencode(address)) > _LONGEST_ADDRESS:
                continue
            try:
                private_directory(directory)
                _remove_dead_bells(directory)
                listening = _bound(address)
            except OSError as error:
                logger.debug("no doorbell in %s: %s", directory, error)
                continue
            return cls(listening, address, on_ring)
        logger.debug("no doorbell: other processes' jobs are found by the poll")
        return None

    def _answer(self) -> None:
        with contextlib.suppress(OSError):
            for _ in range(_DRAIN):
                self._socket.recv(1)
        self._on_ring()

    def close(self) -> None:
        """Close the socket and remove its file; safe to call twice."""
        if self._socket.fileno() < 0:
            return
        if self._pid == os.getpid():
            # Not in a forked child: it shares the parent's epoll, so the parent would get no further rings.
            self._loop.remove_reader(self._socket.fileno())
            with contextlib.suppress(OSError):
                os.unlink(self.address)
        self._socket.close()


def _bound(address: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        listening.setblocking(False)
        # Bound under another name first: for a moment a new socket file refuses connections as a dead one does, and
        # another process may be removing dead ones.
        newborn = f"{address.removesuffix('.bell')}.new"
        listening.bind(newborn)
        os.rename(newborn, address)
    except BaseException:
        listening.close()
        raise
    return listening


def _remove_dead_bells(directory: Path) -> None:
    """Remove the sockets that killed processes left.

    The check only connects, which sends nothing, so it does not wake live workers.
    """
    with os.scandir(directory) as entries:
        for entry in entries:
            if not _BELL_FILE.search(entry.path):
                continue
            with (
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe,
                contextlib.suppress(OSError),
            ):
                try:
                    probe.connect(entry.path)
                except ConnectionRefusedError:
                    # The refusal is final: a name is bound only once, and the socket that bound it is closed.
                    os.unlink(entry.path)


@functools.cache
def _ringing_socket() -> socket.socket:
    ringing = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ringing.setblocking(False)
    atexit.register(ringing.close)
    return ringing


def ring(address: str) -> bool:
    """Ring another process's doorbell; never waits.

    Returns:
        False if the socket is gone or closed, or its queue is full.
    """
    # The address comes from the database: a writer there must not make us send to another kind of socket.
    if not _BELL_FILE.search(address):
        return False
    try:
        _ringing_socket().sendto(b"\0", address)
    except OSError:
        return False
    return True
