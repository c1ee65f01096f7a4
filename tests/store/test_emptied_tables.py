"""Tables that something has emptied, as a test fixture does: the store says so, and goes on where it can."""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobrunner import JobRunner, StoreError
from jobrunner.core.errors import SchemaTooNew, StoreCorrupt
from jobrunner.store.sqlite import SqliteStore, boot
from jobrunner.store.sqlite.connection import transact
from jobrunner.store.sqlite.maintenance import migrate
from tests.cli.commands import jobrunner
from tests.support.children import echo, tasks
from tests.support.engine import Gate, history, soon, worker_of
from tests.support.processes import child

NEWEST = len(migrate.migrations())


@contextlib.contextmanager
def changing(path: Path) -> Iterator[sqlite3.Connection]:
    """Give a foreign connection, and commit what it does."""
    with contextlib.closing(sqlite3.connect(path)) as conn:
        yield conn
        conn.commit()


def empty(path: Path, *kept: str) -> None:
    """Delete every row of every table, SQLite's own counters among them."""
    with changing(path) as conn:
        names = conn.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        for (name,) in names:
            if name not in kept:
                conn.execute(f"DELETE FROM {name}")  # noqa: S608 - names out of the schema


def note(path: Path, version: object) -> None:
    """Have the file say something else of its version."""
    with changing(path) as conn:
        conn.execute(
            "UPDATE jobrunner_meta SET value = ? WHERE name = 'schema_version'", (version,)
        )


def noted(path: Path) -> object:
    with changing(path) as conn:
        return migrate.noted_version(conn)


async def make(path: Path) -> Path:
    store = SqliteStore(path)
    await store.open()
    await store.close()
    return path


def runner(path: Path) -> JobRunner:
    jobs = JobRunner(path, grace=1)
    jobs.include(tasks)
    return jobs


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.message for one in caplog.records if one.levelno == logging.WARNING]


# -- while nobody has the file open ------------------------------------------------------------------


async def test_store_whose_tables_were_emptied_is_opened_and_works(
    tmp_db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await make(tmp_db)
    empty(tmp_db)
    async with runner(tmp_db).running() as jobs:
        job = await jobs.enqueue(echo, "a")
        assert await job.result(timeout=15) == "a"
    assert noted(tmp_db) == NEWEST
    (said,) = warned(caplog)
    assert "is missing, and is written anew" in said
    assert f"version {NEWEST}" in said
    caplog.clear()
    await make(tmp_db)
    assert warned(caplog) == []


@pytest.mark.parametrize("said", [None, "three", "3", 0, -1, 3.5, b"3"])
async def test_version_that_is_none_is_told_and_written_anew(
    tmp_db: Path, caplog: pytest.LogCaptureFixture, said: object
) -> None:
    await make(tmp_db)
    note(tmp_db, said)
    await make(tmp_db)
    assert noted(tmp_db) == NEWEST
    (warning,) = warned(caplog)
    assert ("is missing" if said is None else f"says {said!r}") in warning


@pytest.mark.parametrize("version", range(1, NEWEST + 1))
async def test_tables_of_any_version_are_known_by_their_columns(tmp_db: Path, version: int) -> None:
    with contextlib.closing(sqlite3.connect(tmp_db, isolation_level=None)) as conn:
        for _ in range(version):
            assert transact(conn, migrate.migrate_one)
        conn.execute("DELETE FROM jobrunner_meta")
        assert migrate.version(conn) == version
        conn.execute("DROP TABLE jobrunner_meta")
        assert migrate.version(conn) == version
    await make(tmp_db)
    assert noted(tmp_db) == NEWEST


def test_no_two_versions_look_the_same() -> None:
    shapes = list(migrate._known_shapes())
    assert len(shapes) == NEWEST
    assert all(one != other for at, one in enumerate(shapes) for other in shapes[:at])


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE jobrunner_attempts",
        "ALTER TABLE jobrunner_jobs ADD COLUMN colour TEXT",
        "DROP INDEX jobrunner_jobs_key",
        "CREATE TABLE jobrunner_next (id INTEGER)",
    ],
)
async def test_tables_of_no_known_version_are_refused_with_the_remedy(
    tmp_db: Path, change: str
) -> None:
    await make(tmp_db)
    with changing(tmp_db) as conn:
        conn.execute("DELETE FROM jobrunner_meta")
        conn.execute(change)
    before = dump(tmp_db)
    with pytest.raises(StoreCorrupt, match=r"no version that .* restore a backup, or drop every"):
        await SqliteStore(tmp_db).open()
    assert dump(tmp_db) == before
    for command in ("status", "doctor"):
        answer = await jobrunner(command, "--store", tmp_db)
        assert "restore a backup, or drop every table" in answer.out + answer.err
        assert answer.code in (6, 8)


def dump(path: Path) -> list[str]:
    with changing(path) as conn:
        return list(conn.iterdump())


async def test_version_of_a_later_build_is_refused_whatever_the_tables_look_like(
    tmp_db: Path,
) -> None:
    await make(tmp_db)
    note(tmp_db, NEWEST + 1)
    with pytest.raises(SchemaTooNew):
        await SqliteStore(tmp_db).open()


