"""The reading connections: who waits for whom, what a count costs, and what is found to be deleted."""

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from jobrunner.core.errors import StoreUnavailable
from jobrunner.core.model import Filter, QueueStats, chained
from jobrunner.store.round import Round
from jobrunner.store.sqlite import SqliteStore, readers
from jobrunner.store.sqlite.maintenance import backup
from jobrunner.store.sqlite.readers import Readers
from jobrunner.store.sqlite.sql import queues, retention, walks
from tests.support.factories import (
    DAY,
    HOUR,
    NOW,
    WORKER,
    claim,
    claim_one,
    enqueue,
    make_dead,
    new,
    row_of,
    settle,
    succeeded,
    worker_row,
)

JOBS = 60


def readers_of(store: SqliteStore) -> Readers:
    assert store._access._readers is not None
    return store._access._readers


# -- without a loop -------------------------------------------------------------------------------------


async def test_threads_measure_beside_writes_and_each_sees_one_moment(store: SqliteStore) -> None:
    """A counter and the row that it counts are in one transaction, so no snapshot has one alone."""
    over = threading.Event()

    def measure() -> set[int]:
        differences = set()
        while not over.is_set():
            found = store.statistics.measure()
            cancelled = found.counters.get(("jobs:cancelled", "default", "work"), 0)
            waiting = sum(queue.queued for queue in found.queues)
            differences.add(JOBS - cancelled - waiting)
        return differences

    await enqueue(store, *(new() for _ in range(JOBS)))
    threads = [asyncio.create_task(asyncio.to_thread(measure)) for _ in range(4)]
    try:
        where, before = Filter(task="work"), None
        for _ in range(JOBS):
            done = await store.jobs.cancel_all(where, before=before, now=NOW, limit=1)
            before = done.cursor
    finally:
        over.set()
        found = await asyncio.gather(*threads)
    assert set().union(*found) == {0}


async def test_close_waits_for_a_measurement_and_then_refuses_it(store: SqliteStore) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(conn: sqlite3.Connection) -> int:
        entered.set()
        assert go_on.wait(20)
        (number,) = conn.execute("SELECT count(*) FROM jobrunner_jobs").fetchone()
        return int(number)

    blocking = readers_of(store)._blocking
    reading = asyncio.create_task(asyncio.to_thread(blocking.read, slow))
    assert await asyncio.to_thread(entered.wait, 20)
    closing_it = asyncio.create_task(asyncio.to_thread(blocking.close))
    go_on.set()
    assert await reading == 0
    await closing_it
    with pytest.raises(StoreUnavailable):
        store.statistics.measure()


# -- who waits for whom ----------------------------------------------------------------------------------


async def test_nothing_but_lists_waits_for_a_list(store: SqliteStore) -> None:
    job = await claim_one(store)
    letter = await make_dead(store)
    await store.workers.join(worker_row(WORKER), lambda: None)
    go_on = threading.Event()
    slow = asyncio.create_task(readers_of(store).read_list(lambda _: go_on.wait(20)))
    try:
        assert (await row_of(store, job.id)).state == "running"
        assert await store.jobs.attempts(job.seq)
        assert await store.jobs.cancel_requests(WORKER) == []
        assert len(await store.workers.list()) == 1
        assert [one.running for one in await store.jobs.queues()] == [1]
        assert await store.jobs.waiting_tasks() == []
        assert await store.schedules.due(frozenset(), now=NOW, limit=1) == []
        assert (await store.workers.recover(now=NOW, thorough=True)).workers == []
        assert (await store.dead_letters.replay(letter.id, now=NOW)).state == "queued"
        await store.upkeep()
        assert not slow.done()
    finally:
        go_on.set()
    assert await slow


async def test_list_gives_way_to_another_after_each_step(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walks, "STEP_S", 0.0)
    monkeypatch.setattr(readers, "PAGE_S", 60.0)
    await store.write(Round(NOW, enqueues=[new() for _ in range(5 * walks.FIRST_WINDOW)]))
    ended: list[str] = []

    async def list_jobs(name: str, where: Filter) -> None:
        page = await store.jobs.list(where, before=None, limit=10)
        assert page.complete
        ended.append(name)

    await asyncio.gather(list_jobs("long", Filter(task="nobody")), list_jobs("short", Filter()))
    assert ended == ["short", "long"]


async def test_reads_go_on_while_a_backup_is_written(store: SqliteStore, tmp_path: Path) -> None:
    job = await claim_one(store)
    loop = asyncio.get_running_loop()
    listed: list[str] = []

    async def look() -> None:
        assert (await row_of(store, job.id)).state == "running"
        page = await store.jobs.list(Filter(), before=None, limit=1)
        listed.extend(row.id for row in page.rows)

    def on_progress(_done: int, _total: int) -> None:
        # On the backup's thread, which waits here: nobody else may wait for it.
        asyncio.run_coroutine_threadsafe(look(), loop).result(20)

    await store.backup(tmp_path / "copy.db", on_progress)
    assert set(listed) == {job.id}
    with closing(sqlite3.connect(tmp_path / "copy.db")) as backup:
        assert backup.execute("SELECT id FROM jobrunner_jobs").fetchall() == [(job.id,)]


