"""The locks that only POSIX has: the write turnstile and the workers' liveness locks.

Everything here rests on what the kernel says of POSIX record locks (``lockf``):

- A lock belongs to a process, not to a descriptor or a thread.  The kernel frees it when the process dies, however it
  dies; a forked child never has it.
- A second descriptor of the same process gets a lock that the first one "holds", and **closing any descriptor of the
  file drops every lock that the process has on it**.  So a file locked here is opened exactly once.
"""

import contextlib
import errno
import fcntl
import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple, Self

from jobrunner.core.clock import now_s
from jobrunner.core.errors import StoreBusy, StoreError, StoreFull, StoreUnavailable

_NEW_FILE_PATIENCE_S: Final = 5.0
"""How long a new worker waits for a recoverer that is just looking into its new lock file."""

_TRY: Final = fcntl.LOCK_EX | fcntl.LOCK_NB
_NO_LUCK: Final = frozenset({errno.EAGAIN, errno.EACCES, errno.EDEADLK})
"""POSIX allows EAGAIN and EACCES for a lock that another process holds; EDEADLK is a false alarm of the kernel, which
takes the threads of a process for one."""


def _try_lock(fd: int) -> bool:
    try:
        fcntl.lockf(fd, _TRY)
    except OSError as error:
        if error.errno in _NO_LUCK:
            return False
        raise
    return True


def translated(error: OSError, path: str | Path) -> StoreError:
    """Return the ``StoreError`` that says what an error of the system means for a file of the store."""
    kind = StoreFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreUnavailable
    return kind(f"{path}: {error.strerror or error}")


