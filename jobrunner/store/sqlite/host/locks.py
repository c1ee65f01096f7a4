"""The locks that prove that workers live: a file for each, locked by its process as long as it runs."""

import os
import re
import stat
import threading
import time
from pathlib import Path
from typing import Final, Literal, Self

from jobrunner.core.clock import now_s
from jobrunner.core.errors import StoreBusy
from jobrunner.store.sqlite.host.record_locks import (
    Inode,
    create,
    inode_of,
    is_at,
    store_errors,
    try_lock,
)

_NEW_FILE_PATIENCE_S: Final = 5.0
"""How long a new worker waits for a recoverer that is just looking into its new lock file."""

_WORKER_FILE: Final = re.compile(r"worker-([0-7][0-9a-f]{15})\.lock")

_mutex = threading.Lock()
_in_hand: set[Inode] = set()
"""Files whose lock this process has.  None of them may be opened again here: the close would drop the lock.  Kept by
inode, so that no other spelling of the path gets round it; an inode in hand is open, so it cannot be given out anew."""


def _forget_in_child() -> None:
    # The child has none of the locks; another thread may have held the mutex at the fork, and is not there to free it.
    global _mutex  # noqa: PLW0603 - one per process
    _mutex = threading.Lock()
    _in_hand.clear()


os.register_at_fork(after_in_child=_forget_in_child)


def _make(path: Path) -> tuple[int, os.stat_result]:
    """Return the descriptor of a new file that is in hand, but not yet locked; the caller holds the mutex."""
    # O_EXCL: an existing file may be one that this process holds, and even a failed attempt would have to close it.
    fd = create(path)
    found = os.fstat(fd)
    _in_hand.add(inode_of(found))
    return fd, found


class _HeldFile:
    """A worker's lock file, open and locked by this process."""

    __slots__ = ("_fd", "_inode", "_pid", "path")

    def __init__(self, path: Path, fd: int, found: os.stat_result) -> None:
        self.path = path
        self._fd = fd
        self._inode = inode_of(found)
        self._pid = os.getpid()

    def _drop(self, *, unlink: bool) -> None:
        # One step for the other threads: between the close and the forgetting (either way round) one of them could lock
        # the same file, and lose that lock to our close.
        with _mutex:
            fd, self._fd = self._fd, -1
            if fd < 0:
                return
            try:
                # Unlinked while still locked: whoever opened it before finds the path gone once it gets the lock, and
                # whoever comes later finds nothing. The other way round it would be taken for a dead worker's file.
                # In a forked child file and lock are the parent's: its close costs the parent nothing, an unlink would.
                if unlink and self._pid == os.getpid() and is_at(self.path, self._inode):
                    os.unlink(self.path)
            finally:
                _in_hand.discard(self._inode)
                os.close(fd)


class WorkerLock(_HeldFile):
    """The proof that this process's worker lives: a lock on its file, freed by the kernel at death."""

    __slots__ = ()

    @classmethod
    def hold(cls, path: Path) -> Self:
        """Create the file and hold its lock; only then may the worker's row be stored.

        Raises:
            StoreBusy: a recoverer looked into the new file for seconds on end.
            StoreUnavailable, StoreFull: the file cannot be made, or exists (worker ids are random, none comes twice).
        """
        deadline_s = now_s() + _NEW_FILE_PATIENCE_S
        with store_errors(path):
            while (held := cls._create(path, deadline_s)) is None:
                pass
        return held

    @classmethod
    def _create(cls, path: Path, deadline_s: float) -> Self | None:
        with _mutex:
            held = cls(path, *_make(path))
        try:
            # Somebody who cleans up may have got hold of the file between its creation and this line: ...
            while not try_lock(held._fd):
                if now_s() > deadline_s:
                    raise StoreBusy(f"another process keeps {path} locked")
                time.sleep(0.001)
            # ... and have removed it. Then the lock is on a file that nobody will ever find.
            if is_at(path, held._inode):
                return held
        except BaseException:
            held._drop(unlink=False)
            raise
        held._drop(unlink=False)
        return None

    @classmethod
    def try_hold(cls, path: Path) -> Self | None:
        """Hold the lock of a file that several processes compete for; None if another one has it or just takes it.

        A file left by a process that died with the lock is taken over.

        Raises:
            StoreUnavailable, StoreFull: the file cannot be opened or made.
        """
        with store_errors(path), _mutex:
            found = _take(path)
            if found == "alive":
                return None
            if found != "missing":
                return cls(path, *found)
            try:
                held = cls(path, *_make(path))
            except FileExistsError:
                return None
        with store_errors(path):
            if try_lock(held._fd) and is_at(path, held._inode):
                return held
        held._drop(unlink=False)
        return None

    def still_ours(self) -> bool:
        """Return whether other processes still find our lock at the path; if not, the worker must stop.

        Asked of the kernel anew: a lock that we have is granted again, and one that was dropped (some code in this
        process opened and closed the file) is taken back, unless a recoverer has been quicker.
        """
        with store_errors(self.path), _mutex:
            if self._fd < 0 or self._pid != os.getpid():
                return False
            return try_lock(self._fd) and is_at(self.path, self._inode)

    def release(self) -> None:
        """Remove the file and give up the lock; safe to call twice. A forked child leaves both to its parent."""
        with store_errors(self.path):
            self._drop(unlink=True)

    def abandon(self) -> None:
        """Give up the lock and leave the file, as a death does: its finder takes the worker's jobs over."""
        self._drop(unlink=False)


