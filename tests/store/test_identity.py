"""The identity of a store's file, with real files and a real SQLite."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import jobrunner
from jobrunner.core.errors import AlreadyRunning, StoreReplaced, StoreUnavailable, StoreUnsupported
from jobrunner.store.sqlite.host import identity
from jobrunner.store.sqlite.host.identity import (
    FileIdentity,
    StoreClaim,
    claim_store,
    file_system,
    network_file_system,
)

ROOT = Path(next(iter(jobrunner.__path__))).parent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture(autouse=True)
def no_claim_left() -> Iterator[None]:
    yield
    assert identity._claims == []


def in_forked_child(check: Callable[[], bool]) -> bool:
    """Return whether ``check`` holds in a forked copy of this process."""
    with warnings.catch_warnings():
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


# -- the claim --------------------------------------------------------------------------------------

OTHER_NAMES = ["the same", "dotted", "linked directory", "linked file", "relative", "hard link"]


def other_name(kind: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    match kind:
        case "the same":
            return path
        case "dotted":
            return path.parent / "x" / ".." / path.name
        case "linked directory":
            (path.parent / "d").symlink_to(path.parent)
            return path.parent / "d" / path.name
        case "linked file":
            (path.parent / "l.db").symlink_to(path)
            return path.parent / "l.db"
        case "relative":
            monkeypatch.chdir(path.parent)
            return Path(path.name)
        case _:
            os.link(path, path.parent / "h.db")
            return path.parent / "h.db"


@pytest.mark.parametrize("kind", OTHER_NAMES)
def test_claim_of_a_claimed_file_by_any_name_is_refused(
    kind: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.touch()
    claim = claim_store(path)
    with pytest.raises(AlreadyRunning, match="open already in this process"):
        claim_store(other_name(kind, path, monkeypatch))
    claim.release()
    claim_store(path).release()


@pytest.mark.parametrize("kind", OTHER_NAMES)
def test_claim_of_a_file_made_after_the_first_claim_is_refused(
    kind: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = claim_store(path)
    path.touch()
    with pytest.raises(AlreadyRunning):
        claim_store(other_name(kind, path, monkeypatch))
    claim.release()


@pytest.mark.parametrize("kind", OTHER_NAMES[:-1])
def test_claim_before_the_file_exists_is_refused_by_its_place(
    kind: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = claim_store(path)
    with pytest.raises(AlreadyRunning):
        claim_store(other_name(kind, path, monkeypatch))
    assert not path.exists()
    claim.release()


def test_claim_of_a_pinned_file_that_was_moved_is_refused_at_both_places(path: Path) -> None:
    claim = claim_store(path)
    path.touch()
    claim.pin()
    moved = path.rename(path.parent / "moved.db")
    for place in (path, moved):
        with pytest.raises(AlreadyRunning):
            claim_store(place)
    claim.release()


def test_claims_of_different_files_live_side_by_side(path: Path) -> None:
    other = path.parent / "other"
    other.mkdir()
    claims = [
        claim_store(path),
        claim_store(path.with_name("b.db")),
        claim_store(other / path.name),
    ]
    for claim in claims:
        claim.release()


def test_claim_by_many_threads_is_granted_to_one(path: Path) -> None:
    start = threading.Barrier(8)
    granted: list[StoreClaim] = []
    refused: list[AlreadyRunning] = []

    def claim() -> None:
        start.wait()
        try:
            granted.append(claim_store(path))
        except AlreadyRunning as error:
            refused.append(error)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(granted), len(refused)) == (1, 7)
    granted[0].release()


def test_release_twice_does_not_free_the_next_claim(path: Path) -> None:
    first = claim_store(path)
    first.release()
    second = claim_store(path)
    first.release()
    with pytest.raises(AlreadyRunning):
        claim_store(path)
    second.release()


def test_claim_in_a_missing_directory_says_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="make it first"):
        claim_store(tmp_path / "nowhere" / "shop.db")


def test_claim_in_a_child_forked_while_open_is_refused(path: Path) -> None:
    """A13: SQLite in the child would assume that it holds the parent's locks, and would take none."""
    claim = claim_store(path)

    def refused() -> bool:
        claim.release()  # not the child's to give
        try:
            claim_store(path)
        except AlreadyRunning as error:
            return "forked" in str(error)
        return False

    assert in_forked_child(refused)
    with pytest.raises(AlreadyRunning, match="open already"):
        claim_store(path)
    claim.release()


def test_claim_in_a_child_forked_after_the_release_is_its_own(path: Path) -> None:
    claim_store(path).release()

    def claims() -> bool:
        claim_store(path)
        return True

    assert in_forked_child(claims)
    claim_store(path).release()


