"""Opening a file: what is refused, that nothing is left behind, and how the connections are set."""

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobrunner.core.errors import (
    AlreadyRunning,
    ConfigurationError,
    NotADatabase,
    SchemaTooNew,
    StoreError,
    StoreUnavailable,
    StoreUnsupported,
)
from jobrunner.store.sqlite import SqliteStore
from jobrunner.store.sqlite.connection import LOG_BYTES, Connection, make_room_in_log
from jobrunner.store.sqlite.host import identity
from jobrunner.store.sqlite.maintenance import migrate
from tests.support import scripts
from tests.support.factories import claim, enqueue, new

pytestmark = pytest.mark.usefixtures("room_in_log")

NOT_SQLITE = {
    "two bytes": b"xy",  # a file of one byte is an empty database to SQLite
    "a short text": b"hello, this is not a database\n",
    "a text as long as a header": b"x" * 100,
    "a text of a page": b"all work and no play\n" * 200,
    "random": os.urandom(4096),
    "encrypted": os.urandom(16) + b"\x10\x00\x01\x01\x00\x40\x20\x20" + os.urandom(4072),
    "an old sqlite": b"** This file contains an SQLite 2.1 database **\0" + b"\0" * 2000,
}

OPEN = """
import asyncio, sys
from jobrunner.store.sqlite import SqliteStore

async def main():
    store = SqliteStore(sys.argv[1])
    try:
        await store.open()
    except Exception as error:
        print(type(error).__name__, error)
    else:
        print("open")
        if sys.argv[2:] != ["forget"]:
            await store.close()
"""


async def opened_and_closed(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.close()


def descriptors() -> set[str]:
    """Return the files that this process has open."""
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(fd.readlink()))
    return found


def dump(path: Path) -> list[str]:
    """Return what a database holds, as SQL."""
    with sqlite3.connect(path) as conn:
        dumped = list(conn.iterdump())
    conn.close()
    return dumped


# -- what is no store ---------------------------------------------------------------------------------


@pytest.mark.parametrize("content", NOT_SQLITE)
async def test_A31_open_of_a_file_that_is_not_sqlite_is_refused_and_leaves_it(
    tmp_db: Path, content: str
) -> None:
    tmp_db.write_bytes(NOT_SQLITE[content])
    store = SqliteStore(tmp_db)
    with pytest.raises(NotADatabase, match="not an SQLite database"):
        await store.open()
    assert tmp_db.read_bytes() == NOT_SQLITE[content]
    assert not [path for path in descriptors() if path.startswith(str(tmp_db))]
    await store.close()


async def test_A31_open_of_an_empty_file_makes_a_store_of_it(tmp_db: Path) -> None:
    tmp_db.touch()
    await opened_and_closed(tmp_db)
    assert "jobrunner_jobs" in "".join(dump(tmp_db))


async def test_A25_open_of_a_newer_schema_is_refused_and_changes_nothing(tmp_db: Path) -> None:
    await opened_and_closed(tmp_db)
    known = len(migrate.migrations())
    with sqlite3.connect(tmp_db) as conn:
        conn.execute(
            "UPDATE jobrunner_meta SET value = ? WHERE name = 'schema_version'", (known + 1,)
        )
    conn.close()
    before = dump(tmp_db)
    with pytest.raises(SchemaTooNew, match=f"version {known + 1}.* version {known} at most"):
        await SqliteStore(tmp_db).open()
    assert dump(tmp_db) == before


async def test_open_of_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="is a directory"):
        await SqliteStore(tmp_path).open()
    assert list(tmp_path.iterdir()) == []


async def test_open_in_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="make it first"):
        await SqliteStore(tmp_path / "missing" / "jobs.db").open()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", [":memory:", "sqlite://", "sqlite:///", "sqlite:///:memory:", "file:jobs.db", ""]
)
def test_store_in_memory_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="sqlite:///"):
        SqliteStore(name)


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs"])
async def test_A16_open_on_a_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        f"1 0 0:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 / {tmp_path} rw - {kind} h:/ rw\n"
    )
    monkeypatch.setattr(identity, "_MOUNTINFO", mounts)
    with pytest.raises(StoreUnsupported, match=f"network file system \\({kind}\\)"):
        await SqliteStore(tmp_path / "jobs.db").open()
    assert list(tmp_path.iterdir()) == [mounts]


