"""Blank files, read as a whole and put in the place of others."""

import contextlib
import sqlite3
from pathlib import Path

from jobrunner.store.open import blank_store, open_store, put_blank, read_all
from tests.support.factories import NOW, claim, enqueue, new, settle, succeeded, worker_row


async def test_blank_file_is_a_store_that_needs_no_migration(new_db: Path) -> None:
    put_blank(new_db, await blank_store())
    assert read_all(new_db).jobs == []
    store = await open_store(new_db, durability="off", must_exist=True)
    await store.close()


async def test_read_all_returns_jobs_in_order_with_their_attempts(new_db: Path) -> None:
    store = await open_store(new_db, durability="off")
    try:
        first, second = new(), new()
        await enqueue(store, first)
        await enqueue(store, second)
        await store.workers.join(worker_row(tasks={"work": 5}), lambda: None)
        (claimed, *_) = await claim(store)
        await settle(store, succeeded(claimed))
        contents = read_all(new_db)  # while the store is open
    finally:
        await store.close()
    assert [row.id for row, _ in contents.jobs] == [first.id, second.id]
    ((row, attempts), *_) = contents.jobs
    assert (row.state, [one.outcome for one in attempts]) == ("succeeded", ["succeeded"])
    assert row.args == first.args
    assert contents.schedules == []


async def test_put_blank_keeps_the_connections_of_the_application(new_db: Path) -> None:
    blank = await blank_store()
    put_blank(new_db, blank)
    with contextlib.closing(sqlite3.connect(new_db, isolation_level=None)) as conn:
        conn.execute("CREATE TABLE orders (id INTEGER)")
        conn.execute("INSERT INTO jobrunner_meta VALUES ('test', 1)")
        put_blank(new_db, blank)
        tables = {name for (name,) in conn.execute("SELECT name FROM sqlite_schema")}
        assert "orders" not in tables
        assert "jobrunner_jobs" in tables
        assert conn.execute("SELECT 1 FROM jobrunner_meta WHERE name = 'test'").fetchall() == []
    store = await open_store(new_db, durability="off", must_exist=True)
    try:
        await enqueue(store, new(run_at=NOW))
    finally:
        await store.close()


async def test_store_without_durability_never_syncs_and_makes_no_room_in_its_log(
    new_db: Path, room_in_log: None
) -> None:
    store = await open_store(new_db, durability="off")
    try:
        assert Path(f"{new_db}-wal").stat().st_size < 1_000_000
    finally:
        await store.close()
