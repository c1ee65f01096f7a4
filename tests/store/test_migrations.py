"""The schema is the sum of its migrations: a file of any version becomes what a new one is, with all that it holds."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jobrunner.model import Filter
from jobrunner.store.sqlite import SqliteStore, migrate
from tests.factories import DUE, NOW, claim, enqueue, new, row_of

ID = "01936d2c-0000-7000-8000-00000000000{}"


@pytest.fixture
def version_1(tmp_db: Path) -> Path:
    """A file as the first version left it: a dead letter, a job that succeeded, one that waits, one for later."""
    script = Path(__file__).with_name("version_1.sql").read_text(encoding="utf-8")
    with closing(sqlite3.connect(tmp_db)) as conn:
        conn.executescript(script)
        assert migrate.version(conn) == 1
    return tmp_db


@pytest.fixture
def new_file(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "new.db", isolation_level=None)) as conn:
        while migrate.check(conn):
            conn.execute("BEGIN IMMEDIATE")
            migrate.migrate_one(conn)
            conn.execute("COMMIT")
        yield conn


def schema(conn: sqlite3.Connection) -> set[tuple[str, str, tuple[object, ...]]]:
    """Return tables and indexes with their columns: the text of an altered table is of SQLite's own making."""
    found = conn.execute(
        "SELECT type, name FROM sqlite_schema WHERE name LIKE 'jobrunner%' AND sql IS NOT NULL"
    ).fetchall()
    pragma = {"table": "table_xinfo", "index": "index_xinfo"}
    return {
        (kind, name, tuple(conn.execute(f"PRAGMA {pragma[kind]}({name})").fetchall()))
        for kind, name in found
    }


async def test_file_of_version_1_opens_and_becomes_what_a_new_one_is(
    version_1: Path, new_file: sqlite3.Connection
) -> None:
    store = SqliteStore(version_1)
    await store.open()
    await store.close()
    with closing(sqlite3.connect(version_1)) as conn:
        assert migrate.version(conn) == len(migrate.migrations())
        assert schema(conn) == schema(new_file)
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_file_of_version_1_keeps_its_jobs_and_goes_on(version_1: Path) -> None:
    store = SqliteStore(version_1)
    await store.open()
    try:
        letter = await row_of(store, ID.format(1))
        assert (letter.state, letter.args, letter.tag) == ("dead", '{"n":1}', "dead")
        assert (letter.schedule, letter.scheduled_for) == (None, None)
        assert (letter.chain, letter.after) == (None, None)
        assert len(await store.attempts(letter.seq)) == 1
        done = await row_of(store, ID.format(2))
        assert (done.state, done.result) == ("succeeded", '"done"')
        waiting = await row_of(store, ID.format(3))
        assert (waiting.state, waiting.key) == ("queued", "k")
        assert [queue.name for queue in await store.queues() if queue.paused] == ["side"]
        (held,) = await enqueue(store, new(key="k"))
        assert (held.id, held.created) == (ID.format(3), False)
        await store.replay(ID.format(1), now=NOW)
        claimed = await claim(store, now=DUE)
        assert {job.id for job in claimed} == {ID.format(n) for n in (1, 3, 4)}
        assert (await store.dead_letters(Filter(), before=None, limit=9)).rows == []
        assert max(job.seq for job in claimed) == 4
    finally:
        await store.close()
