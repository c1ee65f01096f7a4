"""The locks that lie on the kernel's word, tried with real processes, real files and a real SIGKILL."""

import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from errno import EACCES, EAGAIN, EDEADLK
from pathlib import Path

import pytest

import jobrunner
from jobrunner.core.errors import StoreBusy, StoreUnavailable
from jobrunner.store.sqlite.host import locks, record_locks
from jobrunner.store.sqlite.host.locks import (
    TakenLock,
    WorkerLock,
    take_if_dead,
    worker_file,
    worker_files,
)
from jobrunner.store.sqlite.host.turnstile import Turnstile

ROOT = Path(next(iter(jobrunner.__path__))).parent
PRELUDE = """
import os, sys
from pathlib import Path
from jobrunner.core.errors import StoreBusy
from jobrunner.store.sqlite.host.locks import *
from jobrunner.store.sqlite.host.turnstile import Turnstile
from jobrunner.store.sqlite.host import locks
here = Path(sys.argv[1])
def say(word): print(word, flush=True)
def hear(): return sys.stdin.readline().strip()
"""


class Child:
    """Another process, which writes words to its stdout and reads ours from its stdin."""

    def __init__(self, script: str, here: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + script, str(here)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self.process.stdin
        assert self.process.stdout
        self._in, self._out = self.process.stdin, self.process.stdout

    def hear(self) -> str:
        return self._out.readline().strip()

    def silent(self) -> bool:
        """Return whether the process has written nothing that is still unread."""
        return not select.select([self._out], [], [], 0)[0]

    def tell(self, word: str = "go") -> None:
        self._in.write(f"{word}\n")
        self._in.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        self._in.close()
        return self.process.wait()

    def discard(self) -> None:
        self.process.kill()
        self.process.communicate() if not self._in.closed else self.process.wait()
        self._out.close()


Spawn = Callable[[str], Child]


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    children: list[Child] = []

    def start(script: str) -> Child:
        children.append(Child(script, tmp_path))
        return children[-1]

    yield start
    for child in children:
        child.discard()


@pytest.fixture
def turnstile(tmp_path: Path) -> Iterator[Turnstile]:
    turnstile = Turnstile(tmp_path)
    yield turnstile
    turnstile.close()


def in_forked_child(check: Callable[[], bool]) -> bool:
    """Return whether ``check`` holds in a forked copy of this process."""
    with warnings.catch_warnings():
        # Later Pythons warn of a fork beside threads; the child here does nothing that could hang on one.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        # A child that hangs must not outlive the test.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)
        good = False
        try:
            good = check()
        finally:
            os._exit(0 if good else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


# -- the turnstile ------------------------------------------------------------------------------------

HOLD_THE_TURNSTILE = (
    "t = Turnstile(here); t.acquire(9); say('held'); hear(); t.release(); say('released'); hear()"
)


def test_acquire_while_another_process_holds_it_raises_store_busy(
    spawn: Spawn, turnstile: Turnstile
) -> None:
    spawn(HOLD_THE_TURNSTILE).hear()
    with pytest.raises(StoreBusy, match=r"0\.01 s"):
        turnstile.acquire(0.01)
    assert turnstile.try_acquire(0) is False


def test_acquire_after_the_release_of_another_process_gets_it(
    spawn: Spawn, turnstile: Turnstile
) -> None:
    child = spawn(HOLD_THE_TURNSTILE)
    child.hear()
    child.tell()
    turnstile.acquire(9)
    assert child.hear() == "released"


def test_acquire_after_its_holder_was_killed_gets_it_at_once(
    spawn: Spawn, turnstile: Turnstile
) -> None:
    child = spawn(HOLD_THE_TURNSTILE)
    child.hear()
    child.kill()
    turnstile.acquire(0)


def test_acquire_behind_a_stopped_holder_ends_at_the_deadline(
    spawn: Spawn, turnstile: Turnstile
) -> None:
    child = spawn(HOLD_THE_TURNSTILE)
    child.hear()
    child.process.send_signal(signal.SIGSTOP)
    os.waitpid(child.process.pid, os.WUNTRACED)
    # Past the point where the polling slows down.
    with pytest.raises(StoreBusy):
        turnstile.acquire(0.3)
    child.kill()
    turnstile.acquire(0)


def test_acquire_that_gave_up_leaves_its_place_to_others(spawn: Spawn, tmp_path: Path) -> None:
    holder = spawn(HOLD_THE_TURNSTILE)
    holder.hear()
    loser = spawn("""
t = Turnstile(here)
try: t.acquire(0.01)
except StoreBusy: say('busy')
hear()
""")
    assert loser.hear() == "busy"
    waiter = spawn("t = Turnstile(here); say('up'); t.acquire(9); say('held'); hear()")
    waiter.hear()
    holder.tell()
    assert waiter.hear() == "held"


def test_acquire_with_somebody_next_in_line_waits_behind_them(spawn: Spawn, tmp_path: Path) -> None:
    """The one who holds A is next, however quickly the last writer comes back."""
    first = spawn("""
t = Turnstile(here)
t.acquire(9); say('held'); hear(); t.release()
say(t.try_acquire(0)); hear()
""")
    first.hear()
    # The next in line, stopped between A and B: the state in which a quick comer could overtake.
    next_one = spawn("""
import fcntl
t = Turnstile(here)
fcntl.lockf(t._a, fcntl.LOCK_EX); say('next'); hear()
""")
    assert next_one.hear() == "next"
    first.tell()
    assert first.hear() == "False"


def test_processes_through_the_turnstile_never_meet(spawn: Spawn, tmp_path: Path) -> None:
    rounds, crowd = 200, 4
    (tmp_path / "count").write_text("0")
    children = [
        spawn(f"""
t = Turnstile(here); say('up'); hear()
for _ in range({rounds}):
    with t.held(30):
        (here / 'count').write_text(str(int((here / 'count').read_text()) + 1))
say('done')
""")
        for _ in range(crowd)
    ]
    for child in children:
        child.hear()
    for child in children:
        child.tell()
    assert [child.hear() for child in children] == ["done"] * crowd
    assert (tmp_path / "count").read_text() == str(rounds * crowd)


def test_a_heavy_crowd_leaves_everybody_a_turn(spawn: Spawn) -> None:
    """B1: with SQLite's own handler a light writer got one commit in 3 s against four heavy ones."""
    wanted, crowd = 40, 5
    # Nobody stops writing before all have had their turns: whoever starves lets the others' counts grow.
    script = f"""
import time
t = Turnstile(here); say('up'); me = hear(); n = 0
while len(list(here.glob('done-*'))) < {crowd}:
    with t.held(30): time.sleep(0.001)
    n += 1
    if n == {wanted}: (here / f'done-{{me}}').touch()
say(n); hear()
"""
    children = [spawn(script) for _ in range(crowd)]
    for child in children:
        child.hear()
    for me, child in enumerate(children):
        child.tell(str(me))
    counts = [int(child.hear()) for child in children]
    # A loose bound, for a machine that does other things too; unfair locks give hundreds of times as much to one.
    assert max(counts) < 10 * wanted


def test_acquire_twice_in_one_process_is_refused(turnstile: Turnstile) -> None:
    turnstile.acquire(0)
    with pytest.raises(RuntimeError, match="held already"):
        turnstile.acquire(0)


def test_held_releases_after_an_error(turnstile: Turnstile) -> None:
    with pytest.raises(KeyError), turnstile.held(0):
        raise KeyError
    turnstile.acquire(0)


def test_a_forked_child_neither_has_nor_frees_the_turnstile(
    spawn: Spawn, turnstile: Turnstile
) -> None:
    turnstile.acquire(0)

    def close_mine() -> bool:
        turnstile.close()
        return True

    assert in_forked_child(close_mine)
    probe = spawn("say(Turnstile(here).try_acquire(0)); hear()")
    assert probe.hear() == "False"


def test_a_false_deadlock_alarm_is_waited_out(
    turnstile: Turnstile, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, alarms = fcntl.lockf, [EDEADLK, EDEADLK, EAGAIN, EACCES]

    def lockf(fd: int, how: int) -> None:
        if how != fcntl.LOCK_UN and alarms:
            raise OSError(alarms.pop(0), "Resource deadlock avoided")
        real(fd, how)

    monkeypatch.setattr(fcntl, "lockf", lockf)
    turnstile.acquire(9)
    assert alarms == []


def test_turnstile_files_are_private_and_closed_in_programs_started(
    turnstile: Turnstile, tmp_path: Path
) -> None:
    for fd in (turnstile._a, turnstile._b):
        assert os.get_inheritable(fd) is False
        assert os.fstat(fd).st_mode & 0o777 == 0o600


def test_in_place_after_the_files_were_removed_says_no(
    turnstile: Turnstile, tmp_path: Path
) -> None:
    assert turnstile.in_place()
    (tmp_path / "turnstile.a").unlink()
    assert not turnstile.in_place()


def test_turnstile_in_a_missing_directory_raises_store_unavailable(tmp_path: Path) -> None:
    before = open_descriptors()
    with pytest.raises(StoreUnavailable, match=r"turnstile\.a: No such file"):
        Turnstile(tmp_path / "nowhere")
    (tmp_path / "turnstile.b").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable, match=r"turnstile\.b"):
        Turnstile(tmp_path)
    assert open_descriptors() == before
    assert not (tmp_path / "elsewhere").exists()


# -- liveness -----------------------------------------------------------------------------------------

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
    child.process.send_signal(signal.SIGSTOP)
    os.waitpid(child.process.pid, os.WUNTRACED)
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
    child.process.wait()
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
    child.process.wait()
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
