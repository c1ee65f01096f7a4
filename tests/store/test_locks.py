"""The locks of workers, which the kernel releases, tried with real processes, real files and a real SIGKILL."""

import os
import threading
from pathlib import Path

import pytest

from jobrunner.core.errors import StoreBusy, StoreUnavailable
from jobrunner.store.sqlite.host import locks, record_locks
from jobrunner.store.sqlite.host.locks import (
    TakenLock,
    WorkerLock,
    take_if_dead,
    worker_file,
    worker_files,
)
from tests.support.locking import Spawn, in_forked_child, open_descriptors

HOLD_MY_FILE = "w = WorkerLock.hold(worker_file(here, 7)); say('held'); hear(); w.release(); say('released'); hear()"
LOOK = """
found = take_if_dead(worker_file(here, 7))
say(found if isinstance(found, str) else 'taken')
hear()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return worker_file(tmp_path, 7)


def taken(path: Path) -> TakenLock:
    found = take_if_dead(path)
    assert isinstance(found, TakenLock)
    return found


def leave_dead(path: Path) -> None:
    """Leave the lock file of a dead worker."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))


def test_take_from_a_live_worker_answers_alive(spawn: Spawn, path: Path) -> None:
    spawn(HOLD_MY_FILE).hear()
    assert take_if_dead(path) == "alive"


def test_take_from_a_stopped_worker_answers_alive(spawn: Spawn, path: Path) -> None:
    child = spawn(HOLD_MY_FILE)
    child.hear()
    child.pause()
    assert take_if_dead(path) == "alive"


def test_take_from_a_killed_worker_gets_its_lock(spawn: Spawn, path: Path) -> None:
    child = spawn(HOLD_MY_FILE)
    child.hear()
    child.kill()
    with taken(path) as lock:
        assert lock.changed_at == path.stat().st_mtime_ns // 1000
        lock.remove()
    assert not path.exists()


def test_take_from_a_killed_worker_with_a_forked_child_gets_its_lock(
    spawn: Spawn, path: Path
) -> None:
    """B10: flock stays held for as long as the child lives."""
    child = spawn("""
w = WorkerLock.hold(worker_file(here, 7))
if os.fork() == 0:
    os.kill(os.getppid(), 9)
    say('orphan'); hear(); os._exit(0)
os.wait()
""")
    assert child.hear() == "orphan"
    child.wait()
    taken(path).remove()


def test_take_by_the_orphan_of_a_killed_worker_gets_its_lock(spawn: Spawn, path: Path) -> None:
    """It was forked while the file was in hand, and must not go on to think so."""
    child = spawn("""
w = WorkerLock.hold(worker_file(here, 7))
parent = os.getpid()
if os.fork() == 0:
    os.kill(parent, 9)
    while os.getppid() == parent: os.sched_yield()
    say(type(take_if_dead(worker_file(here, 7))).__name__); hear(); os._exit(0)
os.wait()
""")
    assert child.hear() == "TakenLock"
    child.wait()
    assert take_if_dead(path) == "alive"


def test_take_after_a_release_answers_missing(spawn: Spawn, path: Path) -> None:
    child = spawn(HOLD_MY_FILE)
    child.hear()
    child.tell()
    assert child.hear() == "released"
    assert take_if_dead(path) == "missing"


def test_take_of_a_missing_file_does_not_make_it(path: Path) -> None:
    assert take_if_dead(path) == "missing"
    assert not path.exists()


def test_take_of_anything_but_a_plain_file_answers_missing(tmp_path: Path, path: Path) -> None:
    (tmp_path / "precious").touch()
    path.symlink_to(tmp_path / "precious")
    assert take_if_dead(path) == "missing"
    path.unlink()
    os.mkfifo(path)
    assert take_if_dead(path) == "missing"