async def test_doctor_and_status_tell_the_truth_of_emptied_tables(tmp_db: Path) -> None:
    await make(tmp_db)
    empty(tmp_db)
    before = dump(tmp_db)
    found = (await jobrunner("doctor", "--store", tmp_db, "--json")).json
    (tables,) = [one for one in found["findings"] if one["about"] == "tables"]
    assert (found["healthy"], tables["level"]) == (True, "warning")
    assert f"version {NEWEST}, by their columns" in tables["what"]
    assert "is missing" in tables["what"]
    assert dump(tmp_db) == before
    answer = await jobrunner("status", "--store", tmp_db)
    assert (answer.code, answer.out.splitlines()[-1]) == (0, "dead letters: 0")
    assert "is written anew" in answer.err


# -- while processes work on it --------------------------------------------------------------------------


async def test_worker_whose_tables_are_emptied_goes_on_and_is_seen_again(
    tmp_db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = runner(tmp_db)
    jobs.every(3600)(jobs.task(name="sweep")(sweep))
    async with jobs.running():
        worker = worker_of(jobs)
        empty(tmp_db)
        job = await jobs.enqueue(echo, "a")
        assert await job.result(timeout=15) == "a"
        # By its own chores.
        async with asyncio.timeout(15):
            while [one.id for one in (await jobs.schedules.list()).items] != ["sweep"]:
                pass
        assert [one.id for one in (await jobs.health()).workers] == [worker.id]
        assert noted(tmp_db) == NEWEST
        (said,) = warned(caplog)
        assert "was deleted while it works" in said
        # A second process finds all that it needs, without the look for another machine.
        async with asyncio.timeout(boot.WATCH_S), child("client", tmp_db) as client:
            await client.heard("open")
            client.send("b")
            await soon((await jobs.get((await client.heard("stored"))["id"])).result())


async def sweep() -> None: ...


async def test_jobs_of_a_live_worker_whose_row_is_deleted_are_not_taken(tmp_db: Path) -> None:
    async with child("work", tmp_db) as worker, child("client", tmp_db) as client:
        await worker.heard("open")
        await client.heard("open")
        client.send("hold a")
        id = (await client.heard("stored"))["id"]
        await worker.heard("held")
        jobs = runner(tmp_db)
        async with jobs.running():
            with changing(tmp_db) as conn:
                conn.execute("DELETE FROM jobrunner_workers WHERE pid = ?", (worker.pid,))
            await worker_of(jobs).maintenance.recovery.recover(thorough=True)
            assert [one.outcome for one in await history(jobs, id)] == [None]
            # Its own chores store the row anew.
            async with asyncio.timeout(15):
                while worker.pid not in [one.pid for one in (await jobs.health()).workers]:
                    pass
            # And once it dies, the job is taken.
            await worker.kill()
            async with asyncio.timeout(15):
                while [one.outcome for one in await history(jobs, id)] != ["lost", None]:
                    pass
            assert await jobs.cancel(id)


async def test_store_that_lost_the_note_of_its_system_is_opened_beside_a_live_worker(
    tmp_db: Path,
) -> None:
    async with child("work", tmp_db) as worker:
        await worker.heard("open")
        with changing(tmp_db) as conn:
            conn.execute("DELETE FROM jobrunner_meta")
        async with asyncio.timeout(boot.WATCH_S / 2):
            async with runner(tmp_db).running(work=False) as jobs:
                assert [one.pid for one in (await jobs.health()).workers] == [worker.pid]


async def test_job_that_gets_the_number_of_one_that_still_runs_keeps_its_own_end(
    tmp_db: Path,
) -> None:
    """SQLite's counter goes with the rows, and both have the same lease and worker."""
    jobs, gate = JobRunner(tmp_db, grace=1), Gate()

    @jobs.task
    async def hold(name: str) -> str:
        await gate.enter(name)
        return name

    async with jobs.running():
        first = await jobs.enqueue(hold, "first")
        assert await gate.arrival() == "first"
        empty(tmp_db, "jobrunner_workers", "jobrunner_meta")
        second = await jobs.enqueue(hold, "second")
        assert await gate.arrival() == "second"
        gate.open()
        assert await second.result(timeout=15) == "second"
        assert [one.outcome for one in await history(jobs, second.id)] == ["succeeded"]
        with pytest.raises(LookupError):
            await jobs.get(first.id)


async def test_tables_that_are_dropped_while_open_are_an_error_and_no_bug(tmp_db: Path) -> None:
    jobs = runner(tmp_db)
    async with jobs.running():
        with changing(tmp_db) as conn:
            conn.execute("DROP TABLE jobrunner_jobs")
        with pytest.raises(StoreError, match=r"no such table: jobrunner_jobs.*drop what is left"):
            await jobs.enqueue(echo, "a")
    # A restart alone would find the same.
    with pytest.raises(StoreError, match="no such table: jobrunner_jobs"):
        async with runner(tmp_db).running() as jobs:
            await jobs.enqueue(echo, "a")
    with changing(tmp_db) as conn:
        left = conn.execute(
            "SELECT name FROM sqlite_schema WHERE name LIKE 'jobrunner%' AND type = 'table'"
        )
        for (name,) in left.fetchall():
            conn.execute(f"DROP TABLE {name}")
    async with runner(tmp_db).running() as jobs:
        assert await (await jobs.enqueue(echo, "a")).result(timeout=15) == "a"