async def test_open_with_an_sqlite_that_is_too_old_is_refused(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    with pytest.raises(StoreUnsupported, match="jobrunner needs"):
        await SqliteStore(tmp_db).open()
    assert not tmp_db.exists()


async def test_A15_open_of_a_file_with_two_names_is_refused(tmp_db: Path) -> None:
    await opened_and_closed(tmp_db)
    os.link(tmp_db, tmp_db.with_name("second.db"))
    with pytest.raises(StoreUnsupported, match="hard link"):
        await SqliteStore(tmp_db).open()


async def test_D13_open_twice_in_one_process_is_refused_and_leaves_the_first(tmp_db: Path) -> None:
    first = SqliteStore(tmp_db)
    await first.open()
    with pytest.raises(AlreadyRunning):
        await SqliteStore(tmp_db).open()
    await enqueue(first, new())
    assert len(await claim(first)) == 1
    await first.close()
    await opened_and_closed(tmp_db)


# -- read-only: root is above modes, so the process that opens is nobody's --------------------------

NOBODY = 65534

READ_ONLY = f"""
import os, tempfile
from pathlib import Path
{OPEN}
async def warm_up():
    # Whatever is imported late is imported now: nobody may not read the interpreter's own files.
    with tempfile.TemporaryDirectory() as directory:
        store = SqliteStore(Path(directory) / "jobs.db")
        await store.open()
        await store.close()

asyncio.run(warm_up())
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
asyncio.run(main())
"""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that everybody can get into, unlike pytest's own."""
    directory = Path(tempfile.mkdtemp(prefix="jobrunner-test-"))
    directory.chmod(0o777)
    yield directory
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o700)
    shutil.rmtree(directory)


async def test_A6_open_of_a_read_only_file_is_refused(open_directory: Path) -> None:
    path = open_directory / "jobs.db"
    await opened_and_closed(path)
    if os.geteuid() == 0:
        for one in open_directory.rglob("*"):
            os.chown(one, NOBODY, NOBODY)
    path.chmod(0o444)
    before = path.read_bytes()
    said = scripts.run(READ_ONLY, path)
    assert said.startswith("StoreUnavailable")
    assert str(path) in said
    assert path.read_bytes() == before


async def test_A6_open_in_a_read_only_directory_is_refused(open_directory: Path) -> None:
    path = open_directory / "jobs.db"
    await opened_and_closed(path)
    shutil.rmtree(open_directory / "jobs.db-jobrunner")
    path.chmod(0o666)
    open_directory.chmod(0o555)
    said = scripts.run(READ_ONLY, path)
    assert said.startswith("StoreUnavailable")
    assert str(path) in said


async def test_A30_open_of_a_folder_that_belongs_to_another_user_is_refused(
    open_directory: Path,
) -> None:
    path = open_directory / "jobs.db"
    await opened_and_closed(path)
    path.chmod(0o666)
    folder = open_directory / "jobs.db-jobrunner"
    folder.chmod(0o000)
    said = scripts.run(READ_ONLY, path)
    if os.geteuid() == 0:
        assert said.startswith("StoreUnavailable")
        assert str(folder) in said


# -- nothing stays open -----------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["not sqlite", "newer", "hard link", "no folder"])
def test_C6_process_ends_after_an_open_that_failed(tmp_db: Path, broken: str) -> None:
    if broken == "not sqlite":
        tmp_db.write_bytes(b"nonsense" * 1000)
    else:
        scripts.run(f"{OPEN}\nasyncio.run(main())", tmp_db)
    match broken:
        case "newer":
            with sqlite3.connect(tmp_db) as conn:
                conn.execute("UPDATE jobrunner_meta SET value = 99")
            conn.close()
        case "hard link":
            os.link(tmp_db, tmp_db.with_name("second.db"))
        case "no folder":
            folder = tmp_db.with_name("jobs.db-jobrunner")
            shutil.rmtree(folder)
            folder.touch()
    said = scripts.run(f"{OPEN}\nasyncio.run(main())", tmp_db)
    assert said.split()[0] in {
        "NotADatabase",
        "SchemaTooNew",
        "StoreUnsupported",
        "StoreUnavailable",
    }


def test_C6_process_ends_that_forgot_to_close(tmp_db: Path) -> None:
    """An uvicorn that was interrupted twice skips the lifespan's end; its process must not stay for ever."""
    script = f"{OPEN}\nimport warnings\nwarnings.simplefilter('ignore')\nasyncio.run(main())"
    assert scripts.run(script, tmp_db, "forget") == "open"


