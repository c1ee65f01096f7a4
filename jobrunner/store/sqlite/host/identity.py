"""Identifies a store's file: one claim per process, an unchanged file, a local disk.

This module only calls ``os.stat``.  Only SQLite ever opens a database, its ``-wal`` or its ``-shm``: closing any other
descriptor would drop SQLite's own locks on the file.
"""

import os
import re
import threading
from pathlib import Path
from typing import Final, Self

from jobrunner.core.errors import AlreadyRunning, StoreReplaced, StoreUnavailable, StoreUnsupported
from jobrunner.store.sqlite.host.record_locks import Inode, inode_of


def _find(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror}") from error


# -- one store, once per process -------------------------------------------------------------------

_mutex = threading.Lock()
_claims: "list[StoreClaim]" = []


def _start_anew_in_child() -> None:
    # A thread that held the mutex at the fork does not exist in the child.
    global _mutex  # noqa: PLW0603 - one per process
    _mutex = threading.Lock()


os.register_at_fork(after_in_child=_start_anew_in_child)


class StoreClaim:
    """A claim of this process to a store: no second runner here may open it."""

    __slots__ = ("_pid", "names", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pid = os.getpid()
        self.names: set[Inode | tuple[Inode, str]] = set()
        directory, name = os.path.split(path)
        place = _find(directory)
        if place is None:
            raise StoreUnavailable(f"{directory}: there is no such directory; make it first")
        # Two identities. Directory and name identify the store before the file exists and after it was replaced; the
        # inode identifies it under any other name. Claims that share either are to the same store.
        self.names.add((inode_of(place), name))
        self.pin()

    def pin(self) -> None:
        """Record the file's inode once the file exists, to recognize its other names."""
        if found := _find(str(self.path)):
            self.names.add(inode_of(found))

    def collides(self, other: "StoreClaim") -> bool:
        """Return whether both claims are to the same store."""
        self.pin()
        return not self.names.isdisjoint(other.names)

    def inherited(self) -> bool:
        """Return whether a parent of this forked process made the claim."""
        return self._pid != os.getpid()

    def release(self) -> None:
        """Release the claim; safe to call twice, without effect in a forked child."""
        with _mutex:
            if not self.inherited() and self in _claims:
                _claims.remove(self)


def claim_store(path: Path) -> StoreClaim:
    """Claim a store for one runner of this process; call before opening its files.

    The kernel cannot distinguish a second runner of the process from the first: it would get every lock that the first
    holds, and drop all of them at its close.  The file need not exist yet; call ``pin`` once it does.

    Raises:
        AlreadyRunning: This process has the store open, or was forked from one that had.
        StoreUnavailable: The directory does not exist or is not accessible.
    """
    claim = StoreClaim(Path(os.path.realpath(path)))
    with _mutex:
        for held in _claims:
            if not held.collides(claim):
                continue
            if held.inherited():
                # Seen in /proc/locks: SQLite's in-memory tables say that this process has the parent's locks, so SQLite
                # reads and writes here without any lock, and another process may truncate the log meanwhile.
                raise AlreadyRunning(
                    f"this process was forked while {path} was open, and SQLite cannot be used on both sides of a fork;"
                    " start it with multiprocessing.get_context('spawn'), or open the runner after the fork"
                )
            raise AlreadyRunning(
                f"{path} is open already in this process; use the runner that has it open, or leave its"
                " lifespan or `async with jobs.running()` first (one runner per file and process)"
            )
        _claims.append(claim)
    return claim


# -- the same file as at the start -----------------------------------------------------------------


class FileIdentity:
    """The inodes of an open database's files, to detect that one was replaced.

    A check costs three calls of ``stat``.  While SQLite has the files open their inodes cannot be reused, so an equal
    inode is the same file.  A check finds a replacement only afterwards: it limits the loss but does not prevent it.
    """

    __slots__ = ("_beside", "_inode", "path")

    def __init__(self, path: Path, inode: Inode) -> None:
        self.path = path
        self._inode = inode
        self._beside: dict[str, Inode] = {}

    def is_at(self, path: str) -> bool:
        """Return whether the path is another name of the database file."""
        found = _find(path)
        return found is not None and inode_of(found) == self._inode

    @classmethod
    def of(cls, path: Path) -> Self:
        """Record the identity of the database's files.

        Call it while a connection is open that has read from the database.

        Raises:
            StoreReplaced: The file does not exist (any more).
            StoreUnsupported: The file has a second name (hard link), so two processes could miss each other's ``-wal``.
        """
        real = Path(os.path.realpath(path))
        found = _find(str(real))
        if found is None:
            raise StoreReplaced(f"{real} was moved or deleted while open")
        if found.st_nlink != 1:
            raise StoreUnsupported(
                f"{real} has {found.st_nlink} names (hard links); a database must have one: remove the others"
            )
        identity = cls(real, inode_of(found))
        identity.check()
        return identity

    def check(self) -> None:
        """Check that the files at the paths are still the open ones.

        Raises:
            StoreReplaced: A file was moved, deleted or replaced, or got a second name.
            StoreUnavailable: ``stat`` failed.
        """
        self._compare(str(self.path), self._inode)
        for ending in ("-wal", "-shm"):
            # SQLite creates them at its first read of the data, and keeps them until the last connection closes.
            path = f"{self.path}{ending}"
            known = self._beside.get(ending)
            if known is not None:
                self._compare(path, known)
            elif found := _find(path):
                self._beside[ending] = inode_of(found)

    @staticmethod
    def _compare(path: str, known: Inode) -> None:
        found = _find(path)
        if found is None:
            raise StoreReplaced(
                f"{path} was moved or deleted while open; what is written now would be lost"
            )
        if inode_of(found) != known:
            raise StoreReplaced(
                f"{path} was replaced while open; what is written now would be lost"
            )
        if found.st_nlink != 1:
            raise StoreReplaced(f"{path} has got a second name (hard link) while open; remove it")


# -- on a local disk -------------------------------------------------------------------------------

_NETWORK: Final = re.compile(
    r"nfs4?|cifs|smb[23]|smbfs|ncpfs|9p|afs|coda|ceph|lustre|gpfs|beegfs|glusterfs|ocfs2|gfs2|orangefs|pvfs2|davfs"
    r"|fuse\.(sshfs|ceph|ceph-fuse|glusterfs|davfs2|rclone|s3fs|goofys|gcsfuse|blobfuse2?|juicefs|mfs|moosefs"
    r"|seaweedfs|smbnetfs|curlftpfs)"
)
"""Types on which another machine may write to the same file; not all of FUSE, which rootless containers run on."""

_MOUNT: Final = re.compile(r"^\d+ \d+ \S+ \S+ (?P<point>\S+) .*? - (?P<kind>\S+) ", re.MULTILINE)
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


_MOUNTINFO: Final = Path("/proc/self/mountinfo")


def file_system(path: str, mountinfo: str) -> str | None:
    """Return the type of the file system at an absolute path; None if unknown.

    Args:
        path: an absolute path without symbolic links.
        mountinfo: the text of ``/proc/self/mountinfo``.

    Source: proc_pid_mountinfo(5).
    """
    longest, answer = -1, None
    for mount in _MOUNT.finditer(mountinfo):
        point = _ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), mount["point"])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        # >=: of two mounts at one point the later one is visible.
        if inside and len(point) >= longest:
            longest, answer = len(point), mount["kind"]
    return answer


def network_file_system(path: Path) -> str | None:
    """Return the type of the network file system at the path; None if local or unknown."""
    return _kind_if(_NETWORK, path)


_LAYER: Final = re.compile(r"overlay|aufs|unionfs|fuse\.(fuse-)?overlayfs|fuse\.unionfs")
"""Types of a container's root: read-only layers of the image, and one layer that is deleted with the container."""


def container_layer(path: Path) -> str | None:
    """Return the type of the layered file system at the path; None if another or unknown."""
    return _kind_if(_LAYER, path)


def _kind_if(kinds: re.Pattern[str], path: Path) -> str | None:
    try:
        # A path may have bytes that are not UTF-8; os.fsdecode keeps them comparable.
        mountinfo = os.fsdecode(_MOUNTINFO.read_bytes())
    except OSError:
        return None
    kind = file_system(os.path.realpath(path), mountinfo)
    return kind if kind and kinds.fullmatch(kind) else None
