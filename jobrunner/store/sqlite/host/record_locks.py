"""POSIX record locks (``lockf``) on small files, which exclude processes from one another.

The rules of the kernel:

- A lock belongs to a process, not to a descriptor or a thread.  The kernel frees it when the process dies, however it
  dies; a forked child never has it.
- A second descriptor of the same process gets a lock that the first one "holds", and **closing any descriptor of the
  file drops every lock that the process has on it**.  So a locked file is opened exactly once.
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
"""POSIX allows EAGAIN and EACCES for a lock that another process holds; EDEADLK is a false alarm of the kernel, which
takes the threads of a process for one."""


def try_lock(fd: int) -> bool:
    """Lock the file of a descriptor; return False if another process has the lock."""
    try:
        fcntl.lockf(fd, _TRY)
    except OSError as error:
        if error.errno in _NO_LUCK:
            return False
        raise
    return True


def translated(error: OSError, path: str | Path) -> StoreError:
    """Return an error of the system on a file of the store as a ``StoreError``."""
    kind = StoreFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreUnavailable
    return kind(f"{path}: {error.strerror or error}")


@contextlib.contextmanager
def store_errors(path: str | Path) -> Iterator[None]:
    """Raise an ``OSError`` of the block as a ``StoreError``."""
    try:
        yield
    except OSError as error:
        raise translated(error, path) from error


def give_away(fd: int, place: Path) -> None:
    """Give a file that the superuser has made to the owner of the file or folder that it serves.

    SQLite does so with its log. Otherwise one command that root runs would lock the service out of its own store.
    """
    if os.geteuid() == 0:
        owner = os.stat(place)
        # Without the right to, as in some containers, it stays as it is.
        with contextlib.suppress(PermissionError):
            os.fchown(fd, owner.st_uid, owner.st_gid)


def create(path: Path) -> int:
    """Return a descriptor of a new file; raises ``FileExistsError`` if there is one."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    try:
        give_away(fd, path.parent)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_or_create(path: Path) -> int:
    """Return a descriptor of a file that is never removed, made if there is none."""
    try:
        return create(path)
    except FileExistsError:
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)


def inode_of(found: os.stat_result) -> Inode:
    """Return the identity of a file, which all its names share."""
    return found.st_dev, found.st_ino


def is_at(path: Path, inode: Inode) -> bool:
    """Return whether the path names this file."""
    try:
        return inode_of(os.lstat(path)) == inode
    except FileNotFoundError:
        return False