class TakenLock(_HeldFile):
    """The lock of a dead worker's file, taken by a recoverer: no other one recovers that worker meanwhile."""

    __slots__ = ("changed_at",)

    changed_at: int
    """When the file was made (µs): one without a row in the store may belong to a worker that is just starting."""

    def __init__(self, path: Path, fd: int, found: os.stat_result) -> None:
        super().__init__(path, fd, found)
        self.changed_at = found.st_mtime_ns // 1000

    def remove(self) -> None:
        """Remove the file, the worker's jobs being safe, and give up the lock."""
        with store_errors(self.path):
            self._drop(unlink=True)

    def close(self) -> None:
        """Give up the lock and leave the file for another recoverer; nothing happens after ``remove``."""
        self._drop(unlink=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def worker_file(directory: Path, worker: int) -> Path:
    """Return the path of a worker's lock file."""
    return directory / f"worker-{worker:016x}.lock"


def worker_files(directory: Path) -> dict[int, Path]:
    """Return the lock files in the directory by worker.

    Raises:
        StoreUnavailable: the directory cannot be read. It is not "no files": every worker would look dead.
    """
    with store_errors(directory), os.scandir(directory) as entries:
        return {
            int(name[1], 16): directory / entry.name
            for entry in entries
            if (name := _WORKER_FILE.fullmatch(entry.name))
        }


def take_if_dead(path: Path) -> TakenLock | Literal["alive", "missing"]:
    """Take the lock of a worker's file if no process holds it; never blocks, never creates the file.

    A file whose lock this process holds itself is "alive", whoever asks.

    Raises:
        StoreUnavailable: the file is there and cannot be looked at.
    """
    with store_errors(path), _mutex:
        found = _take(path)
        if isinstance(found, str):
            return found
        return TakenLock(path, *found)


def lives(path: Path) -> bool:
    """Return whether a process of this system holds the lock of a worker's file; raises as ``take_if_dead``."""
    found = take_if_dead(path)
    if isinstance(found, str):
        return found == "alive"
    found.close()
    return False


def _take(path: Path) -> tuple[int, os.stat_result] | Literal["alive", "missing"]:
    """Return the descriptor of a file that is now locked and in hand; the caller holds the mutex."""
    while True:
        try:
            # Looked up before it is opened: one of our own must not even be opened.
            found = os.lstat(path)
            if not stat.S_ISREG(found.st_mode):
                return "missing"
            if inode_of(found) in _in_hand:
                return "alive"
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return "missing"
        taken = False
        try:
            if not try_lock(fd):
                return "alive"
            # Between open and lock its holder may have left, or another recoverer have been through: then the lock is
            # on an unlinked file, and another look at the path says what is true now.
            found = os.fstat(fd)
            taken = is_at(path, inode_of(found))
            if taken:
                _in_hand.add(inode_of(found))
                return fd, found
        finally:
            if not taken:
                os.close(fd)
