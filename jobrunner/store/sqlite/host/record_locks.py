"""Uses POSIX record locks (``lockf``) on small files as locks between processes.

The rules of the kernel:

- A lock belongs to a process, not to a descriptor or a thread.  The kernel frees it when the process dies, however it
  dies; a forked child does not inherit it.
- A second descriptor of the same process also gets a lock that the first one "holds", and **closing any descriptor of
  the file drops every lock that the process has on it**.  So a locked file is opened exactly once.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from jobrunner.core.errors import StoreError, StoreFull, StoreUnavailable

Inode = tuple[int, int]

_TRY: Final = fcntl.LOCK_EX | fcntl.LOCK_NB
_NO_LUCK: Final = frozenset({errno.EAGAIN, errno.EACCES, errno.EDEADLK})
"""Errors of a lock that another process holds: POSIX allows EAGAIN and EACCES.  EDEADLK is a false alarm of the kernel,
which treats all threads of a process as one lock owner."""


def try_lock(fd: int) -> bool:
    """Lock a file by its descriptor; return False if another process holds the lock."""
    try:
        fcntl.lockf(fd, _TRY)
    except OSError as error:
        if error.errno in _NO_LUCK:
            return False
        raise
    return True


def translated(error: OSError, path: str | Path) -> StoreError:
    """Return the ``StoreError`` for an ``OSError`` on a file of the store."""
    kind = StoreFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreUnavailable
    return kind(f"{path}: {error.strerror or error}")


@contextlib.contextmanager
def store_errors(path: str | Path) -> Iterator[None]:
    """Translate an ``OSError`` of the block into a ``StoreError``."""
    try:
        yield
    except OSError as error:
        raise translated(error, path) from error


def give_away(fd: int, place: Path) -> None:
    """Give a file that root has created to the owner of ``place``.

    ``place`` is the file or folder that it belongs to. SQLite does the same with its log. Otherwise one command run by
    root would lock the service out of its store.
    """
    if os.geteuid() == 0:
        owner = os.stat(place)
        # Some containers deny chown; then the owner stays.
        with contextlib.suppress(PermissionError):
            os.fchown(fd, owner.st_uid, owner.st_gid)


def create(path: Path) -> int:
    """Create a file and return its descriptor.

    Raises:
        FileExistsError: The file exists.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    try:
        give_away(fd, path.parent)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_or_create(path: Path) -> int:
    """Open a file that is never removed, creating it if needed; return its descriptor."""
    try:
        return create(path)
    except FileExistsError:
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)


def inode_of(found: os.stat_result) -> Inode:
    """Return the identity of a file, the same for all its names."""
    return found.st_dev, found.st_ino


def is_at(path: Path, inode: Inode) -> bool:
    """Return whether the path leads to the file with this inode."""
    try:
        return inode_of(os.lstat(path)) == inode
    except FileNotFoundError:
        return False
