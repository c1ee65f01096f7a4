"""Two transactions at once on PostgreSQL, one stopped before its commit: what the other one does with a count.

Each transaction has a snapshot per statement and sees nothing that is not committed.  What SQLite's single writer gives
for nothing is a lock here, taken before the count; each test fails without its lock.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import pytest

from jobrunner.core.errors import QueueFull
from jobrunner.core.limits import Limit, LimitName, RateLimit
from jobrunner.core.model import Enqueued
from jobrunner.store.postgres.connection import WRITER, close, connect
from jobrunner.store.postgres.sql import insert
from jobrunner.store.postgres.sql.round import write_round
from jobrunner.store.postgres.sql.statistics import flush
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.postgres.store import PostgresStore
from jobrunner.store.round import Round, Written
from tests.support.factories import (
    HOUR,
    NOW,
    OTHER_WORKER,
    claim,
    claim_of,
    enqueue,
    new,
    row_of,
    settle,
    succeeded,
)

T = TypeVar("T")
PATIENCE_S: Final = 20.0

LANE: Final = "work[1]"
OTHERS: Final = Round(NOW, claim=claim_of(worker=OTHER_WORKER))


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    """A store whose rounds are those of the second process."""
    store = PostgresStore(postgres_url)
    await store.open()
    yield store
    await store.close()


Commit = Callable[[], Awaitable[None]]


@asynccontextmanager
async def stopped(url: str, request: Round) -> AsyncIterator[tuple[Written, Commit]]:
    """Carry out a round of another process up to its commit, which the test does."""
    connection = await connect(url, WRITER)
    tx = Transaction(connection)
    await tx.execute("BEGIN")

    async def commit() -> None:
        await flush(tx)
        await tx.execute("COMMIT")

    try:
        yield await write_round(tx, request), commit
    finally:
        await close(connection)


async def waiting(url: str, call: Awaitable[T]) -> "asyncio.Future[T]":
    """Begin a call, and return it once the server says that it waits for a lock."""
    begun = asyncio.ensure_future(call)
    connection: Any = await connect(url, WRITER)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock' AND datname = current_database()"
            ):
                assert not begun.done(), f"it has not waited: {begun}"
    finally:
        await close(connection)
    return begun


async def test_lane_that_another_claim_holds_is_left_for_the_next_round(
    store: PostgresStore, postgres_url: str
) -> None:
    await store.limits.declare({LimitName("lanes", "work"): Limit(1)}, revision=1)
    await enqueue(store, new(lane=LANE), new(lane=LANE))
    async with stopped(postgres_url, Round(NOW, claim=claim_of())) as (first, commit):
        assert len(first.claimed) == 1
        second = await store.write(OTHERS)
        assert not second.claimed
        assert second.more_due, "it must look again: the other one may leave the lane open"
        await commit()
    assert not (await store.write(OTHERS)).claimed


async def test_lane_with_jobs_in_two_queues_is_counted_by_one_claim_at_a_time(
    store: PostgresStore, postgres_url: str
) -> None:
    await store.limits.declare({LimitName("lanes", "work"): Limit(1)}, revision=1)
    await enqueue(store, new(lane=LANE, queue="a"), new(lane=LANE, queue="b"))
    async with stopped(postgres_url, Round(NOW, claim=claim_of("a"))) as (first, commit):
        assert len(first.claimed) == 1
        assert not await claim(store, "b", worker=OTHER_WORKER)
        await commit()
    assert not await claim(store, "b", worker=OTHER_WORKER)


async def test_end_of_a_job_opens_its_lane_though_a_claim_is_about_to_call_it_full(
    store: PostgresStore, postgres_url: str
) -> None:
    await store.limits.declare({LimitName("lanes", "work"): Limit(1)}, revision=1)
    await enqueue(store, new(lane=LANE))
    (running,) = await claim(store)
    await enqueue(store, new(lane=LANE))
    async with stopped(postgres_url, Round(NOW, claim=claim_of(worker=OTHER_WORKER))) as (
        other,
        commit,
    ):
        assert not other.claimed
        ending = await waiting(postgres_url, settle(store, succeeded(running)))
        await commit()
        await ending
    assert (await store.limits.lanes(cap=10)).open == 1
    assert len(await claim(store)) == 1


@pytest.mark.parametrize("held", [20, 120])
@pytest.mark.parametrize("limits", [{}, {LimitName("task", "elsewhere"): Limit(1)}])
async def test_claim_among_many_tasks_passes_over_all_that_another_claim_holds(
    store: PostgresStore, postgres_url: str, held: int, limits: dict[LimitName, Limit]
) -> None:
    await store.limits.declare(limits, revision=1)
    tasks = [f"work{n}" for n in range(30)]
    jobs = [new(tasks[n % 30 if n % 2 else 0]) for n in range(200)]
    await enqueue(store, *jobs)
    ids = [job.id for job in jobs]
    theirs = claim_of(worker=OTHER_WORKER, slots=held, tasks=tasks)
    async with stopped(postgres_url, Round(NOW, claim=theirs)) as (first, _):
        assert [job.id for job in first.claimed] == ids[:held]
        taken = await claim(store, slots=10, tasks=tasks)
        assert [job.id for job in taken] == ids[held : held + 10]


async def test_concurrency_of_a_queue_is_counted_by_one_claim_at_a_time(
    store: PostgresStore, postgres_url: str
) -> None:
    await store.limits.declare({LimitName("queue", "default"): Limit(1)}, revision=1)
    await enqueue(store, new(), new())
    async with stopped(postgres_url, Round(NOW, claim=claim_of())) as (first, commit):
        assert len(first.claimed) == 1
        other = await waiting(postgres_url, store.write(OTHERS))
        await commit()
        assert not (await other).claimed


async def test_token_of_a_task_is_taken_by_one_claim(
    store: PostgresStore, postgres_url: str
) -> None:
    rate = Limit(rate=RateLimit(1, HOUR, 1))
    await store.limits.declare({LimitName("task", "work"): rate}, revision=1)
    await enqueue(store, new(), new())
    async with stopped(postgres_url, Round(NOW, claim=claim_of())) as (first, commit):
        assert len(first.claimed) == 1
        other = await waiting(postgres_url, store.write(OTHERS))
        await commit()
        assert not (await other).claimed


async def test_jobs_of_an_ordered_lane_are_committed_in_the_order_of_their_numbers(
    store: PostgresStore, postgres_url: str
) -> None:
    older = new(lane=LANE, ordered=True)
    newer = new(lane=LANE, ordered=True)
    async with stopped(postgres_url, Round(NOW, enqueues=[older])) as (_, commit):
        storing = await waiting(postgres_url, enqueue(store, newer))
        await commit()
        await storing
    (started,) = await claim(store)
    assert started.id == older.id
    assert (await row_of(store, newer.id)).seq > started.seq


async def test_enqueue_into_an_ordered_lane_waits_for_one_that_has_drawn_its_number(
    store: PostgresStore, postgres_url: str
) -> None:
    """Also before that one has listed the lane: else the newer job could be committed and started first."""
    older, newer = new(lane=LANE, ordered=True), new(lane=LANE, ordered=True)
    connection = await connect(postgres_url, WRITER)
    tx = Transaction(connection)
    await tx.execute("BEGIN")
    await insert.lock_lanes(tx, [older])
    await tx.execute(insert._WHOLE, ["queued"], *([value] for value in older))
    storing = await waiting(postgres_url, enqueue(store, newer))
    await tx.execute("COMMIT")
    await storing
    await close(connection)
    assert (await row_of(store, older.id)).seq < (await row_of(store, newer.id)).seq


async def test_max_waiting_is_counted_by_one_enqueue_at_a_time(
    store: PostgresStore, postgres_url: str
) -> None:
    name = LimitName("queue", "default")
    await store.limits.declare({name: Limit(max_waiting=1)}, revision=1)
    async with stopped(postgres_url, Round(NOW, enqueues=[new()])) as (first, commit):
        assert isinstance(first.enqueued[0], Enqueued)
        other = await waiting(postgres_url, store.write(Round(NOW, enqueues=[new()])))
        await commit()
        assert isinstance((await other).enqueued[0], QueueFull)


async def test_suspects_of_one_lane_in_two_queues_are_counted_by_one_claim_at_a_time(
    store: PostgresStore, postgres_url: str
) -> None:
    await store.limits.declare({LimitName("lanes", "work"): Limit(1)}, revision=1)
    await enqueue(store, new(lane=LANE, queue="a"), new(lane=LANE, queue="b"))
    connection: Any = await connect(postgres_url, WRITER)
    await connection.execute("UPDATE jobrunner.jobs SET suspect = true")
    await connection.execute("DELETE FROM jobrunner.lanes")
    await store.limits.repair(now=NOW)
    assert not await connection.fetch("SELECT FROM jobrunner.lane_locks")
    await close(connection)
    async with stopped(postgres_url, Round(NOW, claim=claim_of("a"))) as (first, commit):
        assert len(first.claimed) == 1
        request = Round(NOW, claim=claim_of("b", worker=OTHER_WORKER))
        other = await waiting(postgres_url, store.write(request))
        await commit()
        assert not (await other).claimed


async def test_suspect_of_a_lane_that_another_claim_holds_is_left_for_the_next_round(
    store: PostgresStore, postgres_url: str
) -> None:
    await store.limits.declare({LimitName("lanes", "work"): Limit(1)}, revision=1)
    await enqueue(store, new(lane=LANE, queue="a"), new(lane=LANE, queue="b"))
    connection: Any = await connect(postgres_url, WRITER)
    await connection.execute("UPDATE jobrunner.jobs SET suspect = true")
    await close(connection)
    async with stopped(postgres_url, Round(NOW, claim=claim_of("a"))) as (first, commit):
        assert len(first.claimed) == 1
        second = await store.write(Round(NOW, claim=claim_of("b", worker=OTHER_WORKER)))
        assert (second.claimed, second.more_due) == ([], True)
        await commit()


async def test_first_jobs_of_a_lane_in_two_queues_are_started_one_at_a_time(
    store: PostgresStore, postgres_url: str
) -> None:
    await store.limits.declare({LimitName("lanes", "work"): Limit(1)}, revision=1)
    here = Round(NOW, enqueues=[new(lane=LANE, queue="a")], claim=claim_of("a"))
    there = Round(
        NOW, enqueues=[new(lane=LANE, queue="b")], claim=claim_of("b", worker=OTHER_WORKER)
    )
    async with stopped(postgres_url, here) as (first, commit):
        assert len(first.claimed) == 1
        other = await waiting(postgres_url, store.write(there))
        await commit()
        assert not (await other).claimed
