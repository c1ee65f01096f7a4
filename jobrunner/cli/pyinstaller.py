"""Makes a single-file executable of PyInstaller behave like one process.

Such a program runs as two processes: the bootloader, which the user starts, unpacks the program into a folder, starts
it as a second process, and waits.  In other programs this module does nothing.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Final

MARK: Final = ".in-use"
"""The name of a file in the unpacked folder that is locked while its process lives."""

_PR_SET_PDEATHSIG: Final = 1

_held: list[int] = []
"""File descriptors that stay open, and so locked, until the process ends."""


def settle() -> None:
    """Make a single-file executable behave like one process.

    Call it first in the program.  Afterwards ``kill -9`` of the bootloader ends this process too, and the folders that
    killed processes left in the directory for temporary files are removed.  In a child that ``multiprocessing``
    started, this function does not return.
    """
    if not getattr(sys, "frozen", False):
        return
    import multiprocessing
    import threading

    _die_with_bootloader()
    multiprocessing.freeze_support()
    unpacked = getattr(sys, "_MEIPASS", None)
    if unpacked is not None:
        _mark(Path(unpacked))
        # In a thread, so that the start does not wait. If the process ends first, the next start removes the rest.
        threading.Thread(
            target=remove_stale, args=(Path(unpacked),), name="remove-stale", daemon=True
        ).start()


def die_with(parent: int) -> None:
    """Make the kernel kill this process when its parent dies.

    If the parent has already died, this process ends at once.

    Args:
        parent: the process id of the parent.
    """
    _ask_kernel()
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)


def _die_with_bootloader() -> None:
    _ask_kernel()
    with contextlib.suppress(OSError):
        # Compare executables and not the parent's id with 1: in a container the bootloader itself is process 1.
        if Path(f"/proc/{os.getppid()}/exe").readlink() != Path("/proc/self/exe").readlink():
            os._exit(128 + signal.SIGKILL)


def _ask_kernel() -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _mark(folder: Path) -> None:
    """Lock a file in the folder for as long as this process lives."""
    import fcntl

    new = folder / f"{MARK}.new"
    with contextlib.suppress(OSError):
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _held.append(fd)
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Rename only after locking, so that other processes never find the file unlocked.
        new.replace(folder / MARK)


def remove_stale(own: Path) -> None:
    """Remove the unpacked folders next to ``own`` whose processes were killed.

    Folders without a mark stay, since other programs unpack into the same directory.
    """
    with contextlib.suppress(OSError), os.scandir(own.parent) as entries:
        for entry in entries:
            if (
                entry.name.startswith("_MEI")
                and entry.name != own.name
                and entry.is_dir(follow_symlinks=False)
                and entry.stat(follow_symlinks=False).st_uid == os.geteuid()
            ):
                _remove_if_dead(Path(entry.path))


def _remove_if_dead(folder: Path) -> None:
    import fcntl
    import shutil

    try:
        fd = os.open(folder / MARK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return  # its process lives
    finally:
        os.close(fd)
