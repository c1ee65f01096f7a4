"""``backup`` and ``vacuum``: on a file in use, and without a file ever being copied."""

import asyncio
import os
import signal
import sqlite3
import stat
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from jobrunner import JobRunner, TaskRouter
from jobrunner.core.errors import StoreFull, StoreUnavailable
from jobrunner.store.sqlite import SqliteStore
from jobrunner.store.sqlite.connection import BUSY_TIMEOUT_S
from jobrunner.store.sqlite.maintenance import backup
from tests.cli.commands import Answer, jobrunner
from tests.cli.conftest import Stored
from tests.support.processes import process

tasks = TaskRouter()


@tasks.task
async def note(number: int) -> int:
    """Return the number."""
    return number


def ids(path: Path) -> set[str]:
    """Return the ids in a database that nobody has open, once SQLite has found it whole."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        return {id for (id,) in db.execute("SELECT id FROM jobrunner_jobs")}


async def test_A17_backup_under_load_is_whole_and_has_what_was_acknowledged(
    tmp_db: Path, tmp_path: Path
) -> None:
    runner = JobRunner(tmp_db, queues={"default": 20})
    runner.include(tasks)
    acknowledged: list[str] = []

    async def load() -> None:
        while True:
            acknowledged.append((await runner.enqueue(note, len(acknowledged))).id)

    async with runner.running():
        callers = [asyncio.create_task(load()) for _ in range(4)]
        try:
            for number in range(3):
                before = list(acknowledged)
                backup = tmp_path / f"backup-{number}.db"
                answer = await jobrunner("backup", backup, "--store", tmp_db)
                assert answer.code == 0, answer.err
                assert set(before) <= ids(backup)
        finally:
            for caller in callers:
                caller.cancel()
            await asyncio.wait(callers)
        assert len(acknowledged) > 100
    assert sorted(path.name for path in tmp_path.iterdir() if "part" in path.name) == []


async def test_backup_that_is_restored_goes_on_where_it_was(stored: Stored, tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    assert (await jobrunner("backup", backup, "--store", stored.path)).code == 0
    status = await jobrunner("status", "--store", backup, "--json")
    assert status.json["dead_letters"] == 3
    answer = await jobrunner("dead", "replay", "--all", "--store", backup, "--json")
    assert answer.json == {
        "replayed": 3, "conflicts": 0, "invalid": 0, "checked": 0, "left": 0,
    }  # fmt: skip


async def test_backup_into_a_directory_is_named_after_store_and_time(
    stored: Stored, tmp_path: Path
) -> None:
    directory = tmp_path / "backups"
    directory.mkdir()
    answer = await jobrunner("backup", directory, "--store", stored.path, "--json")
    (made,) = directory.iterdir()
    assert answer.json["backup"] == str(made)
    assert made.name.startswith("jobs-20")
    assert made.suffix == ".db"


async def test_backup_replaces_nothing_unasked_and_never_the_store(
    stored: Stored, tmp_path: Path
) -> None:
    at = ("--store", stored.path)
    there = tmp_path / "there.db"
    there.write_text("precious")
    refused = await jobrunner("backup", there, *at)
    assert (refused.code, "--force" in refused.err) == (5, True)
    assert there.read_text() == "precious"
    assert (await jobrunner("backup", there, "--force", *at)).code == 0
    assert len(ids(there)) == 2
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for force in ((), ("--force",)):
        special = await jobrunner("backup", pipe, *force, *at)
        assert (special.code, "not a regular file" in special.err) == (5, True)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    itself = await jobrunner("backup", stored.path, "--force", *at)
    assert (itself.code, "the store itself" in itself.err) == (5, True)
    long = await jobrunner("backup", tmp_path / ("long" * 100), *at)
    assert (long.code, long.err.endswith(": File name too long\n")) == (1, True)
    nowhere = await jobrunner("backup", tmp_path / "no" / "b.db", *at)
    assert (nowhere.code, "cannot be written" in nowhere.err) == (6, True)


async def test_backup_that_fails_half_way_leaves_nothing(stored: Stored, tmp_path: Path) -> None:
    store = SqliteStore(stored.path)
    await store.open()
    try:

        def stop(_done: int, _total: int) -> None:
            raise OSError(28, "No space left on device")

        with pytest.raises(StoreUnavailable, match="No space left"):
            await store.backup(tmp_path / "half.db", stop)
        # The connection is as it was: the next backup succeeds.
        await store.backup(tmp_path / "whole.db", lambda _done, _total: None)
    finally:
        await store.close()
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []
    assert not (tmp_path / "half.db").exists()


async def test_backup_of_a_private_file_is_private(stored: Stored, tmp_path: Path) -> None:
    stored.path.chmod(0o600)
    assert (await jobrunner("backup", tmp_path / "b.db", "--store", stored.path)).code == 0
    assert stat.S_IMODE((tmp_path / "b.db").stat().st_mode) == 0o600


async def test_second_backup_to_the_same_place_is_refused_and_the_first_goes_on(
    stored: Stored, tmp_path: Path
) -> None:
    second: list[Answer] = []
    store = SqliteStore(stored.path)
    await store.open()
    loop = asyncio.get_running_loop()

    def start_another(_done: int, _total: int) -> None:
        words = ("backup", tmp_path / "second.db", "--store", stored.path)
        second.append(asyncio.run_coroutine_threadsafe(jobrunner(*words), loop).result())

    try:
        await store.backup(tmp_path / "first.db", start_another)
    finally:
        await store.close()
    (answer,) = second
    assert (answer.code, "another backup is being written" in answer.err) == (6, True)
    assert not (tmp_path / "second.db").exists()
    assert len(ids(tmp_path / "first.db")) == 2


async def test_what_a_killed_backup_has_left_is_used_by_the_next_one(
    stored: Stored, tmp_path: Path
) -> None:
    directory = tmp_path / "backups"
    directory.mkdir()
    (directory / f".{stored.path.name}.part").write_bytes(b"half a page" * 10_000)
    (directory / f".{stored.path.name}.part-journal").write_bytes(b"of another time")
    assert (await jobrunner("backup", directory, "--store", stored.path)).code == 0
    (made,) = directory.iterdir()
    assert len(ids(made)) == 2


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
async def test_backup_that_is_broken_off_ends_soon_and_leaves_nothing(
    stored: Stored, tmp_path: Path, number: int, code: int
) -> None:
    with closing(sqlite3.connect(stored.path)) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("CREATE TABLE large (bytes BLOB)")
        db.executemany("INSERT INTO large VALUES (zeroblob(?))", [(2_000_000,)] * 150)
        db.commit()
    directory = tmp_path / "backups"
    directory.mkdir()
    # A page at a time: it must not be at its end before a busy machine has sent the signal.
    slowly = (
        "from jobrunner.cli import main; from jobrunner.store.sqlite.maintenance import backup;"
        " backup.PAGES_PER_STEP = 1; main()"
    )
    words = ("backup", str(directory), "--store", str(stored.path))
    async with process("-c", slowly, *words) as running:
        async with asyncio.timeout(20):
            while not list(directory.iterdir()):  # noqa: ASYNC110 - the same
                await asyncio.sleep(0.001)  # noqa: TID251 - it says nothing before its end
        running.send_signal(number)
        assert await running.ended() == code
    assert list(directory.iterdir()) == []


async def test_vacuum_gives_room_back_while_a_worker_runs(tmp_db: Path) -> None:
    runner = JobRunner(tmp_db, queues={"default": 20}, keep_finished=0)
    runner.include(tasks)
    async with runner.running(work=False):
        for start in range(0, 6000, 2000):
            await runner.enqueue_many(
                note.options(tag="x" * 150).call(number) for number in range(start, start + 2000)
            )
        with closing(sqlite3.connect(tmp_db)) as db:
            db.execute("PRAGMA wal_autocheckpoint = 0")
            db.execute("DELETE FROM jobrunner_jobs")
            db.commit()
        kept = await runner.enqueue(note, 1)
        answer = await jobrunner("vacuum", "--yes", "--store", tmp_db, "--json")
        assert answer.code == 0, answer.err
        assert answer.json["bytes_after"] < answer.json["bytes_before"] / 5
        assert (await runner.get(kept.id)).state == "queued"
        later = await runner.enqueue(note, 2)
    assert ids(tmp_db) == {kept.id, later.id}


def open_in(pid: int, name: str) -> list[Path]:
    """Return the files that a process has open whose names begin so."""
    found = []
    for one in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # it was closed meanwhile
            found.append(one.readlink())
    return [path for path in found if path.name.startswith(name)]


TEMPORARY = "etilqs_"
"""The prefix of SQLite's temporary files."""


