"""The files of a store: opening, the write-ahead log, and the lock files of workers."""

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobrunner.core.model import Enqueued
from jobrunner.store.protocol import Recovered
from jobrunner.store.round import Round
from jobrunner.store.sqlite import SqliteStore
from jobrunner.store.sqlite.host import locks
from tests.conformance.peer import Peer
from tests.support import scripts
from tests.support.factories import (
    MINUTE,
    NOW,
    OTHER_WORKER,
    SECOND,
    WORKER,
    claim,
    claim_one,
    enqueue,
    new,
    row_of,
    worker_row,
)

pytestmark = pytest.mark.usefixtures("room_in_log")


@pytest.fixture
def peer(store: SqliteStore) -> Iterator[Peer]:
    """Another process on the store."""
    peer = Peer(f"sqlite:///{store.path}")
    yield peer.opened()
    peer.kill()


# -- R12 -------------------------------------------------------------------------------------------


def test_R12_no_code_but_sqlite_opens_the_database_its_log_or_its_index(tmp_db: Path) -> None:
    """A12: closing any descriptor of them drops SQLite's own locks, and acknowledged rows vanish."""
    script = """
import asyncio, os, sys
from pathlib import Path

path = sys.argv[1]
opened = []

def hear(event, args):
    if event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
        opened.append(os.path.abspath(os.fsdecode(args[0])))

sys.addaudithook(hear)

from jobrunner.core.model import Filter
from jobrunner.store.round import Round
from jobrunner.store.sqlite import SqliteStore
from tests.support.factories import *

async def life(n):
    store = SqliteStore(path)
    await store.open()
    await store.workers.join(worker_row(), lambda: None)
    await enqueue(store, *[new() for _ in range(10_000)])
    job = await claim_one(store, new(queue=f"one {n}"))
    await settle(store, succeeded(job))
    letter = await make_dead(store, new(queue=f"other {n}"))
    await store.dead_letters.replay(letter.id, now=NOW)
    await store.upkeep()
    await store.workers.recover(now=NOW, thorough=True)
    await store.jobs.list(Filter(), before=None, limit=10)
    await store.jobs.queues()
    store.workers.notify()
    await store.workers.leave(WORKER, now=NOW)
    await store.close()

asyncio.run(life(1))
asyncio.run(life(2))
forbidden = {path, path + "-wal", path + "-shm", path + "-journal"}
print(len([one for one in opened if one in forbidden]))
print(len([one for one in opened if one.startswith(path + "-jobrunner/")]))
"""
    forbidden, locks = scripts.run(script, tmp_db).split()
    assert int(forbidden) == 0
    assert int(locks) > 0  # the hook does hear


async def test_files_are_closed_to_other_users(store: SqliteStore) -> None:
    await store.workers.join(worker_row(), lambda: None)
    folder = store._folder
    assert folder.stat().st_mode & 0o077 == 0
    files = list(folder.iterdir())
    assert files
    for path in files:
        assert path.stat().st_mode & 0o077 == 0


async def test_close_after_leave_leaves_no_lock_file_and_no_log(tmp_db: Path) -> None:
    store = SqliteStore(tmp_db)
    await store.open()
    await store.workers.join(worker_row(), lambda: None)
    await enqueue(store, new())
    await store.workers.leave(WORKER, now=NOW)
    await store.close()
    left = {path.name for path in tmp_db.parent.rglob("*") if path.is_file()}
    assert left == {"jobs.db", "turnstile.a", "turnstile.b"}


# -- the checkpoint ------------------------------------------------------------------------------------


async def checkpointed(store: SqliteStore) -> bool:
    """Wait for a checkpoint that is under way; return whether there was one."""
    assert store._checkpointer is not None
    task = store._checkpointer._task
    if task is None:
        return False
    await asyncio.wait([task])
    return True


def in_the_file_alone(store: SqliteStore) -> int:
    """Count the jobs in the database file without its log."""
    conn = sqlite3.connect(f"file:{store.path}?immutable=1", uri=True)
    try:
        (count,) = conn.execute("SELECT count(*) FROM jobrunner_jobs").fetchone()
    except sqlite3.OperationalError:  # not even the tables
        count = 0
    conn.close()
    return int(count)


async def test_upkeep_moves_the_log_into_the_file(store: SqliteStore) -> None:
    await enqueue(store, *[new() for _ in range(100)])
    assert in_the_file_alone(store) == 0
    await store.upkeep()
    assert await checkpointed(store)
    assert in_the_file_alone(store) == 100


async def test_write_of_many_rows_moves_the_log_without_being_asked(store: SqliteStore) -> None:
    await enqueue(store, *[new() for _ in range(20_000)])
    assert await checkpointed(store)
    assert in_the_file_alone(store) == 20_000