async def test_C6_open_that_failed_leaves_no_descriptor_and_can_be_tried_again(
    tmp_db: Path,
) -> None:
    tmp_db.write_bytes(b"nonsense" * 1000)
    store = SqliteStore(tmp_db)
    before = descriptors()
    for _ in range(3):
        with pytest.raises(NotADatabase):
            await store.open()
        assert descriptors() == before
    tmp_db.unlink()
    await store.open()
    await store.close()
    assert descriptors() == before


async def test_verbs_of_a_store_that_is_not_open_raise_store_unavailable(tmp_db: Path) -> None:
    store = SqliteStore(tmp_db)
    for verb in (enqueue(store, new()), store.jobs.get("id"), store.jobs.queues()):
        with pytest.raises(StoreUnavailable, match="not open"):
            await verb
    await store.open()
    await store.close()
    with pytest.raises(StoreUnavailable, match="not open"):
        await enqueue(store, new())


# -- pragmas ---------------------------------------------------------------------------------------------

FULL, NORMAL = 2, 1


@pytest.mark.parametrize(("durability", "synchronous"), [("full", FULL), ("normal", NORMAL)])
@pytest.mark.parametrize("read_only", [False, True])
async def test_connection_reads_back_the_pragmas_that_keep_the_promises(
    tmp_db: Path, durability: str, synchronous: int, read_only: bool
) -> None:
    await opened_and_closed(tmp_db)
    connection = await Connection.open(tmp_db, durability=durability, read_only=read_only)

    def read_back(conn: sqlite3.Connection) -> dict[str, object]:
        names = (
            *("journal_mode", "synchronous", "wal_autocheckpoint", "mmap_size", "foreign_keys"),
            *("journal_size_limit", "temp_store", "trusted_schema", "cell_size_check"),
            *("query_only", "busy_timeout"),
        )
        return {name: conn.execute(f"PRAGMA {name}").fetchone()[0] for name in names}

    assert await connection.run(read_back) == {
        "journal_mode": "wal",
        "synchronous": synchronous,
        "wal_autocheckpoint": 0,
        "mmap_size": 0,
        "foreign_keys": 1,
        "journal_size_limit": 16 << 20,
        "temp_store": 2,
        "trusted_schema": 0,
        "cell_size_check": 1,
        "query_only": int(read_only),
        "busy_timeout": 5000,
    }
    if read_only:
        with pytest.raises(StoreError, match="read-only"):
            await connection.run(lambda conn: conn.execute("DELETE FROM jobrunner_jobs"))
    await connection.close()


# -- the log ---------------------------------------------------------------------------------------------


async def test_open_makes_room_in_the_log_that_nobody_reads(tmp_db: Path) -> None:
    """A commit that lets the log grow costs twice as much as one that writes over what is there."""
    log = tmp_db.with_name(f"{tmp_db.name}-wal")
    store = SqliteStore(tmp_db)
    await store.open()
    size = log.stat().st_size
    assert size >= LOG_BYTES
    for _ in range(20):
        await enqueue(store, new())
    assert log.stat().st_size == size
    with contextlib.closing(sqlite3.connect(tmp_db)) as reader:
        (found,) = reader.execute(
            "SELECT count(*) FROM sqlite_schema WHERE name = 'jobrunner_room'"
        ).fetchone()
        assert found == 0
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    await store.close()
    assert tmp_db.stat().st_size < LOG_BYTES, "the room was moved into the database"
    assert not log.exists()


async def test_open_leaves_a_log_that_is_large_enough_as_it_is(tmp_db: Path) -> None:
    store = SqliteStore(tmp_db)
    await store.open()
    log = tmp_db.with_name(f"{tmp_db.name}-wal")
    before = log.stat()
    other = await Connection.open(tmp_db)
    await other.run(make_room_in_log, log)
    await other.close()
    assert log.stat().st_mtime_ns == before.st_mtime_ns
    await store.close()


def test_open_where_there_is_no_room_for_the_log_goes_on_without(tmp_db: Path) -> None:
    """Waiting jobs must run, even on a disk that is nearly full."""
    script = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
{OPEN}
asyncio.run(main())
"""
    assert scripts.run(script, tmp_db).splitlines() == ["open"]
    with contextlib.closing(sqlite3.connect(tmp_db)) as reader:
        assert reader.execute("SELECT count(*) FROM jobrunner_jobs").fetchone() == (0,)
