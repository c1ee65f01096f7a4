"""Proves that workers live: each worker's process keeps a lock file locked."""

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
"""Time that a new worker waits for a recoverer that checks its new lock file."""

_WORKER_FILE: Final = re.compile(r"worker-([0-7][0-9a-f]{15})\.lock")

_mutex = threading.Lock()
_in_hand: set[Inode] = set()
"""Inodes of the files whose lock this process holds.  None of them may be opened again here: closing it would drop the
lock.  Inodes, since a path has several spellings; the inode of an open file cannot be reused."""


def _forget_in_child() -> None:
    # The child has none of the locks. A thread that held the mutex at the fork does not exist in the child.
    global _mutex  # noqa: PLW0603 - one per process
    _mutex = threading.Lock()
    _in_hand.clear()


os.register_at_fork(after_in_child=_forget_in_child)


def _make(path: Path) -> tuple[int, os.stat_result]:
    """Create a file and add it to ``_in_hand``, not yet locked; the caller holds the mutex."""
    # ``create`` uses O_EXCL: this process may hold an existing file, and even a failed attempt would have to close it.
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
        # Atomic for other threads: between the close and the discard, in either order, another thread could lock the
        # same file and lose that lock by our close.
        with _mutex:
            fd, self._fd = self._fd, -1
            if fd < 0:
                return
            try:
                # Unlinked while still locked: a process that opened the file before finds the path gone once it gets
                # the lock, and a later one finds no file. In the other order it would pass for a dead worker's file.
                # A forked child must not unlink the parent's file; its close does not affect the parent's lock.
                if unlink and self._pid == os.getpid() and is_at(self.path, self._inode):
                    os.unlink(self.path)
            finally:
                _in_hand.discard(self._inode)
                os.close(fd)


class WorkerLock(_HeldFile):
    """The lock that proves that this process's worker lives; the kernel frees it at death."""

    __slots__ = ()

    @classmethod
    def hold(cls, path: Path) -> Self:
        """Create the file and lock it; only then may the worker's row be stored.

        Raises:
            StoreBusy: A recoverer kept the new file locked for seconds.
            StoreUnavailable, StoreFull: The file cannot be created, or exists (worker ids are random and never repeat).
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
            # A recoverer may have locked the file between its creation and this line ...
            while not try_lock(held._fd):
                if now_s() > deadline_s:
                    raise StoreBusy(f"another process keeps {path} locked")
                time.sleep(0.001)
            # ... and removed it. Then the lock is on a file that no process can find.
            if is_at(path, held._inode):
                return held
        except BaseException:
            held._drop(unlink=False)
            raise
        held._drop(unlink=False)
        return None

    @classmethod
    def try_hold(cls, path: Path) -> Self | None:
        """Take the lock of a file that several processes compete for.

        The file of a process that died while holding the lock is taken over.

        Returns:
            None if another process holds or is just taking the lock.

        Raises:
            StoreUnavailable, StoreFull: The file cannot be opened or created.
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
        """Return whether other processes still find our lock at the path.

        If not, the worker must stop. The lock is requested again: the kernel grants a lock that we hold, and one that
        was dropped (some code in this process opened and closed the file) is taken back, unless a recoverer has it.
        """
        with store_errors(self.path), _mutex:
            if self._fd < 0 or self._pid != os.getpid():
                return False
            return try_lock(self._fd) and is_at(self.path, self._inode)

    def release(self) -> None:
        """Remove the file and release the lock; safe to call twice.

        A forked child leaves both to its parent.
        """
        with store_errors(self.path):
            self._drop(unlink=True)

    def abandon(self) -> None:
        """Release the lock and leave the file, as a death does.

        The process that finds the file recovers the worker's jobs.
        """
        self._drop(unlink=False)


class TakenLock(_HeldFile):
    """The lock of a dead worker's file; held by a recoverer, it excludes other recoverers."""

    __slots__ = ("changed_at",)

    changed_at: int
    """Creation time of the file (µs); a young file without a row may belong to a worker that starts."""

    def __init__(self, path: Path, fd: int, found: os.stat_result) -> None:
        super().__init__(path, fd, found)
        self.changed_at = found.st_mtime_ns // 1000

    def remove(self) -> None:
        """Remove the file and release the lock, once the worker's jobs are recovered."""
        with store_errors(self.path):
            self._drop(unlink=True)

    def close(self) -> None:
        """Release the lock and leave the file for another recoverer; a no-op after ``remove``."""
        self._drop(unlink=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def worker_file(directory: Path, worker: int) -> Path:
    """Return the path of a worker's lock file."""
    return directory / f"worker-{worker:016x}.lock"


def worker_files(directory: Path) -> dict[int, Path]:
    """Return the lock files in the directory, by worker id.

    Raises:
        StoreUnavailable: The directory cannot be read. An empty result would make every worker seem dead.
    """
    with store_errors(directory), os.scandir(directory) as entries:
        return {
            int(name[1], 16): directory / entry.name
            for entry in entries
            if (name := _WORKER_FILE.fullmatch(entry.name))
        }


def take_if_dead(path: Path) -> TakenLock | Literal["alive", "missing"]:
    """Take the lock of a worker's file if no process holds it.

    Never blocks and never creates the file. A file that this process itself has locked is ``"alive"``.

    Raises:
        StoreUnavailable: The file exists and cannot be opened.
    """
    with store_errors(path), _mutex:
        found = _take(path)
        if isinstance(found, str):
            return found
        return TakenLock(path, *found)


def lives(path: Path) -> bool:
    """Return whether a process of this system holds the lock of a worker's file.

    Raises the same errors as ``take_if_dead``.
    """
    found = take_if_dead(path)
    if isinstance(found, str):
        return found == "alive"
    found.close()
    return False


def _take(path: Path) -> tuple[int, os.stat_result] | Literal["alive", "missing"]:
    """Lock an existing file and add it to ``_in_hand``; the caller holds the mutex."""
    while True:
        try:
            # lstat before open: a file that this process has locked must not even be opened.
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
            # Between open and lock the holder may have left, or another recoverer may have removed the file. Then the
            # lock is on an unlinked file, and the loop checks the path again.
            found = os.fstat(fd)
            taken = is_at(path, inode_of(found))
            if taken:
                _in_hand.add(inode_of(found))
                return fd, found
        finally:
            if not taken:
                os.close(fd)