@contextlib.contextmanager
def _store_errors(path: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise translated(error, path) from error


# -- new files -------------------------------------------------------------------------------------


def give_away(fd: int, place: Path) -> None:
    """Let what the superuser has just made belong to whom the file or folder belongs that it serves.

    SQLite does so with its log. Otherwise one command that root runs would lock the service out of its own store.
    """
    if os.geteuid() == 0:
        owner = os.stat(place)
        # Without the right to, as in some containers, it stays as it is.
        with contextlib.suppress(PermissionError):
            os.fchown(fd, owner.st_uid, owner.st_gid)


def _create(path: Path) -> int:
    """Return a descriptor of a new file; raises ``FileExistsError`` if there is one."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    try:
        give_away(fd, path.parent)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open(path: Path) -> int:
    """Return a descriptor of a file that nobody ever removes, made if there is none."""
    try:
        return _create(path)
    except FileExistsError:
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)


# -- the turnstile ---------------------------------------------------------------------------------


class _Pauses(NamedTuple):
    first_s: float
    change: float
    last_s: float


# Whoever queues at A is woken by nobody and wins by asking at the right moment; so the longer one waits, the more often
# one asks. With pauses that grow, newcomers overtake: a light writer beside four heavy ones (2 ms each) then waited
# 105 ms (p50) and 272 (p99), so 7 and 21. Only one process at a time waits for B, and gets it in any case.
_QUEUEING: Final = _Pauses(0.001, 0.7, 0.0001)
_NEXT: Final = _Pauses(0.000_02, 1.1, 0.001)

_STUCK_AFTER_S: Final = 0.25
_STUCK_PAUSE_S: Final = 0.001
"""Behind a holder that stands still, a crowd must not eat the processor."""


def _poll(fd: int, deadline_s: float, pauses: _Pauses) -> bool:
    # Polled: a blocking lockf has no time-out, and behind a stopped holder the thread would never come back.
    pause_s, change, last_s = pauses
    started_s = at_s = now_s()
    while at_s < deadline_s:
        time.sleep(min(pause_s, deadline_s - at_s))
        if _try_lock(fd):
            return True
        at_s = now_s()
        if at_s - started_s > _STUCK_AFTER_S:
            pause_s = _STUCK_PAUSE_S
        else:
            pause_s = max(pause_s * change, last_s) if change < 1 else min(pause_s * change, last_s)
    return False


class Turnstile:
    """The write lock of a store, fair between processes.

    Two files: whoever holds A is next; the holder of B writes.  A writer that comes back at once finds A taken and
    waits like everybody else, while SQLite's own busy handler lets it win again and again.  SQLite's lock beneath stays
    the real exclusion.  Used from the writer thread alone: to the kernel, two threads are one owner.
    """

    __slots__ = ("_a", "_b", "_held", "_paths")

    def __init__(self, directory: Path) -> None:
        """Open ``turnstile.a`` and ``turnstile.b`` in the directory, making them if need be; nobody ever unlinks them.

        Raises:
            StoreUnavailable, StoreFull: they cannot be opened.
        """
        self._paths = (directory / "turnstile.a", directory / "turnstile.b")
        self._held = False
        with _store_errors(self._paths[0]):
            self._a = _open(self._paths[0])
        try:
            self._b = _open(self._paths[1])
        except OSError as error:
            os.close(self._a)
            raise translated(error, self._paths[1]) from error

    def acquire(self, timeout_s: float) -> None:
        """Hold the write lock afterwards; block for ``timeout_s`` at most (0 tries once).

        Raises:
            StoreBusy: others held it all the time.
            StoreUnavailable: the system refuses to lock.
        """
        if not self.try_acquire(timeout_s):
            raise StoreBusy(f"other processes held the write lock for {timeout_s:g} s")

    def try_acquire(self, timeout_s: float) -> bool:
        """Do as ``acquire``, but return False in place of raising ``StoreBusy``."""
        if self._held:
            raise RuntimeError("the turnstile is held already: one thread, once at a time")
        deadline_s = now_s() + timeout_s
        try:
            if _try_lock(self._a) or _poll(self._a, deadline_s, _QUEUEING):
                try:
                    self._held = _try_lock(self._b) or _poll(self._b, deadline_s, _NEXT)
                finally:
                    # In every case: a place at the head that nobody stands in would stop everybody.
                    fcntl.lockf(self._a, fcntl.LOCK_UN)
        except OSError as error:
            raise translated(error, self._paths[0]) from error
        return self._held

    def release(self) -> None:
        """Let the next one in; nothing happens if the lock is not held."""
        if self._held:
            self._held = False
            fcntl.lockf(self._b, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def held(self, timeout_s: float) -> Iterator[None]:
        """Hold the write lock inside the block; raises as ``acquire``."""
        self.acquire(timeout_s)
        try:
            yield
        finally:
            self.release()

    def in_place(self) -> bool:
        """Say whether the two files are still where everybody else looks for them.

        If not, newcomers queue at other files, and nothing but SQLite's own lock stands between them and us.
        """
        with _store_errors(self._paths[0].parent):
            return all(
                _is_at(path, _inode(os.fstat(fd)))
                for path, fd in zip(self._paths, (self._a, self._b), strict=True)
            )

    def close(self) -> None:
        """Release and close; safe to call twice."""
        self.release()
        for fd in (self._b, self._a):
            if fd >= 0:
                os.close(fd)
        self._a = self._b = -1


# -- liveness --------------------------------------------------------------------------------------

_Inode = tuple[int, int]

_WORKER_FILE: Final = re.compile(r"worker-([0-7][0-9a-f]{15})\.lock")

_mutex = threading.Lock()
_in_hand: set[_Inode] = set()
"""Files whose lock this process has.  None of them may be opened again here: the close would drop the lock.  Kept by
inode, so that no other spelling of the path gets round it; an inode in hand is open, so it cannot be given out anew."""


def _forget_in_child() -> None:
    # The child has none of the locks; another thread may have held the mutex at the fork, and is not there to free it.
    global _mutex  # noqa: PLW0603 - one per process
    _mutex = threading.Lock()
    _in_hand.clear()


os.register_at_fork(after_in_child=_forget_in_child)


def _inode(found: os.stat_result) -> _Inode:
    return found.st_dev, found.st_ino


def _is_at(path: Path, inode: _Inode) -> bool:
    try:
        return _inode(os.lstat(path)) == inode
    except FileNotFoundError:
        return False


def _make(path: Path) -> tuple[int, os.stat_result]:
    """Return the descriptor of a new file that is in hand, but not yet locked; the caller holds the mutex."""
    # O_EXCL: an existing file may be one that this process holds, and even a failed attempt would have to close it.
    fd = _create(path)
    found = os.fstat(fd)
    _in_hand.add(_inode(found))
    return fd, found


class _HeldFile:
    """A worker's lock file, open and locked by this process."""

    __slots__ = ("_fd", "_inode", "_pid", "path")

    def __init__(self, path: Path, fd: int, found: os.stat_result) -> None:
        self.path = path
        self._fd = fd
        self._inode = _inode(found)
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
                if unlink and self._pid == os.getpid() and _is_at(self.path, self._inode):
                    os.unlink(self.path)
            finally:
                _in_hand.discard(self._inode)
                os.close(fd)


class WorkerLock(_HeldFile):
    """The proof that this process's worker lives: a lock on a file of its own, freed by the kernel at death."""

    __slots__ = ()

    @classmethod
    def hold(cls, path: Path) -> Self:
        """Create the file and hold its lock; only then may the worker's row be stored.

        Raises:
            StoreBusy: a recoverer looked into the new file for seconds on end.
            StoreUnavailable, StoreFull: the file cannot be made, or exists (worker ids are random, none comes twice).
        """
        deadline_s = now_s() + _NEW_FILE_PATIENCE_S
        with _store_errors(path):
            while (held := cls._create(path, deadline_s)) is None:
                pass
        return held

    @classmethod
    def _create(cls, path: Path, deadline_s: float) -> Self | None:
        with _mutex:
            held = cls(path, *_make(path))
        try:
            # Somebody who cleans up may have got hold of the file between its creation and this line: ...
            while not _try_lock(held._fd):
                if now_s() > deadline_s:
                    raise StoreBusy(f"another process keeps {path} locked")
                time.sleep(0.001)
            # ... and have removed it. Then the lock is on a file that nobody will ever find.
            if _is_at(path, held._inode):
                return held
        except BaseException:
            held._drop(unlink=False)
            raise
        held._drop(unlink=False)
        return None

    @classmethod
    def try_hold(cls, path: Path) -> Self | None:
        """Hold the lock of a file that several processes compete for; None if somebody has it or just takes it.

        A file left by a process that died with the lock is taken over.

        Raises:
            StoreUnavailable, StoreFull: the file cannot be opened or made.
        """
        with _store_errors(path), _mutex:
            found = _take(path)
            if found == "alive":
                return None
            if found != "missing":
                return cls(path, *found)
            try:
                held = cls(path, *_make(path))
            except FileExistsError:
                return None
        with _store_errors(path):
            if _try_lock(held._fd) and _is_at(path, held._inode):
                return held
        held._drop(unlink=False)
        return None

    def still_ours(self) -> bool:
        """Say whether others who look at the path find our lock on it; if not, the worker must stop.

        Asked of the kernel anew: a lock that we have is granted again, and one that was dropped (some code in this
        process opened and closed the file) is taken back, unless a recoverer has been quicker.
        """
        with _store_errors(self.path), _mutex:
            if self._fd < 0 or self._pid != os.getpid():
                return False
            return _try_lock(self._fd) and _is_at(self.path, self._inode)

    def release(self) -> None:
        """Remove the file and give up the lock; safe to call twice. A forked child leaves both to its parent."""
        with _store_errors(self.path):
            self._drop(unlink=True)

    def abandon(self) -> None:
        """Give up the lock and leave the file, as a death does: whoever finds it takes the worker's jobs over."""
        self._drop(unlink=False)


class TakenLock(_HeldFile):
    """The lock of a dead worker's file, taken by a recoverer: nobody else recovers that worker meanwhile."""

    __slots__ = ("changed_at",)

    changed_at: int
    """When the file was made (µs): one without a row in the store may belong to a worker that is just starting."""

    def __init__(self, path: Path, fd: int, found: os.stat_result) -> None:
        super().__init__(path, fd, found)
        self.changed_at = found.st_mtime_ns // 1000

    def remove(self) -> None:
        """Remove the file, the worker's jobs being safe, and give up the lock."""
        with _store_errors(self.path):
            self._drop(unlink=True)

    def close(self) -> None:
        """Give up the lock and leave the file for another look; nothing happens after ``remove``."""
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
    with _store_errors(directory), os.scandir(directory) as entries:
        return {
            int(name[1], 16): directory / entry.name
            for entry in entries
            if (name := _WORKER_FILE.fullmatch(entry.name))
        }


def take_if_dead(path: Path) -> TakenLock | Literal["alive", "missing"]:
    """Take the lock of a worker's file if nobody holds it; never blocks, never creates the file.

    A file whose lock this process holds itself is "alive", whoever asks.

    Raises:
        StoreUnavailable: the file is there and cannot be looked at.
    """
    with _store_errors(path), _mutex:
        found = _take(path)
        if isinstance(found, str):
            return found
        return TakenLock(path, *found)


def lives(path: Path) -> bool:
    """Return whether somebody on this system holds the lock of a worker's file; raises as ``take_if_dead``."""
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
            if _inode(found) in _in_hand:
                return "alive"
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return "missing"
        taken = False
        try:
            if not _try_lock(fd):
                return "alive"
            # Between open and lock its holder may have left, or another recoverer have been through: then the lock is
            # on an unlinked file, and another look at the path says what is true now.
            found = os.fstat(fd)
            taken = _is_at(path, _inode(found))
            if taken:
                _in_hand.add(_inode(found))
                return fd, found
        finally:
            if not taken:
                os.close(fd)
