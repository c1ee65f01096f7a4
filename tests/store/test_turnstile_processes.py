"""The order in which processes get the write lock, tried with real processes, real files and a real SIGKILL."""

import fcntl
import os
from collections.abc import Iterator
from errno import EACCES, EAGAIN, EDEADLK
from pathlib import Path

import pytest

from jobrunner.core.errors import StoreBusy, StoreUnavailable
from jobrunner.store.sqlite.host.turnstile import Turnstile
from tests.support.locking import Spawn, in_forked_child, open_descriptors


@pytest.fixture
def turnstile(tmp_path: Path) -> Iterator[Turnstile]:
    turnstile = Turnstile(tmp_path)
    yield turnstile
    turnstile.close()


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
    child.pause()
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


def test_B1_a_heavy_crowd_leaves_everybody_a_turn(spawn: Spawn) -> None:
    """With SQLite's own handler a light writer got one commit in 3 s against four heavy ones."""
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
