"""A backup that is copied over a running file keeps its inode: the process that moves the log notices it."""

import asyncio
import logging
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from jobrunner import JobRunner
from jobrunner.store.sqlite import SqliteStore
from jobrunner.store.sqlite.maintenance.checkpoint import EVERY_S
from tests.support.children import echo, tasks
from tests.support.engine import store_of
from tests.support.processes import child


def runner(path: Path) -> JobRunner:
    jobs = JobRunner(path)
    jobs.include(tasks)
    return jobs


def noticed(caplog: pytest.LogCaptureFixture) -> int:
    return sum("has written to" in one.message for one in caplog.records)


async def until_moved(store: SqliteStore) -> None:
    """Wait until this process has moved the log, and is the one that does."""
    checkpointer = store._checkpointer
    assert checkpointer is not None
    async with asyncio.timeout(20):
        while checkpointer._file is None or not (checkpointer._task and checkpointer._task.done()):
            await store.upkeep()
            await store.workers.list()  # a turn of the loop


@pytest.mark.parametrize("size", ["smaller", "the same"])
async def test_file_that_something_else_has_written_to_is_told_once(
    tmp_db: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, size: str
) -> None:
    backup = tmp_path / "backup.db"
    with caplog.at_level(logging.WARNING, "jobrunner"):
        jobs = runner(tmp_db)
        async with jobs.running(work=False):
            store = store_of(jobs)
            assert isinstance(store, SqliteStore)
            await store.backup(backup, lambda *_: None)
            if size == "smaller":
                await jobs.enqueue_many(echo.call("a" * 1000) for _ in range(500))
            await until_moved(store)
            assert noticed(caplog) == 0
            for _ in range(2):
                # As `cp` does: the file stays the same one.
                shutil.copyfile(backup, tmp_db)
                await store.upkeep()
            assert noticed(caplog) == 1


async def test_moving_the_log_and_foreign_writers_that_leave_the_file_alone_are_no_alarm(
    tmp_db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "jobrunner"):
        jobs = runner(tmp_db)
        async with jobs.running():
            store = store_of(jobs)
            assert isinstance(store, SqliteStore)
            async with child("client", tmp_db) as client:
                await client.heard("open")
                loop = asyncio.get_running_loop()
                end_s = loop.time() + 2.5 * EVERY_S
                moves = set()
                while loop.time() < end_s:
                    client.send("b")
                    await client.heard("stored")
                    with closing(sqlite3.connect(tmp_db)) as foreign:
                        foreign.execute("PRAGMA wal_autocheckpoint = 0")
                        foreign.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER)")
                        foreign.execute("INSERT INTO orders VALUES (1)")
                        foreign.commit()
                    job = await jobs.enqueue(echo, "a")
                    await job.result(timeout=15)
                    assert store._checkpointer is not None
                    moves.add(store._checkpointer._file)
            assert len(moves - {None}) > 1
    assert noticed(caplog) == 0
