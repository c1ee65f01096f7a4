"""Transactions: one callable in one hop, so that no cancellation leaves one open or tears one apart."""

import asyncio
import inspect
import random
import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path

import aiosqlite
import pytest

from jobrunner.core.errors import StoreUnavailable
from jobrunner.core.model import Enqueued, Filter
from jobrunner.store.round import Round
from jobrunner.store.sqlite import SqliteStore
from jobrunner.store.sqlite.connection import Connection
from jobrunner.store.sqlite.sql import queues
from jobrunner.store.sqlite.sql.statements import BEGIN
from tests.conformance.rigs import SqliteRig
from tests.support.factories import (
    DAY,
    NOW,
    OUTCOMES,
    WORKER,
    claim,
    claim_of,
    claim_one,
    enqueue,
    make_dead,
    new,
    row_of,
    settle,
    succeeded,
    worker_row,
)


def writer_of(store: SqliteStore) -> Connection:
    assert store._access._writer is not None
    return store._access._writer._connection


async def in_transaction(store: SqliteStore) -> bool:
    return await writer_of(store).run(lambda conn: conn.in_transaction)


class Gate:
    """A piece of work for a connection's thread that goes on when the test says so."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, conn: sqlite3.Connection) -> None:
        self.entered.set()
        assert self.open.wait(20)


# -- cancellation ----------------------------------------------------------------------------------


async def test_C1_cancel_storm_on_write_never_leaves_a_transaction_open(
    store: SqliteStore,
) -> None:
    """C2: a cancelled caller can find the job by its id."""
    dice = random.Random(1)
    loop = asyncio.get_running_loop()
    jobs = [new(key=f"key{n}" if n % 3 == 0 else None) for n in range(400)]
    tasks = []
    for job in jobs:
        task = asyncio.create_task(store.write(Round(NOW, enqueues=[job])))
        tasks.append(task)
        loop.call_later(dice.random() * 0.3, task.cancel)
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert await in_transaction(store) is False
    acked, unknown = 0, 0
    for job, answer in zip(jobs, answers, strict=True):
        row = await store.jobs.get(job.id)
        if isinstance(answer, asyncio.CancelledError):
            unknown += row is not None
        else:
            assert not isinstance(answer, BaseException)
            assert row is not None
            acked += 1
    stored = await store.jobs.list(Filter(), before=None, limit=1_000)
    assert len(stored.rows) == acked + unknown
    (made,) = await enqueue(store, new())
    assert made.created


async def test_C2_cancel_while_the_commit_is_under_way_is_resolved_by_the_id(
    store: SqliteStore,
) -> None:
    job = new(key="key")
    gate = Gate()
    holding = asyncio.create_task(writer_of(store).run(gate))
    writing = asyncio.create_task(store.write(Round(NOW, enqueues=[job])))
    await asyncio.to_thread(gate.entered.wait, 20)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    gate.open.set()
    await holding
    # Handing it in again tells what became of it: it is there, once.
    (again,) = await enqueue(store, job)
    assert (again.id, again.created) == (job.id, False)
    assert (await row_of(store, job.id)).state == "queued"


async def test_C3_cancel_of_a_write_that_has_not_begun_does_not_undo_it(
    store: SqliteStore,
) -> None:
    gate = Gate()
    holding = asyncio.create_task(writer_of(store).run(gate))
    await asyncio.to_thread(gate.entered.wait, 20)
    jobs = [new() for _ in range(3)]
    writes = [asyncio.create_task(store.write(Round(NOW, enqueues=[job]))) for job in jobs]
    while writer_of(store)._connection._tx.qsize() < len(jobs):
        await asyncio.to_thread(lambda: None)
    writes[1].cancel()
    gate.open.set()
    await holding
    answers = await asyncio.gather(*writes, return_exceptions=True)
    assert isinstance(answers[1], asyncio.CancelledError)
    assert [(await row_of(store, job.id)).state for job in jobs] == ["queued"] * 3


async def test_C1_cancel_storm_on_every_verb_leaves_the_store_whole(store: SqliteStore) -> None:
    dice = random.Random(2)
    loop = asyncio.get_running_loop()
    letters = [await make_dead(store) for _ in range(20)]
    for n in range(10):
        await store.workers.join(worker_row(WORKER + n), lambda: None)
    verbs = []
    for n, letter in enumerate(letters):
        verbs += [
            store.dead_letters.replay(letter.id, now=NOW),
            store.write(Round(NOW, enqueues=[new()], claim=claim_of(slots=1))),
            store.jobs.cancel(letter.id, now=NOW),
            store.dead_letters.replay_all(Filter(), before=None, now=NOW, limit=1),
            store.jobs.pause("default", now=NOW) if n % 2 else store.jobs.resume("default"),
            store.workers.leave(WORKER + n, now=NOW),
            store.jobs.list(Filter(), before=None, limit=10),
            store.jobs.queues(),
        ]
    tasks = [asyncio.ensure_future(verb) for verb in verbs]
    for task in tasks:
        loop.call_later(dice.random() * 0.1, task.cancel)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await in_transaction(store) is False
    for letter in letters:
        row = await row_of(store, letter.id)
        assert row.state in {"dead", "queued", "running", "cancelled"}
        assert len(await store.jobs.attempts(row.seq)) >= 1


# -- one transaction, one way to begin it ---------------------------------------------------------------


async def test_B2_every_write_begins_with_begin_immediate_and_nothing_else(  # noqa: PLR0915 - every verb
    tmp_path: Path,
) -> None:
    rig = SqliteRig(tmp_path)
    await rig.open()
    store = rig.store
    assert isinstance(store, SqliteStore)
    said: list[str] = []
    await writer_of(store).run(lambda conn: conn.set_trace_callback(said.append))

    await store.workers.join(worker_row(), lambda: None)
    await enqueue(store, *[new(key="key") for _ in range(3)], new(), new(run_at=NOW + 1))
    for kind in OUTCOMES.values():
        job = await claim_one(store, new(queue=f"queue of {kind.__name__}"))
        await settle(store, kind(job))
        await settle(store, succeeded(job))
    letter = await make_dead(store, new(queue="mail"))
    await store.dead_letters.replay(letter.id, now=NOW)
    letter = await make_dead(store, new(queue="other"))
    await store.dead_letters.replay_edited(letter.id, new())
    await store.dead_letters.replay_all(Filter(), before=None, now=NOW, limit=10)
    await store.dead_letters.delete(letter.id)
    await store.write(Round(NOW, enqueues=[new(id=letter.id)] * 2))
    await store.jobs.cancel(letter.id, now=NOW)
    await store.jobs.pause("default", now=NOW)
    await store.jobs.resume("default")
    await store.workers.beat(WORKER, now=NOW)
    await store.jobs.prune(
        finished_before=NOW + DAY, by_task={}, died_before=NOW, keep_finished=9, limit=9
    )
    await store.dead_letters.bury_waiting(
        "default", "work", due_before=NOW, reason="unknown_task", error="", now=NOW, limit=9
    )
    rig.kill_worker(WORKER)
    await store.workers.recover(now=NOW, thorough=True)
    await store.workers.leave(WORKER, now=NOW)
    await writer_of(store).run(lambda conn: conn.set_trace_callback(None))
    await rig.close()

    begins = [one for one in said if one.lstrip().upper().startswith("BEGIN")]
    assert len(begins) > 30
    assert set(begins) == {BEGIN}
    # And nothing is changed outside of one.
    inside = False
    for statement in said:
        word = statement.split()[0].upper()
        if word == "BEGIN":
            assert not inside
            inside = True
        elif word in {"COMMIT", "ROLLBACK"} and " TO " not in statement:
            assert inside
            inside = False
        elif word in {"INSERT", "UPDATE", "DELETE", "WITH", "SAVEPOINT"}:
            assert inside, statement


async def test_B4_two_tasks_that_write_at_once_each_get_their_transaction(
    store: SqliteStore,
) -> None:
    async def writes(tag: str) -> list[str]:
        ids = []
        for _ in range(50):
            (made,) = await enqueue(store, new(tag=tag))
            ids.append(made.id)
        return ids

    mine, yours = await asyncio.gather(writes("mine"), writes("yours"))
    assert len({*mine, *yours}) == 100
    for tag, ids in (("mine", mine), ("yours", yours)):
        page = await store.jobs.list(Filter(tag=tag), before=None, limit=1_000)
        assert [row.id for row in reversed(page.rows)] == ids


async def test_B4_a_write_that_fails_beside_another_takes_nothing_of_it_along(
    store: SqliteStore,
) -> None:
    good, bad = new(), new()
    answers = await asyncio.gather(
        store.write(Round(NOW, enqueues=[good])),
        store._access.write(_store_and_fail, bad.id),
        store.write(Round(NOW, enqueues=[new()])),
        return_exceptions=True,
    )
    assert isinstance(answers[1], ZeroDivisionError)
    assert await store.jobs.get(bad.id) is None
    assert (await row_of(store, good.id)).state == "queued"


def _store_and_fail(conn: sqlite3.Connection, id: str) -> None:
    conn.execute(
        "INSERT INTO jobrunner_jobs (id, task, queue, state, args, priority, created_at, run_at)"
        " VALUES (?, 't', 'q', 'queued', '{}', 0, 0, 0)",
        (id,),
    )
    raise ZeroDivisionError


async def test_reads_go_on_while_a_write_is_under_way(store: SqliteStore) -> None:
    (made,) = await enqueue(store, new())
    gate = Gate()
    writing = asyncio.create_task(store._access.write(gate))
    await asyncio.to_thread(gate.entered.wait, 20)
    assert (await row_of(store, made.id)).state == "queued"
    gate.open.set()
    await writing


# -- close ----------------------------------------------------------------------------------------------

ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


async def test_C5_close_behind_an_endless_query_is_quick(store: SqliteStore) -> None:
    started = threading.Event()

    def forever(conn: sqlite3.Connection) -> None:
        conn.set_progress_handler(started.set, 1_000)
        conn.execute(ENDLESS).fetchall()

    reading = asyncio.create_task(store._access.read(forever))
    await asyncio.to_thread(started.wait, 20)
    async with asyncio.timeout(5):
        await store.close()
    with pytest.raises(StoreUnavailable, match="is not open any more"):
        await reading


async def test_close_waits_for_a_write_that_is_under_way(tmp_db: Path) -> None:
    store = SqliteStore(tmp_db)
    await store.open()
    job = new()
    gate = Gate()
    holding = asyncio.create_task(writer_of(store).run(gate))
    await asyncio.to_thread(gate.entered.wait, 20)
    writing = asyncio.create_task(store.write(Round(NOW, enqueues=[job])))
    while writer_of(store)._connection._tx.qsize() < 1:
        await asyncio.to_thread(lambda: None)
    closing = asyncio.create_task(store.close())
    gate.open.set()
    await asyncio.gather(holding, closing)
    written = await writing
    assert isinstance(written.enqueued[0], Enqueued)
    await store.open()
    assert (await row_of(store, job.id)).state == "queued"
    await store.close()


async def test_close_while_verbs_wait_answers_each_of_them(tmp_db: Path) -> None:
    store = SqliteStore(tmp_db)
    await store.open()
    waiting = [asyncio.create_task(store.jobs.get("id")) for _ in range(20)]
    waiting += [asyncio.create_task(store.jobs.get("id")) for _ in range(20)]
    await store.close()
    for task in waiting:
        with suppress(StoreUnavailable):
            assert await task is None


# -- what we use of aiosqlite that it does not promise ------------------------------------------------


async def test_C7_aiosqlite_runs_a_function_on_its_thread_in_one_hop(tmp_path: Path) -> None:
    connection = aiosqlite.connect(tmp_path / "any.db", isolation_level=None)
    thread = connection._thread
    assert isinstance(thread, threading.Thread)
    assert not thread.is_alive()  # so that it can still be made a daemon
    thread.daemon = True
    await connection
    assert thread.is_alive()
    ran: list[object] = []

    def function(one: object, *, two: object) -> str:
        ran.extend([threading.current_thread(), one, two])
        return "answer"

    assert inspect.iscoroutinefunction(connection._execute)
    assert await connection._execute(function, 1, two=2) == "answer"  # type: ignore[no-untyped-call]
    assert ran == [thread, 1, 2]
    with pytest.raises(ZeroDivisionError):
        await connection._execute(lambda: 1 // 0)  # type: ignore[no-untyped-call]

    raw: object = connection._conn
    assert isinstance(raw, sqlite3.Connection)
    assert raw is vars(connection)["_connection"]
    await connection.close()
    assert vars(connection)["_connection"] is None
    with pytest.raises(ValueError, match="no active connection"):
        _ = connection._conn
    with pytest.raises(ValueError, match="closed"):
        await connection._execute(lambda: None)  # type: ignore[no-untyped-call]
    thread.join(5)
    assert not thread.is_alive()


async def test_C7_aiosqlite_runs_a_function_whose_caller_was_cancelled(tmp_path: Path) -> None:
    async with aiosqlite.connect(tmp_path / "any.db") as connection:
        gate, ran = Gate(), threading.Event()
        first = asyncio.ensure_future(connection._execute(gate, None))  # type: ignore[no-untyped-call]
        second = asyncio.ensure_future(connection._execute(ran.set))  # type: ignore[no-untyped-call]
        await asyncio.to_thread(gate.entered.wait, 20)
        second.cancel()
        gate.open.set()
        await first
        assert await asyncio.to_thread(ran.wait, 20)


async def test_claims_under_load_from_many_tasks_give_each_job_to_one(store: SqliteStore) -> None:
    await enqueue(store, *[new() for _ in range(300)])
    rounds = await asyncio.gather(*[claim(store, slots=7, worker=WORKER + n) for n in range(50)])
    taken = [job.id for jobs in rounds for job in jobs]
    assert len(taken) == len(set(taken)) == 300


# -- reads -----------------------------------------------------------------------------------------


async def test_read_of_several_statements_is_of_one_moment(store: SqliteStore) -> None:
    began, written = threading.Event(), threading.Event()

    def count_twice(conn: sqlite3.Connection) -> list[int]:
        def count() -> int:
            return int(conn.execute("SELECT count(*) FROM jobrunner_jobs").fetchone()[0])

        before = count()
        began.set()
        assert written.wait(15)
        return [before, count()]

    counting = asyncio.ensure_future(store._access.read(count_twice))
    assert await asyncio.to_thread(began.wait, 15)
    await enqueue(store, new())
    written.set()
    assert await counting == [0, 0]
    assert len((await store.jobs.list(Filter(), before=None, limit=10)).rows) == 1


async def test_queues_are_told_while_their_last_job_is_being_claimed(
    store: SqliteStore, tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enqueue(store, new())
    oldest_due = queues._oldest_due

    def after_a_claim(conn: sqlite3.Connection, queue: str, task: str) -> int:
        with closing(sqlite3.connect(tmp_db)) as other:
            other.execute("UPDATE jobrunner_jobs SET state = 'running', worker = 1")
            other.commit()
        return oldest_due(conn, queue, task)

    monkeypatch.setattr(queues, "_oldest_due", after_a_claim)
    (queue,) = await store.jobs.queues()
    assert (queue.queued, queue.running, queue.oldest_due_at) == (1, 0, NOW)
    (queue,) = await store.jobs.queues()
    assert (queue.queued, queue.running, queue.oldest_due_at) == (0, 1, None)