def test_take_of_a_file_in_a_forbidden_place_raises_and_does_not_answer_missing(
    tmp_path: Path,
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(StoreUnavailable):
        take_if_dead(worker_file(tmp_path / "loop", 7))


def test_take_of_our_own_file_answers_alive_and_keeps_the_lock(
    spawn: Spawn, tmp_path: Path, path: Path
) -> None:
    lock = WorkerLock.hold(path)
    other_name = tmp_path / "alias"
    other_name.symlink_to(tmp_path)
    os.link(path, tmp_path / "hard")
    assert take_if_dead(path) == "alive"
    assert take_if_dead(other_name / path.name) == "alive"
    assert take_if_dead(tmp_path / "hard") == "alive"
    assert spawn(LOOK).hear() == "alive"
    lock.release()


def test_take_by_two_threads_is_granted_to_one(path: Path) -> None:
    """To the kernel both are one owner: it would grant the lock twice."""
    for _ in range(50):
        leave_dead(path)
        start = threading.Barrier(4)
        found: list[TakenLock | str] = []

        def look(start: threading.Barrier = start, found: list[TakenLock | str] = found) -> None:
            start.wait()
            found.append(take_if_dead(path))

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (lock,) = [one for one in found if isinstance(one, TakenLock)]
        assert found.count("alive") == 3
        lock.remove()


def test_take_by_two_processes_is_granted_to_one(spawn: Spawn, path: Path) -> None:
    """B15."""
    for _ in range(3):
        leave_dead(path)
        children = [spawn(f"say('up'); hear()\n{LOOK}") for _ in range(3)]
        for child in children:
            child.hear()
        for child in children:
            child.tell()
        assert sorted(child.hear() for child in children) == ["alive", "alive", "taken"]
        for child in children:
            child.kill()
        path.unlink()


def test_close_of_a_taken_lock_leaves_the_file_for_others(spawn: Spawn, path: Path) -> None:
    leave_dead(path)
    with taken(path):
        assert spawn(LOOK).hear() == "alive"
    assert spawn(LOOK).hear() == "taken"


def test_remove_after_another_file_took_the_place_leaves_that_one(path: Path) -> None:
    leave_dead(path)
    lock = taken(path)
    path.unlink()
    leave_dead(path)
    lock.remove()
    lock.remove()
    assert path.exists()


def test_take_that_gets_the_lock_of_an_unlinked_file_looks_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder leaves between the recoverer's open and its lock."""
    before = open_descriptors()
    leave_dead(path)
    real = record_locks.try_lock

    def leaves_first(fd: int) -> bool:
        path.unlink(missing_ok=True)
        return real(fd)

    monkeypatch.setattr(locks, "try_lock", leaves_first)
    assert take_if_dead(path) == "missing"
    assert open_descriptors() == before


def test_take_that_gets_the_lock_of_a_replaced_file_takes_the_new_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_dead(path)
    real = record_locks.try_lock
    replaced: list[int] = []

    def replaced_first(fd: int) -> bool:
        if not replaced:
            path.unlink()
            leave_dead(path)
            replaced.append(path.stat().st_ino)
        return real(fd)

    monkeypatch.setattr(locks, "try_lock", replaced_first)
    with taken(path) as lock:
        assert [lock._inode[1]] == replaced
        lock.remove()


def test_hold_of_a_file_that_a_cleaner_removed_meanwhile_starts_over(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = record_locks.try_lock
    removed: list[int] = []

    def removed_first(fd: int) -> bool:
        if not removed:
            path.unlink()
            removed.append(fd)
        return real(fd)

    before = open_descriptors()
    monkeypatch.setattr(locks, "try_lock", removed_first)
    lock = WorkerLock.hold(path)
    assert lock.still_ours()
    lock.release()
    assert open_descriptors() == before


def test_hold_of_a_file_that_a_cleaner_looks_into_waits_for_it(
    spawn: Spawn, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleaner = spawn("""
hear()
w = take_if_dead(worker_file(here, 7)); say('taken'); hear(); w.close(); hear()
""")
    real = record_locks.try_lock
    tries: list[int] = []

    def looked_into(fd: int) -> bool:
        if not tries:
            cleaner.tell()
            assert cleaner.hear() == "taken"
        elif len(tries) == 3:
            cleaner.tell()
        tries.append(fd)
        return real(fd)

    monkeypatch.setattr(locks, "try_lock", looked_into)
    lock = WorkerLock.hold(path)
    assert len(tries) > 3
    assert lock.still_ours()
    lock.release()


def test_hold_of_a_file_that_stays_locked_gives_up_with_store_busy(
    spawn: Spawn, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_descriptors()
    monkeypatch.setattr(locks, "_NEW_FILE_PATIENCE_S", 0.0)
    monkeypatch.setattr(locks, "try_lock", lambda _: False)
    with pytest.raises(StoreBusy):
        WorkerLock.hold(path)
    assert open_descriptors() == before
    assert locks._in_hand == set()


def test_hold_of_a_file_that_exists_is_refused_unopened(spawn: Spawn, path: Path) -> None:
    lock = WorkerLock.hold(path)
    with pytest.raises(StoreUnavailable, match="File exists"):
        WorkerLock.hold(path)
    assert spawn(LOOK).hear() == "alive"
    lock.release()


def test_still_ours_after_the_file_was_unlinked_or_replaced_says_no(path: Path) -> None:
    """B7."""
    lock = WorkerLock.hold(path)
    assert lock.still_ours()
    path.unlink()
    assert not lock.still_ours()
    leave_dead(path)
    assert not lock.still_ours()
    lock.release()
    assert path.exists()


def test_still_ours_takes_a_dropped_lock_back(spawn: Spawn, path: Path) -> None:
    """Any code of this process that opens and closes the file drops the lock: a backup, a virus scanner."""
    lock = WorkerLock.hold(path)
    path.read_bytes()
    assert lock.still_ours()
    assert spawn(LOOK).hear() == "alive"
    lock.release()


def test_still_ours_after_a_recoverer_took_the_dropped_lock_says_no(
    spawn: Spawn, path: Path
) -> None:
    lock = WorkerLock.hold(path)
    path.read_bytes()
    assert spawn(LOOK).hear() == "taken"
    assert not lock.still_ours()
    lock.release()


def test_release_unlinks_before_it_unlocks(
    spawn: Spawn, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = WorkerLock.hold(path)
    real = os.close
    seen: list[tuple[bool, str]] = []

    def close(fd: int) -> None:
        if fd == lock_fd:
            # Before the close: the file is gone, and who opened it earlier still finds it locked.
            seen.append((path.exists(), early.hear()))
        real(fd)

    early = spawn("""
import fcntl
fd = os.open(worker_file(here, 7), os.O_RDWR); say('open')
while True:
    try: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError: say('locked')
    else: say('free')
    hear()
""")
    assert [early.hear(), early.hear()] == ["open", "locked"]
    early.tell()
    lock_fd = lock._fd
    monkeypatch.setattr(os, "close", close)
    lock.release()
    monkeypatch.undo()
    assert seen == [(False, "locked")]
    early.tell()
    assert early.hear() == "free"


def test_release_twice_does_nothing_more(path: Path) -> None:
    lock = WorkerLock.hold(path)
    lock.release()
    leave_dead(path)
    lock.release()
    assert path.exists()
    assert not lock.still_ours()


def test_a_forked_child_leaves_the_parents_lock_alone(spawn: Spawn, path: Path) -> None:
    lock = WorkerLock.hold(path)

    def believes_nothing() -> bool:
        seen = take_if_dead(path)  # looked at as any stranger's
        ours = lock.still_ours()
        lock.release()
        return (seen, ours) == ("alive", False)

    assert in_forked_child(believes_nothing)
    assert lock.still_ours()
    assert spawn(LOOK).hear() == "alive"
    lock.release()


def test_fork_while_another_thread_has_the_mutex_does_not_stop_the_child(path: Path) -> None:
    leave_dead(path)
    entered, leave = threading.Event(), threading.Event()

    def occupy() -> None:
        with locks._mutex:
            entered.set()
            leave.wait()

    thread = threading.Thread(target=occupy)
    thread.start()
    entered.wait()
    try:
        assert in_forked_child(lambda: isinstance(take_if_dead(path), TakenLock))
    finally:
        leave.set()
        thread.join()


def test_try_hold_is_granted_to_one_and_inherited_from_the_dead(
    spawn: Spawn, tmp_path: Path
) -> None:
    elected = tmp_path / "checkpoint.lock"
    child = spawn("w = WorkerLock.try_hold(here / 'checkpoint.lock'); say(bool(w)); hear()")
    assert child.hear() == "True"
    assert WorkerLock.try_hold(elected) is None
    child.kill()
    lock = WorkerLock.try_hold(elected)
    assert lock is not None
    assert WorkerLock.try_hold(elected) is None
    assert lock.still_ours()
    lock.release()
    assert not elected.exists()


@pytest.mark.parametrize("moment", ["made meanwhile", "removed meanwhile", "locked meanwhile"])
def test_try_hold_that_somebody_crosses_answers_none(
    moment: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_descriptors()
    real = record_locks.try_lock

    def make(path: Path) -> tuple[int, os.stat_result]:
        raise FileExistsError

    def removed(fd: int) -> bool:
        path.unlink()
        return real(fd)

    if moment == "made meanwhile":
        monkeypatch.setattr(locks, "_make", make)
    else:
        monkeypatch.setattr(locks, "try_lock", removed if "rem" in moment else lambda _: False)
    assert WorkerLock.try_hold(path) is None
    assert locks._in_hand == set()
    assert open_descriptors() == before


def test_worker_files_lists_by_worker_and_nothing_else(tmp_path: Path) -> None:
    workers = [0, 7, (1 << 63) - 1]
    for worker in workers:
        worker_file(tmp_path, worker).touch()
    for stranger in ("turnstile.a", "worker-7.lock", f"worker-{1 << 63:016x}.lock", "worker-x"):
        (tmp_path / stranger).touch()
    assert worker_files(tmp_path) == {worker: worker_file(tmp_path, worker) for worker in workers}


def test_worker_files_of_a_missing_directory_raises(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        worker_files(tmp_path / "nowhere")


def test_a_thousand_stale_files_are_taken_and_removed(tmp_path: Path) -> None:
    """B8."""
    before = open_descriptors()
    for worker in range(1000):
        worker_file(tmp_path, worker).touch()
    for found in worker_files(tmp_path).values():
        taken(found).remove()
    assert list(tmp_path.iterdir()) == []
    assert open_descriptors() == before
    assert locks._in_hand == set()
