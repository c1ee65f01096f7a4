"""Chores of the store on PostgreSQL: dead rows, what keeps them, and clocks that differ."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

import pytest

from jobrunner.core import clock
from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.store.postgres import locks, upkeep
from jobrunner.store.postgres.connection import READER, Connection, close, connect
from jobrunner.store.postgres.store import PostgresStore
from jobrunner.store.round import Round
from tests.support.factories import HOUR, NOW, claim, claim_of, new, succeeded

PATIENCE_S: Final = 60.0
JOBS: Final = 60_000
SLICE: Final = 2_000
MOST_MS: Final = 50


@pytest.fixture
async def store(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PostgresStore]:
    """A store whose chores are always due."""
    monkeypatch.setattr(upkeep, "EVERY_S", 0)
    store = PostgresStore(postgres_url)
    await store.open()
    yield store
    await store.close()
    clock.follow(0)


@pytest.fixture
async def outside(postgres_url: str) -> AsyncIterator[Connection]:
    """A session of somebody else."""
    connection = await connect(postgres_url, READER)
    yield connection
    await close(connection)


async def run_through(store: PostgresStore, jobs: int) -> None:
    """Store, claim and settle so many jobs."""
    for _ in range(0, jobs, SLICE):
        await store.write(Round(NOW, enqueues=[new() for _ in range(SLICE)]))
        claimed = (await store.write(Round(NOW, claim=claim_of(slots=SLICE)))).claimed
        await store.write(Round(NOW, outcomes=[succeeded(job) for job in claimed]))


async def dead_rows(connection: Connection) -> int:
    """Return how many dead rows the server counts; each session adds its own within a second."""
    return int(await connection.fetchval(upkeep._DEAD))


async def test_dead_rows_of_many_jobs_are_vacuumed(
    store: PostgresStore, outside: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await outside.execute("ALTER TABLE jobrunner.jobs SET (autovacuum_enabled = false)")
    monkeypatch.setattr(upkeep, "MOST_DEAD", SLICE)
    await run_through(store, SLICE)
    async with asyncio.timeout(PATIENCE_S):
        while await dead_rows(outside) < SLICE:
            await outside.execute("SELECT pg_stat_force_next_flush()")
            await store.write(Round(NOW, enqueues=[new()]))
        await store.upkeep()
        assert store._upkeep._vacuum is not None
        await store._upkeep._vacuum
        while await dead_rows(outside) >= SLICE:
            await outside.execute("SELECT 1")
    await outside.execute("ALTER TABLE jobrunner.jobs RESET (autovacuum_enabled)")


async def test_one_process_vacuums_at_a_time(
    store: PostgresStore, outside: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await outside.fetchval(upkeep._ELECT, *locks.VACUUM.key)
    count = "SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'jobs'"
    before = await outside.fetchval(count)
    monkeypatch.setattr(upkeep, "MOST_DEAD", 0)
    await store.upkeep()
    assert store._upkeep._vacuum is not None
    await store._upkeep._vacuum
    assert await outside.fetchval(count) == before


async def test_F22_snapshot_that_is_held_through_many_jobs_is_named_and_claims_stay_quick(
    store: PostgresStore,
    outside: Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(upkeep, "MOST_DEAD", 0)
    monkeypatch.setattr(upkeep, "OLD_SNAPSHOT_S", 0)
    await outside.execute("SET idle_in_transaction_session_timeout = 0")
    await outside.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    pid = await outside.fetchval("SELECT pg_backend_pid()")
    await run_through(store, JOBS)
    await store.upkeep()
    assert (
        f"session {pid} (jobrunner reader) of the database has had a transaction open"
        in caplog.text
    )
    await store.write(Round(NOW, enqueues=[new() for _ in range(200)]))
    took = []
    for _ in range(10):
        # The processor's time of the server is what dead rows cost; a busy machine delays both ends.
        began = time.perf_counter()
        assert len(await claim(store, slots=20)) == 20
        took.append((time.perf_counter() - began) * 1000)
    assert min(took) < MOST_MS
    caplog.clear()
    await store.upkeep()
    assert "has had a transaction open" not in caplog.text, "it was named already"
    await outside.execute("COMMIT")


async def test_F35_process_whose_clock_is_an_hour_ahead_starts_nothing_early(
    postgres_url: str, outside: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((upkeep, "machine_us"), (clock, "system_us")):
        right = getattr(module, name)
        monkeypatch.setattr(module, name, lambda right=right: right() + HOUR)
    store = PostgresStore(postgres_url)
    await store.open()
    try:
        server = await outside.fetchval(upkeep._NOW)
        assert abs(now_us() - server) < 30 * SECOND_US
        due = server + HOUR // 2
        await store.write(Round(now_us(), enqueues=[new(run_at=due, created_at=server)]))
        assert await claim(store, now=now_us()) == []
        assert len(await claim(store, now=due)) == 1
    finally:
        await store.close()
        clock.follow(0)