def fill(path: Path) -> None:
    """Make a file large, and a part of it empty."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("CREATE TABLE large (id INTEGER PRIMARY KEY, bytes BLOB)")
        db.execute(
            "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number LIMIT 150000)"
            " INSERT INTO large SELECT n, zeroblob(1000) FROM number"
        )
        db.execute("DELETE FROM large WHERE id < 30000")
        db.commit()


def empty_pages(path: Path) -> int:
    """Return how many pages of a file are empty."""
    with closing(sqlite3.connect(path)) as db:
        (count,) = db.execute("PRAGMA freelist_count").fetchone()
    return int(count)


@pytest.mark.slow
async def test_vacuum_takes_room_on_the_disk_and_not_in_memory(stored: Stored) -> None:
    fill(stored.path)
    with closing(sqlite3.connect(stored.path, isolation_level=None)) as db:
        db.execute("PRAGMA temp_store = MEMORY")
        seen = []

        def look() -> bool:
            seen.extend(open_in(os.getpid(), TEMPORARY))
            return False

        backup.vacuum(db, look)
        assert seen
        assert db.execute("PRAGMA temp_store").fetchone() == (2,)  # MEMORY, as it was


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
async def test_vacuum_that_is_broken_off_ends_soon_and_changes_nothing(
    stored: Stored, number: int, code: int
) -> None:
    fill(stored.path)
    before = empty_pages(stored.path)
    assert before > 1000
    words = ("vacuum", "--yes", "--store", str(stored.path))
    async with process("-m", "jobrunner.cli", *words) as running:
        async with asyncio.timeout(20):
            while not open_in(running.pid, TEMPORARY):  # noqa: ASYNC110 - the same
                await asyncio.sleep(0.001)  # noqa: TID251 - it says nothing before its end
        running.send_signal(number)
        assert await running.ended() == code
    assert empty_pages(stored.path) == before
    assert (await jobrunner("vacuum", "--yes", "--store", stored.path)).code == 0
    assert empty_pages(stored.path) == 0


async def test_second_signal_ends_a_command_at_once_whatever_it_waits_for(stored: Stored) -> None:
    words = ("queues", "pause", "mail", "--store", str(stored.path))
    with closing(sqlite3.connect(stored.path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        async with process("-m", "jobrunner.cli", *words) as running:
            async with asyncio.timeout(20):
                while not open_in(running.pid, stored.path.name):  # noqa: ASYNC110 - the same
                    await asyncio.sleep(0.001)  # noqa: TID251 - the same
            began = time.perf_counter()
            while await running.lives(0.1):
                running.send_signal(signal.SIGTERM)
            assert await running.ended() == 143
            assert time.perf_counter() - began < BUSY_TIMEOUT_S - 1
        db.execute("ROLLBACK")


async def test_vacuum_without_room_says_where_it_is_missing(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(conn: sqlite3.Connection, _: object) -> None:
        conn.execute("PRAGMA max_page_count = 1")  # which is as many as there are
        conn.execute("CREATE TABLE large AS SELECT zeroblob(1000000)")

    monkeypatch.setattr(backup, "vacuum", run_out)
    store = SqliteStore(stored.path)
    await store.open()
    try:
        with pytest.raises(StoreFull, match="SQLITE_TMPDIR"):
            await store.vacuum()
    finally:
        await store.close()