async def test_close_cuts_a_list_and_a_backup_short(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "PAGES_PER_STEP", 1)
    listing, copying, closing_ = threading.Event(), threading.Event(), threading.Event()
    forever = (
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    )

    def read(conn: sqlite3.Connection) -> None:
        listing.set()
        conn.execute(forever).fetchone()

    def on_progress(done: int, _total: int) -> None:
        assert not closing_.is_set()
        copying.set()
        assert closing_.wait(20)

    slow = asyncio.create_task(readers_of(store).read_list(read))
    copy = asyncio.create_task(store.backup(tmp_path / "copy.db", on_progress))
    assert await asyncio.to_thread(listing.wait, 20)
    assert await asyncio.to_thread(copying.wait, 20)
    close = asyncio.create_task(store.close())
    with pytest.raises(StoreUnavailable, match="not open any more"):
        await slow
    closing_.set()
    with pytest.raises(StoreUnavailable, match="broken off"):
        await copy
    await close
    assert not list(tmp_path.glob("*copy*"))


# -- counts ----------------------------------------------------------------------------------------------


async def test_counts_stop_when_their_time_is_up_and_say_so(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "COUNT_S", -1.0)
    many = [new(queue=queue) for queue in ("a", "b") for _ in range(5_000)]
    await store.write(Round(NOW, enqueues=[*many, new(queue="few")]))
    assert await store.jobs.queues() == [
        QueueStats("a", False, 100, 0, 0, 0, NOW, False),
        QueueStats("b", False, 100, 0, 0, 0, NOW, False),
        QueueStats("few", False, 1, 0, 0, 0, NOW, True),
    ]
    # What was set for the count is gone again.
    assert len((await store.jobs.list(Filter(), before=None, limit=1_000)).rows) == 1_000
    assert await store.jobs.get(many[0].id) is not None


async def test_counts_stop_at_ten_thousand(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "COUNT_S", 60.0)
    many = 10_001
    await store.write(Round(NOW, enqueues=[new() for _ in range(many - 2)]))
    (default,) = await store.jobs.queues()
    assert (default.queued, default.complete) == (9_999, True)
    await store.write(Round(NOW, enqueues=[new() for _ in range(2)]))
    await store.write(Round(NOW, enqueues=chained([new(queue="chain") for _ in range(many + 1)])))
    later = [new(queue="later", run_at=NOW + HOUR) for _ in range(many)]
    await store.write(Round(NOW, enqueues=[*later, new(queue="last", run_at=NOW + DAY)]))
    assert await store.jobs.queues() == [
        QueueStats("chain", False, 1, 0, 10_000, 0, NOW, False),
        QueueStats("default", False, 10_000, 0, 0, 0, NOW, False),
        QueueStats("later", False, 0, 10_000, 0, 0, None, False),
    ]


async def test_scheduled_jobs_are_counted_from_their_index_alone(store: SqliteStore) -> None:
    """The rows lie far apart; 10,000 of 2 KB took 28 ms, and take 2 ms."""
    counted = queues._Count(queues._SCHEDULED)._counted
    plan = await readers_of(store).read(
        lambda conn: conn.execute(f"EXPLAIN {counted}", {"cap": 9}).fetchall()
    )
    # Columns of EXPLAIN: address, instruction, and its operands; the third of a seek is the table's cursor.
    (table,) = {row[4] for row in plan if row[1] == "DeferredSeek"}
    assert not [row for row in plan if row[1] == "Column" and row[2] == table]


# -- retention -------------------------------------------------------------------------------------------


async def prune(store: SqliteStore, **words: int) -> int:
    limits = {"finished_before": 0, "died_before": 0, "keep_finished": 1_000, "limit": 500} | words
    return await store.jobs.prune(by_task={}, **limits)


async def test_prune_that_finds_nothing_takes_no_write_lock(store: SqliteStore) -> None:
    await settle(store, succeeded(await claim_one(store)))
    said: list[str] = []
    assert store._access._writer is not None
    connection = store._access._writer._connection
    await connection.run(lambda conn: conn.set_trace_callback(said.append))
    assert await prune(store) == 0
    assert said == []
    assert await prune(store, finished_before=NOW + 1) == 1
    assert said
    await connection.run(lambda conn: conn.set_trace_callback(None))


async def test_prune_goes_on_in_steps_past_rows_that_stay(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ROWS_PER_STEP", 2)
    monkeypatch.setattr(walks, "STEP_S", 1e-9)
    await enqueue(store, *[new("stay") for _ in range(7)], *[new("go") for _ in range(3)])
    claimed = await claim(store, tasks=["stay", "go"])
    await settle(store, *[succeeded(job, at=NOW + job.seq) for job in claimed])
    gone = await store.jobs.prune(
        finished_before=0,
        by_task={"go": NOW + HOUR},
        died_before=0,
        keep_finished=1_000,
        limit=2,
    )
    assert gone == 2
    left = (await store.jobs.list(Filter(), before=None, limit=100)).rows
    assert sorted(row.task for row in left) == ["go", *["stay"] * 7]


async def test_dead_letter_that_is_replayed_before_it_is_deleted_stays(store: SqliteStore) -> None:
    letter = await make_dead(store)
    found = await readers_of(store).read_list(retention.dead_letters, NOW + 1, 9)
    assert len(found) == 1
    await store.dead_letters.replay(letter.id, now=NOW)
    assert await store._access.write(retention.delete, [], found) == 0
    assert (await row_of(store, letter.id)).state == "queued"
    assert len(await store.jobs.attempts(letter.seq)) == 1
