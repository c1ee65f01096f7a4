"""Identifies a store's file: one claim per process, the same file as at the start, on a local disk.

Only ``os.stat`` is asked.  No code but SQLite ever opens a database, its ``-wal`` or its ``-shm``: closing the
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
    # Another thread may have held the mutex at the fork, and is not there to free it.
    global _mutex  # noqa: PLW0603 - one per process
    _mutex = threading.Lock()


os.register_at_fork(after_in_child=_start_anew_in_child)


class StoreClaim:
    """A claim of this process to a store: while it lasts, nothing else here may open the same file."""

    __slots__ = ("_pid", "names", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pid = os.getpid()
        self.names: set[Inode | tuple[Inode, str]] = set()
        directory, name = os.path.split(path)
        place = _find(directory)
        if place is None:
            raise StoreUnavailable(f"{directory}: there is no such directory; make it first")
        # Two names for one thing. The place says it before the file exists and after it was replaced; the inode says it
        # under any other name. A claim that shares either is a claim to the same store.
        self.names.add((inode_of(place), name))
        self.pin()

    def pin(self) -> None:
        """Note the file's inode, as soon as it exists: later, other names of the file are known too."""
        if found := _find(str(self.path)):
            self.names.add(inode_of(found))

    def collides(self, other: "StoreClaim") -> bool:
        """Return whether both mean the same store."""
        self.pin()
        return not self.names.isdisjoint(other.names)

    def inherited(self) -> bool:
        """Return whether it was made by a parent of this forked process."""
        return self._pid != os.getpid()

    def release(self) -> None:
        """Give the store up; safe to call twice. A forked child cannot give up what its parent holds."""
        with _mutex:
            if not self.inherited() and self in _claims:
                _claims.remove(self)


def claim_store(path: Path) -> StoreClaim:
    """Claim a store for one runner of this process, before any of its files is opened.

    A second one could not be told from the first by the kernel: it would get every lock that the first holds, and drop
    all of them at its close.  The file need not exist yet; call ``pin`` when it does.

    Raises:
        AlreadyRunning: this process has it open, or was forked from one that had.
        StoreUnavailable: its directory does not exist or cannot be looked at.
    """
    claim = StoreClaim(Path(os.path.realpath(path)))
    with _mutex:
        for held in _claims:
            if not held.collides(claim):
                continue
            if held.inherited():
                # Seen in /proc/locks: SQLite's tables in memory say that the parent's locks are this process's too, so
                # it reads and writes here without taking any, and another process may truncate the log beneath it.
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
    """The files of an open database as they were found at first.

    Three calls of ``stat`` a look.  While SQLite has the files open their inodes cannot be given out anew, so an equal
    inode is the same file.  What a look finds has happened already: it bounds the loss, it does not prevent it.
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
        """Note the identity of the database's files; to be called while a connection is open that has read from it.

        Raises:
            StoreReplaced: the file is not there (any more).
            StoreUnsupported: it has a second name (hard link), so two processes could miss each other's ``-wal``.
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
        """Make sure that the files are still the ones that are open.

        Raises:
            StoreReplaced: one was moved, deleted, replaced, or has got a second name.
            StoreUnavailable: the system does not say.
        """
        self._compare(str(self.path), self._inode)
        for ending in ("-wal", "-shm"):
            # SQLite makes them at its first look at the data, and keeps them until the last connection is closed.
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
"""Where another machine may write to the same file.  By name: rootless containers run on FUSE, and it is fine."""

_MOUNT: Final = re.compile(r"^\d+ \d+ \S+ \S+ (?P<point>\S+) .*? - (?P<kind>\S+) ", re.MULTILINE)
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


_MOUNTINFO: Final = Path("/proc/self/mountinfo")


def file_system(path: str, mountinfo: str) -> str | None:
    """Return the type of the file system that holds an absolute path, by the text of ``/proc/self/mountinfo``.

    Source: proc_pid_mountinfo(5).
    """
    longest, answer = -1, None
    for mount in _MOUNT.finditer(mountinfo):
        point = _ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), mount["point"])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        # >=: of two mounted at one point the later one is seen.
        if inside and len(point) >= longest:
            longest, answer = len(point), mount["kind"]
    return answer


def network_file_system(path: Path) -> str | None:
    """Return the name of the network file system that holds the path; None if it is a local one, or nobody knows."""
    return _kind_if(_NETWORK, path)


_LAYER: Final = re.compile(r"overlay|aufs|unionfs|fuse\.(fuse-)?overlayfs|fuse\.unionfs")
"""What a container's root consists of: read-only layers of the image below, and one that goes with the container."""


def container_layer(path: Path) -> str | None:
    """Return the name of the layered file system that holds the path; None if another one does, or nobody knows."""
    return _kind_if(_LAYER, path)


def _kind_if(kinds: re.Pattern[str], path: Path) -> str | None:
    try:
        # Bytes that are no UTF-8 may stand in a path: os.fsdecode keeps them comparable.
        mountinfo = os.fsdecode(_MOUNTINFO.read_bytes())
    except OSError:
        return None
    kind = file_system(os.path.realpath(path), mountinfo)
    return kind if kind and kinds.fullmatch(kind) else None
