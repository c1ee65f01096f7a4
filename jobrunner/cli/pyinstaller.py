"""Makes a single-file executable (PyInstaller) behave like one process; does nothing in other programs.

Such a program is two processes: the one that the user sees unpacks the other into a folder, starts it, and waits.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Final

MARK: Final = ".in-use"
"""In the folder that is unpacked to; locked while its process lives."""

_PR_SET_PDEATHSIG: Final = 1

_held: list[int] = []
"""Descriptors whose locks last as long as the process."""


def settle() -> None:
    """Make a single-file executable behave like one process; call it first in the program.

    Afterwards ``kill -9`` of the process that the user sees ends this one too, and what such an end has left behind in
    the folder for temporary files is removed.  A child that was started by ``multiprocessing`` does not return from
    here.
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
        # Beside the start and not before it; a start that ends sooner leaves the rest to the next one.
        threading.Thread(
            target=remove_stale, args=(Path(unpacked),), name="remove-stale", daemon=True
        ).start()


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies; end at once if it has died already.

    Args:
        parent: the parent's process id.
    """
    _ask_kernel()
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)


def _die_with_bootloader() -> None:
    _ask_kernel()
    with contextlib.suppress(OSError):
        # Not whether the parent is process 1: in a container the bootloader itself is.
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
        # Only a file that is locked already gets the name that others search for.
        new.replace(folder / MARK)


def remove_stale(own: Path) -> None:
    """Remove the folders beside our own whose processes were killed.

    Only those with a mark: other programs unpack to the same place.
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