def test_claim_in_a_child_forked_while_a_thread_claims_does_not_hang(path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    def occupy() -> None:
        with identity._mutex:
            entered.set()
            leave.wait()

    thread = threading.Thread(target=occupy)
    thread.start()
    entered.wait()
    try:
        assert in_forked_child(lambda: isinstance(claim_store(path), StoreClaim))
    finally:
        leave.set()
        thread.join()


# -- the identity ------------------------------------------------------------------------------------


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_wal(path)
    connection.execute("CREATE TABLE t (a)")
    yield connection
    connection.close()


def open_wal(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    return connection


def beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def test_check_stays_quiet_while_sqlite_works(path: Path, connection: sqlite3.Connection) -> None:
    identity = FileIdentity.of(path)
    script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('INSERT INTO t VALUES (1)'); c.commit()"
    for step in (
        lambda: connection.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 500),
        lambda: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall(),
        lambda: subprocess.run([sys.executable, "-c", script + "; c.close()", path], check=True),
        lambda: subprocess.run(
            [sys.executable, "-c", script + "; import os; os.kill(os.getpid(), 9)", path],
            check=False,
        ),
        lambda: connection.execute("VACUUM"),
        lambda: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall(),
    ):
        step()
        identity.check()


@pytest.mark.parametrize("ending", ["", "-wal", "-shm"])
@pytest.mark.parametrize("what", ["moved", "deleted", "replaced", "hard-linked"])
def test_check_after_a_file_was_tampered_with_raises_store_replaced(
    ending: str, what: str, path: Path, connection: sqlite3.Connection
) -> None:
    """A9, A10, A15."""
    identity = FileIdentity.of(path)
    file = beside(path, ending)
    match what:
        case "moved":
            file.rename(file.with_name("elsewhere"))
        case "deleted":
            file.unlink()
        case "replaced":
            shutil.copy(file, file.with_name("copy"))
            file.with_name("copy").replace(file)
        case _:
            os.link(file, file.with_name("second"))
    with pytest.raises(StoreReplaced, match=file.name):
        identity.check()


def test_check_while_no_log_was_ever_seen_does_not_miss_it(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("CREATE TABLE t (a)")
    identity = FileIdentity.of(path)
    identity.check()
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("INSERT INTO t VALUES (1)")
    identity.check()
    beside(path, "-wal").unlink()
    with pytest.raises(StoreReplaced):
        identity.check()
    connection.close()


def test_of_a_file_with_two_names_raises_store_unsupported(path: Path) -> None:
    path.touch()
    os.link(path, path.with_name("second.db"))
    with pytest.raises(StoreUnsupported, match="2 names"):
        FileIdentity.of(path)


def test_of_a_symlink_watches_the_file_behind_it(
    path: Path, connection: sqlite3.Connection
) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    identity = FileIdentity.of(link)
    link.unlink()
    identity.check()
    path.unlink()
    with pytest.raises(StoreReplaced):
        identity.check()


def test_of_a_file_that_is_gone_raises_store_replaced(path: Path) -> None:
    with pytest.raises(StoreReplaced):
        FileIdentity.of(path)


def test_check_that_the_system_does_not_answer_raises_store_unavailable(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.touch()
    identity = FileIdentity.of(path)

    def fail(path: str) -> os.stat_result:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", fail)
        with pytest.raises(StoreUnavailable, match="Input/output error"):
            identity.check()


def test_neither_claim_nor_check_opens_a_file(path: Path) -> None:
    """R12; an audit hook stays for good, hence another process."""
    script = """
import sqlite3, sys
from pathlib import Path
from jobrunner.store.sqlite.host.identity import FileIdentity, claim_store
path = Path(sys.argv[1])
c = sqlite3.connect(path); c.execute("PRAGMA journal_mode = WAL"); c.execute("CREATE TABLE t (a)")
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
claim = claim_store(path); claim.pin(); FileIdentity.of(path).check(); claim.release()
print(opened)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, path],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.strip() == "[]"


# -- the disk ------------------------------------------------------------------------------------------

MOUNTINFO = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /proc rw,nosuid shared:12 - proc proc rw
30 22 0:40 / /srv rw,relatime shared:15 master:3 - nfs4 nas:/export rw,vers=4.2
31 30 8:2 / /srv/local rw - xfs /dev/sdb1 rw
32 22 0:41 / /mnt/with\040space\134 rw - cifs //server/share rw
33 22 0:42 / /mnt/home rw - autofs systemd-1 rw
34 33 0:43 / /mnt/home rw shared:9 - nfs nas:/home rw
35 22 0:44 / /fuse rw - fuse.sshfs me@host: rw
36 22 0:45 / /container rw - fuse.fuse-overlayfs fuse-overlayfs rw
this line is nonsense
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/home/shop.db", "ext4"),
        ("/srv/shop.db", "nfs4"),
        ("/srv", "nfs4"),
        ("/srvice/shop.db", "ext4"),
        ("/srv/local/shop.db", "xfs"),
        ("/srv/localhost/shop.db", "nfs4"),
        ("/mnt/with space\\/shop.db", "cifs"),
        ("/mnt/home/shop.db", "nfs"),
        ("/fuse/shop.db", "fuse.sshfs"),
        ("/container/shop.db", "fuse.fuse-overlayfs"),
    ],
)
def test_file_system_is_the_one_mounted_nearest(path: str, kind: str) -> None:
    assert file_system(path, MOUNTINFO) == kind


def test_file_system_by_a_text_that_says_nothing_is_unknown() -> None:
    assert file_system("/shop.db", "") is None
    assert file_system("/shop.db", "\n - \n1 2 3\n") is None


def test_network_file_system_names_only_those_of_the_network(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A16."""
    told = tmp_path / "mountinfo"
    monkeypatch.setattr(identity, "_MOUNTINFO", told)
    assert network_file_system(path) is None
    for kind, answer in [
        ("nfs4", "nfs4"),
        ("cifs", "cifs"),
        ("9p", "9p"),
        ("fuse.sshfs", "fuse.sshfs"),
        ("ext4", None),
        ("overlay", None),
        ("tmpfs", None),
        ("fuse.fuse-overlayfs", None),
    ]:
        told.write_bytes(b"1 1 0:1 / / rw - %b \xff rw\n" % kind.encode())
        assert network_file_system(path) == answer


def test_network_file_system_of_a_local_path_is_none(path: Path) -> None:
    assert network_file_system(path) is None
