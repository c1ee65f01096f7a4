"""The schema: the sum of its migrations, made once, beside whatever else lives in the file."""

import sqlite3
from pathlib import Path

import pytest

from jobrunner.store.sqlite import SqliteStore
from jobrunner.store.sqlite.connection import transact
from jobrunner.store.sqlite.maintenance import migrate
from tests.support import scripts
from tests.support.factories import enqueue, new, row_of


def schema(path: Path) -> list[tuple[str, ...]]:
    """Return the tables and indexes of ours, as SQLite keeps them."""
    conn = sqlite3.connect(path)
    rows = conn.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name LIKE 'jobrunner%' ORDER BY 1, 2"
    ).fetchall()
    conn.close()
    return rows


def meta(path: Path) -> dict[str, object]:
    conn = sqlite3.connect(path)
    rows = dict(conn.execute("SELECT name, value FROM jobrunner_meta"))
    conn.close()
    return rows


async def make(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.close()


@pytest.mark.parametrize("done", range(len(migrate.migrations()) + 1))
async def test_open_of_any_older_schema_makes_the_newest(tmp_path: Path, done: int) -> None:
    old, fresh = tmp_path / "old.db", tmp_path / "fresh.db"
    conn = sqlite3.connect(old, isolation_level=None)
    for _ in range(done):
        assert transact(conn, migrate.migrate_one)
    conn.close()
    await make(old)
    await make(fresh)
    assert schema(old) == schema(fresh)
    assert meta(old) == meta(fresh)
    assert meta(fresh)["schema_version"] == len(migrate.migrations())


async def test_schema_is_the_sum_of_its_migrations(tmp_path: Path) -> None:
    by_hand, made = tmp_path / "by-hand.db", tmp_path / "made.db"
    conn = sqlite3.connect(by_hand)
    conn.execute(migrate.META)
    for script in migrate.migrations():
        conn.executescript(script)
    conn.close()
    await make(made)
    assert schema(made) == schema(by_hand)


async def test_open_twice_migrates_once(tmp_db: Path) -> None:
    store = SqliteStore(tmp_db)
    await store.open()
    (made,) = await enqueue(store, new())
    await store.close()
    before = schema(tmp_db)
    await store.open()
    assert (await row_of(store, made.id)).state == "queued"
    await store.close()
    assert schema(tmp_db) == before


async def test_open_in_the_applications_own_file_leaves_what_is_there(tmp_db: Path) -> None:
    conn = sqlite3.connect(tmp_db)
    conn.executescript(
        """
        PRAGMA application_id = 4711; PRAGMA user_version = 42;
        CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT); INSERT INTO orders VALUES (1, 'tea');
        """
    )
    conn.close()
    await make(tmp_db)
    conn = sqlite3.connect(tmp_db)
    assert conn.execute("SELECT * FROM orders").fetchall() == [(1, "tea")]
    assert conn.execute("PRAGMA application_id").fetchone() == (4711,)
    assert conn.execute("PRAGMA user_version").fetchone() == (42,)
    tables = {name for (name,) in conn.execute("SELECT name FROM sqlite_schema WHERE type='table'")}
    conn.close()
    assert {name for name in tables if not name.startswith(("jobrunner_", "sqlite_"))} == {"orders"}


async def test_A26_open_whose_migration_breaks_half_way_leaves_the_version_before(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(tmp_db)
    before = schema(tmp_db), meta(tmp_db)
    scripts = migrate.migrations()
    broken = "CREATE TABLE jobrunner_next (a INTEGER) STRICT;\nCREATE TABLE jobrunner_next (b);\n"
    with monkeypatch.context() as patched:
        patched.setattr(migrate, "migrations", lambda: [*scripts, broken])
        with pytest.raises(Exception, match="already exists"):
            await SqliteStore(tmp_db).open()
        assert (schema(tmp_db), meta(tmp_db)) == before
        patched.setattr(migrate, "migrations", lambda: [*scripts, broken.splitlines()[0]])
        await make(tmp_db)
    assert meta(tmp_db)["schema_version"] == len(scripts) + 1


def test_B6_eight_processes_that_create_an_empty_file_at_once_all_start(tmp_path: Path) -> None:
    script = """
import asyncio, sys
from jobrunner.store.sqlite import SqliteStore

async def main():
    store = SqliteStore(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    await store.open()
    await store.close()

asyncio.run(main())
"""
    path = tmp_path / "jobs.db"
    processes = [scripts.start(script, path) for _ in range(8)]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        scripts.communicate(process)
    assert meta(path)["schema_version"] == len(migrate.migrations())