async def test_write_of_few_rows_leaves_the_log_alone(store: SqliteStore) -> None:
    await enqueue(store, new())
    assert not await checkpointed(store)


async def test_log_is_moved_by_one_process_and_after_its_death_by_another(
    store: SqliteStore, peer: Peer
) -> None:
    peer.call("write", Round(NOW, enqueues=[new() for _ in range(20_000)]))
    await enqueue(store, *[new() for _ in range(20_000)])
    assert not await checkpointed(store)
    peer.kill()
    await enqueue(store, *[new() for _ in range(20_000)])
    assert await checkpointed(store)


# -- lock files ------------------------------------------------------------------------------------------


async def test_join_holds_a_lock_that_nobody_else_can_take(store: SqliteStore, peer: Peer) -> None:
    await store.workers.join(worker_row(), lambda: None)
    (row,) = peer.call("workers.list")
    assert row.worker == WORKER
    found = peer.call("workers.recover", now=NOW, thorough=True)
    assert found == Recovered([], 0, [])


async def test_recover_of_a_worker_whose_lock_file_is_missing_waits_five_seconds(
    store: SqliteStore, peer: Peer
) -> None:
    """It cannot prove that it lives; but its file may just be on the way."""
    await enqueue(store, new())
    (job,) = peer.works()
    locks.worker_file(store._folder, OTHER_WORKER).unlink()

    async def look(now: int, *, thorough: bool = True) -> Recovered:
        return await store.workers.recover(now=now, thorough=thorough)

    nothing = Recovered([], 0, [])
    assert await look(NOW) == nothing
    assert await look(NOW + 5 * SECOND - 1) == nothing
    assert await look(NOW + MINUTE, thorough=False) == nothing
    assert await look(NOW + 5 * SECOND) == Recovered([OTHER_WORKER], 1, [])
    assert (await row_of(store, job.id)).state == "queued"


async def test_recover_of_a_lock_file_that_came_back_forgets_that_it_was_missing(
    store: SqliteStore, peer: Peer
) -> None:
    await enqueue(store, new())
    peer.works()
    path = locks.worker_file(store._folder, OTHER_WORKER)
    hidden = path.with_name("hidden")
    path.rename(hidden)
    await store.workers.recover(now=NOW, thorough=True)
    hidden.rename(path)
    await store.workers.recover(now=NOW + SECOND, thorough=True)
    path.rename(hidden)
    found = await store.workers.recover(now=NOW + 10 * SECOND, thorough=True)
    assert found == Recovered([], 0, [])


async def test_recover_removes_an_old_lock_file_without_a_row_and_spares_a_young_one(
    store: SqliteStore,
) -> None:
    """A young one may belong to a worker that has its lock and not yet its row."""
    old, young = (locks.worker_file(store._folder, n) for n in (1, 2))
    old.touch()
    young.touch()
    os.utime(old, (0, (NOW - MINUTE) / SECOND))
    os.utime(young, (0, (NOW - MINUTE) / SECOND + 1))
    found = await store.workers.recover(now=NOW, thorough=True)
    assert found == Recovered([], 0, [])
    assert not old.exists()
    assert young.exists()


async def test_B8_recover_removes_the_files_of_the_dead(store: SqliteStore, peer: Peer) -> None:
    peer.call("join", worker_row(OTHER_WORKER))
    path = locks.worker_file(store._folder, OTHER_WORKER)
    peer.kill()
    assert path.exists()
    await store.workers.recover(now=NOW, thorough=False)
    assert not path.exists()


async def test_open_after_a_kill_9_finds_everything_acknowledged(
    store: SqliteStore, peer: Peer
) -> None:
    jobs = [new() for _ in range(100)]
    written = peer.call("write", Round(NOW, enqueues=jobs))
    assert all(isinstance(one, Enqueued) for one in written.enqueued)
    peer.kill()
    for job in jobs:
        assert (await row_of(store, job.id)).state == "queued"
    await claim_one(store, new(queue="after"))


async def test_B15_recover_by_two_that_miss_the_same_lock_file_is_told_by_one(
    store: SqliteStore, peer: Peer
) -> None:
    """No lock stands between them here: of two that delete the worker's row, one finds it gone."""
    await enqueue(store, new())
    await store.workers.join(worker_row(), lambda: None)
    await claim(store)
    store.workers._locks[WORKER].path.unlink()
    store.workers._locks.pop(WORKER).abandon()
    found = []
    for now in (NOW, NOW + MINUTE):
        peer.begin("workers.recover", now=now, thorough=True)
        found = [await store.workers.recover(now=now, thorough=True), peer.answer()]
    assert sorted((len(one.workers), one.requeued) for one in found) == [(0, 0), (1, 1)]
